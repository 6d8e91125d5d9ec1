"""Start programs from an interpreter that has already imported Django and gunicorn.

A new interpreter would spend most of its start on imports that all programs of the tests share. This module
is both ends: `ForkServer` for the tests, and the program that forks, which is this file, run by its path.

A forked program has the arguments, environment, directory, streams and ``__main__`` of a new one, and no
other open files. These differ: the modules of `PRELOADED` are imported, though nothing of ``django_wspbus``;
the hash seed, the umask and the limits are those of the fork server; /proc shows the fork server's command
line.

If `WITHOUT` is in the environment of the tests, a new interpreter starts every program.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

PRELOADED = (
    "concurrent.futures.thread",
    "django.contrib.staticfiles.handlers",
    "django.core.checks",
    "django.core.handlers.wsgi",
    "django.core.management.base",
    "django.core.servers.basehttp",
    "django.db.backends.sqlite3.base",
    "django.db.models",
    "django.template.backends.django",
    "django.test.client",
    "django.urls",
    "django.utils.autoreload",
    "django.views.debug",
    "gunicorn.app.base",
    "gunicorn.arbiter",
    "gunicorn.config",
    "multiprocessing",
    "psutil",
    "runpy",
    "urllib.request",
)
WITHOUT = "TESTS_WITHOUT_FORK_SERVER"
INTERPRETER = {
    # gunicorn does not close its sockets before its processes end.
    "PYTHONWARNINGS": "error,ignore::ResourceWarning",
    # Python would use the bytecode of a file also for its next version of the same size and second.
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
"""The variables of the interpreter for every program of a project."""

SIZE_OF_ROOM = 100_000
ROOM = {"ROOM_FOR_OTHER_VARIABLES": "." * SIZE_OF_ROOM}
"""A variable of the fork server, whose memory `show_environment` overwrites."""

TIME_TO_END = 10
"""Seconds for the fork server to end."""


# In the tests


class Forked:
    """A program, with the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = os.fdopen(status, "rb")

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            return self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            with self._status as status:
                self.returncode = int(status.read() or -signal.SIGKILL)  # empty if the fork server was killed
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # its status is on the way
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The interpreter that forks. It ends together with the process that has started it."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *modules_to_preload()],
                pass_fds=[theirs.fileno()],
                env={**of_interpreter(os.environ), **INTERPRETER, **ROOM},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def start(
        self,
        command: list[str],
        *,
        env: Mapping[str, str],
        cwd: str | Path | None,
        stdout: int,
        stderr: int,
    ) -> Forked:
        """Start ``python`` with a script and its arguments, in its own session and without input."""
        order = {"command": command, "environment": dict(env), "directory": str(cwd or os.getcwd())}
        message = json.dumps(order).encode()
        status, write_status = os.pipe()
        try:
            head = len(message).to_bytes(8, "big")
            socket.send_fds(self._ours, [head], [stdout, stderr, write_status])
            self._ours.sendall(message)
        finally:
            os.close(write_status)
        answer = self._ours.recv(8)
        if not answer:
            os.close(status)
            raise RuntimeError("The fork server has ended.")
        return Forked(int.from_bytes(answer, "big"), status)

    def close(self) -> None:
        self._ours.close()
        self._process.wait(TIME_TO_END)


@functools.cache
def fork_server() -> ForkServer:
    """Return the fork server of this process, and start it on first use. `close` ends it."""
    return ForkServer()


def close() -> None:
    if fork_server.cache_info().currsize:
        fork_server().close()
        fork_server.cache_clear()


def can_fork(env: Mapping[str, str]) -> bool:
    """Return whether a fork can replace a new interpreter with this environment."""
    size = sum(len(os.fsencode(name + value)) + 2 for name, value in env.items())
    is_the_same = of_interpreter(env) == {**of_interpreter(os.environ), **INTERPRETER}
    return sys.platform == "linux" and WITHOUT not in os.environ and is_the_same and size < SIZE_OF_ROOM


def modules_to_preload() -> tuple[str, ...]:
    """Return `PRELOADED`, and coverage if it measures the tests: programs spend 0.1 s on its import."""
    return PRELOADED + (("coverage",) if "COVERAGE_PROCESS_CONFIG" in os.environ else ())


def of_interpreter(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an interpreter reads at its start."""
    return {name: value for name, value in env.items() if name.startswith(("PYTHON", "LC_", "LANG"))}


# In the program that forks


def main(control: socket.socket, modules: list[str]) -> None:
    """Fork for each order, and report the status of each process that ends. Return in the forked program."""
    preload(modules)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(writer)
    children: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, reader], [], [])
        if reader in ready:
            os.read(reader, 4096)
            reap(children)
        if control in ready:
            head, descriptors, _, _ = socket.recv_fds(control, 8, 3)
            if not head:
                end(children)
            stdout, stderr, status = descriptors
            order = json.loads(control.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                become(order, stdout, stderr)
                return
            os.close(stdout)
            os.close(stderr)
            children[pid] = status
            control.sendall(pid.to_bytes(8, "big"))


def preload(modules: list[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    from django.conf import settings

    assert not settings.configured
    assert not any(name.startswith("django_wspbus") for name in sys.modules)


def end(children: dict[int, int]) -> NoReturn:
    """End with the tests: kill the process group of each program that still runs."""
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    os._exit(0)


def reap(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        descriptor = children.pop(pid)
        with contextlib.suppress(OSError):  # the test has ended
            os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(descriptor)


def become(order: dict[str, Any], stdout: int, stderr: int) -> None:
    """Take on the streams, arguments, directory and environment of a program."""
    os.setsid()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, 1024)
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    show_environment()
    command = order["command"]
    sys.argv[:] = command
    sys.orig_argv[:] = [sys.executable, *command]
    sys.path[0] = os.path.dirname(os.path.realpath(command[0]))
    sys.path_importer_cache.clear()
    time.tzset()


def show_environment() -> None:
    """Write the environment to the memory from which /proc shows it."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = map(int, fields[47:49])  # env_start and env_end, see proc(5)
    block = b"".join(name + b"=" + value + b"\0" for name, value in os.environb.items())
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(begin)
        memory.write(block.ljust(end - begin, b"\0"))


def run(path: str) -> None:
    """Run a script as ``__main__``."""
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        import coverage

        coverage.process_startup()
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__ = path
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    exec(code, module.__dict__)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
    run(sys.argv[0])
