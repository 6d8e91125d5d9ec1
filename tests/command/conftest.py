"""The command, run by a user on a site that a test plays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ..control.conftest import Served, serve
from ..processes import DEADLINE

__all__ = ["serve"]

PROGRAM = [sys.executable, "-W", "error", "-m", "django_wspbus"]

Ran = subprocess.CompletedProcess[str]


def run(*arguments: str, **options: Any) -> Ran:
    """Run ``python -m django_wspbus`` to its end."""
    usual = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": DEADLINE}
    return subprocess.run([*PROGRAM, *arguments], check=False, **{**usual, **options})


class Played:
    """A site that a test plays: it answers actions with results. ``requests``: the arguments that it got."""

    def __init__(self, served: Served, requests: dict[str, Any]) -> None:
        self.name = served.name.text
        self.served = served
        self.requests = requests

    def run(self, action: str, *arguments: str, **options: Any) -> Ran:
        return run(action, *arguments, "--socket", self.name, **options)


@pytest.fixture
def play(serve: Callable[..., Served]) -> Callable[..., Played]:
    """Play a site. An action is given by its result, or by a function of its call."""

    def play(pid: int = 4101, **actions: Any) -> Played:
        requests: dict[str, Any] = {}

        def made(name: str, action: Any) -> Callable[[Any], Any]:
            def answer(call: Any) -> Any:
                requests[name] = call.arguments
                return action(call) if callable(action) else action

            return answer

        hello = {"pid": pid, "uid": os.geteuid(), "version": "0.1.0", "project": "shop"}
        hello |= {"settings": "shop.settings", "directory": "/srv/shop"}
        table = {name: made(name, action) for name, action in {"hello": hello, **actions}.items()}
        return Played(serve(table, pid), requests)

    return play
