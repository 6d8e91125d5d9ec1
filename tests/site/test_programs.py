"""The restart of a program for a client, without the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_wspbus.children.programs.program import Program
from django_wspbus.conf import ProcessSettings
from django_wspbus.site.programs import restart_programs
from django_wspbus.wspbus import Refusal

from ..processes import DEADLINE


class Client:
    """A client that sees the steps, and stays."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def wait_until_gone(self, seconds: float) -> bool:
        return False


class Bus:
    """A bus that calls deferred functions at once."""

    exit_asked = False

    def defer(self, function: Callable[[], Any]) -> None:
        function()


def test_a_program_that_cannot_be_started_has_its_reason_at_once() -> None:
    def launch(program: Program) -> Any:
        raise Refusal("Too many open files: no process could be started.")

    settings = ProcessSettings(alias="tasks", command=("db_worker",))
    program = Program(settings, 1, launch, lambda seconds, function: None, lambda message, level: None)
    with pytest.raises(Refusal, match="could not be started: Too many open files"):
        restart_programs(Bus(), Client(), [program], DEADLINE)  # type: ignore[arg-type]
    assert (program.starts, program.state) == (1, "waiting")
