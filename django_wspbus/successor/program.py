"""Run a command line of Python in the current interpreter, as ``python`` would run it."""

from __future__ import annotations

import ctypes
import fcntl
import io
import os
import runpy
import sys
import traceback
import types
import zipimport
from collections.abc import Iterable, Sequence
from types import TracebackType

PR_SET_PDEATHSIG = 1
"""The option of prctl(2) that sets the signal which the kernel sends when the parent ends."""

SYSTEMD_FIRST = 3
"""The first descriptor that systemd passes (sd_listen_fds(3))."""


def set_up(command: Sequence[str]) -> None:
    """Prepare ``sys.argv`` and ``sys.path`` for the command: see `invocation.Invocation.command`."""
    if sys.argv[:1] != ["-c"]:  # already set up
        return
    kind = command[0]
    sys.argv[:] = ["-c", *command[2:]] if kind == "-c" else command[1:] if kind == "-m" else command
    if sys.flags.safe_path or _is_container(kind):
        return
    if kind == "-c":
        sys.path.insert(0, "")
    else:
        sys.path.insert(0, os.getcwd() if kind == "-m" else os.path.dirname(os.path.realpath(kind)))


def execute(command: Sequence[str]) -> None:
    """Run a script, a module, a folder or an archive with a ``__main__.py``, or a piece of code."""
    if command[0] == "-m":
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    elif _is_container(command[0]):
        runpy.run_path(command[0], run_name="__main__")
    elif command[0] == "-c":
        _run(command[1], "<string>")
    else:
        # Not runpy: it would leave the path relative, and overwrite sys.argv[0].
        path = os.path.abspath(command[0])
        with io.open_code(path) as file:
            source = file.read()
        _run(source, path)


def _run(source: bytes | str, path: str) -> None:
    code = compile(source, path, "exec")
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if path != "<string>":
        main.__file__ = path
    exec(code, main.__dict__)


def _is_container(path: str) -> bool:
    """Return whether Python would run a ``__main__.py`` in this folder or archive (see zipapp)."""
    if path.startswith("-"):
        return False
    try:
        return os.path.isdir(path) or bool(zipimport.zipimporter(path))
    except zipimport.ZipImportError:
        return False


def formatted(error: BaseException, own: Iterable[str]) -> str:
    """Return the traceback of an error, without its first frames in the folders ``own``."""
    prefixes = ("<frozen runpy>", *own)

    def is_own(trace: TracebackType) -> bool:
        return trace.tb_frame.f_code.co_filename.startswith(prefixes)

    trace = error.__traceback__
    while trace is not None and is_own(trace):
        trace = trace.tb_next
    if trace is None and not isinstance(error, SyntaxError):  # all frames are in these folders
        trace = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def die_with(parent: int, number: int) -> None:
    """Make the kernel signal this process when its parent ends; signal it now if the parent has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def place_sockets(descriptors: Sequence[int], others: Sequence[int]) -> list[int]:
    """Move listening sockets to the numbers of systemd's protocol; return the new numbers of ``others``."""
    above = SYSTEMD_FIRST + len(descriptors)
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, above) for each in (*descriptors, *others)]
    for descriptor in (*descriptors, *others):
        os.close(descriptor)
    for number, descriptor in enumerate(moved[: len(descriptors)], SYSTEMD_FIRST):
        os.dup2(descriptor, number, inheritable=False)
        os.close(descriptor)
    return moved[len(descriptors) :]
