from __future__ import annotations

import compileall
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from django_wspbus.control import address

from . import fork_server
from .processes import DEADLINE, ROOT
from .projects import GUNICORN, THREADED, Project

# On a busy machine, neither an example nor its making has a limit of time.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the packages that hundreds of processes import, because those write no bytecode."""
    if not hasattr(session.config, "workerinput"):  # once for all workers of pytest-xdist
        for name in ("django_wspbus", "testproject"):
            compileall.compile_dir(ROOT / name, quiet=2)


LONGEST = ("tests/real/", "tests/fleet/test_chaos.py", "tests/servers/test_resources.py")
"""The files that take longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process of pytest-xdist is busy alone at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.hookimpl(trylast=True)  # after the teardown of the last fixtures
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the fork server; fail if a test was skipped on a machine that has to run all of them."""
    fork_server.close()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if "TESTS_MAY_NOT_SKIP" in os.environ and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line(
            "\nSkipped, although TESTS_MAY_NOT_SKIP is set: install what is missing.", red=True
        )
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Restore the default handlers of signals that this process ignores under nohup or in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def new_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start programs without the fork server, whose imports could hide that one of ours is missing."""
    monkeypatch.setenv(fork_server.WITHOUT, "1")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A Django project in its own folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder)


@pytest.fixture(params=[GUNICORN, THREADED], ids=["gunicorn", "threaded"])
def server(request: pytest.FixtureRequest) -> Any:
    """The settings of a server of each kind, on a free port."""
    return request.param


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of this machine on which a socket listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def later() -> Iterator[Callable[..., Future[Any]]]:
    """Call a function in a daemon thread, for which no bus waits; return a future of its result."""
    started = []

    def call(function: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function(*args))
            except BaseException as error:
                future.set_exception(error)

        thread = threading.Thread(target=run, name="Client", daemon=True)
        started.append(thread)
        thread.start()
        return future

    yield call
    for thread in started:
        thread.join(DEADLINE)
        assert not thread.is_alive()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def socket_folder(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the sockets, as on a system without abstract ones."""
    path = short / "sockets"
    monkeypatch.setattr(address, "HAS_ABSTRACT_SOCKETS", False)
    monkeypatch.setattr(address, "folder_of", lambda uid: str(path))
    return path
