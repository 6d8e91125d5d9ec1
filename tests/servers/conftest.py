"""A project for every kind of server, and the fixtures that the tests of servers share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import DEADLINE, RunningSite
from tests.projects import Project

from .clients import Client as Client
from .clients import ask as ask
from .clients import connect as connect
from .clients import is_free as is_free
from .load import URLS as URLS
from .load import Shop

THREADED = "django_wspbus.servers.threaded.ThreadedServer"
GUNICORN = "django_wspbus.servers.gunicorn.GunicornServer"

Later = Callable[..., Future[Any]]
"""The fixture `later`."""

KINDS: dict[str, dict[str, Any]] = {
    "threaded": {"BACKEND": THREADED},
    "sync": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 4}},
    "gthread": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2, "threads": 4}},
}

BOTH: dict[str, dict[str, Any]] = {
    "child": {"BACKEND": GUNICORN, "OPTIONS": {"threads": 4}},
    "thread": {"BACKEND": THREADED},
}
"""A server in a child process, and another in the site process."""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A project whose code has versions, and whose pages wait for ``release``."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Shop(folder)


def hold(project: Project, later: Later, address: str, path: str, body: bytes | None = None) -> Future[Any]:
    """Send a request, wait until the application works on it, and return a future of its answer."""
    answer = later(ask, address, path, body)
    project.expect_note(f"{path.rpartition('/')[2]} waits")
    return answer


def release(project: Project, name: str) -> None:
    (project.root / name).touch()


def configure(project: Project, servers: dict[str, dict[str, Any]], **site: Any) -> None:
    """Write the settings of servers. A server without BIND gets any free port."""
    bound = {alias: {"BIND": "127.0.0.1:0", **server} for alias, server in servers.items()}
    project.configure(WSPBUS={"SERVERS": bound, **site})


def address_of(site: RunningSite, alias: str = "default") -> str:
    """Return the address of a started server, as BIND has it."""
    line = site.wait_for_line(rf"^  {alias} +(http://|unix:)(\S+?)/? +\(")
    return line[2] if line[1] == "http://" else line[1] + line[2]


def master_of(address: str) -> psutil.Process:
    """Return the master of the gunicorn that serves an address."""
    master = psutil.Process(int(ask(address)[1].split()[0])).parent()
    assert master is not None
    return master


def kill(process: psutil.Process) -> None:
    """Kill a process that is not a child of the tests, and wait for its end."""
    process.kill()
    assert psutil.wait_procs([process], DEADLINE)[1] == []


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}
