"""The command of this site, and the start of its successors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from ..system.terminal import ALONE
from ..wspbus import Refusal
from ..wspbus.ending import STARTUP_DIRECTORY
from .invocation import Invocation
from .keeper import BOOTSTRAP, Kept
from .values import write_values

DETACHED = ("invocation", "program", "notification", "keeper", "runner")
"""The modules that a successor executes, each after those that it imports."""

CANNOT_RUN = "The command of the site cannot be run again"

PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep

# Executed by BOOTSTRAP, with ``start`` and ``values``.
LOADER = """
import types
name = "django_wspbus_successor"
sys.modules[name] = types.ModuleType(name)
sys.modules[name].__path__ = []
for module, file, source in values["modules"]:
    made = sys.modules[f"{name}.{module}"] = types.ModuleType(f"{name}.{module}")
    made.__package__ = name
    exec(compile(source, file, "exec"), made.__dict__)
made.main(values, start)
"""


def first_environment() -> dict[str, str]:
    """Return the environment that this process was started with; without /proc, the present one.

    A successor must not see the variables that settings and apps have added since, because it reads them from
    files that may have changed.
    """
    with contextlib.suppress(OSError):
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
        pairs = [os.fsdecode(entry).partition("=") for entry in entries]
        if environment := {name: value for name, is_pair, value in pairs if name and is_pair}:
            return environment
    return dict(os.environ)


# Read at import: later a link may lead elsewhere, and an app may have changed the title of its process, which
# overwrites the environment in /proc.
TYPED = Invocation.typed(
    sys.orig_argv,
    executable=sys.executable or "",  # None in a program that embeds Python
    directory=STARTUP_DIRECTORY,
    environment=first_environment(),
)


@functools.cache
def original() -> Invocation:
    """Return the invocation of this process. Call it first while the files of this package still exist."""
    sources()
    return dataclasses.replace(TYPED, command=_without_wrapper(TYPED))


def _without_wrapper(invocation: Invocation) -> list[str]:
    """Return the command without a debugger or profiler around it, which has run it as ``__main__``."""
    command = invocation.command
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if not command or command[0] in ("-", "-c") or not isinstance(file, str):
        return command
    if command[0] == "-m":
        is_wrapped = spec is None or spec.name.removesuffix(".__main__") != command[1]
    else:
        paths = (os.path.join(invocation.directory, path) for path in (command[0], file))
        program, running = map(os.path.realpath, paths)
        is_wrapped = running != program and not running.startswith(program + os.sep)
    if not is_wrapped:
        return command
    if spec is not None and spec.name != "__main__":
        return ["-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]
    named = os.path.join(invocation.directory, sys.argv[0])
    return [sys.argv[0] if os.path.exists(named) else file, *sys.argv[1:]]


@functools.cache
def sources() -> list[tuple[str, str, str]]:
    """Return (name, file, source) of the modules that a successor executes."""
    found = []
    for name in DETACHED:
        module = importlib.import_module(f"{__package__}.{name}")
        found.append((name, str(module.__file__), inspect.getsource(module)))
    return found


def check() -> None:
    """Raise a `Refusal` if the command of this process cannot be run again."""
    invocation = original()
    program = invocation.command[0] if invocation.command else "-"
    path = os.path.join(invocation.directory, program)
    if program == "-":
        raise Refusal(f"{CANNOT_RUN}: Python read it from standard input. Write it to a file.")
    if program not in ("-m", "-c") and os.path.isdir(invocation.directory) and not os.path.exists(path):
        raise Refusal(f"{CANNOT_RUN}: there is no {path}.")


def write_start(
    invocation: Invocation,
    *,
    order: Mapping[str, Any] | None = None,
    sockets: Sequence[int] = (),
    descriptors: Mapping[str, int] | None = None,
    patch: str | None = None,
    site: int | None = None,
    kept: Kept | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Write the values that `runner.main` needs, and return the descriptor of the file.

    - ``order``: the task of ``runbus``, see `order.Order`
    - ``sockets``: to be moved to the numbers of systemd's protocol; ``descriptors``: others, by name
    - ``patch``: "gevent" or None
    - ``site``: the PID of the site, whose end ends the child
    - ``kept``: see `keeper.Keeper`
    - ``environment``: further variables for the next program
    """
    values = {
        "loader": LOADER,
        "modules": sources(),
        "folders": [PACKAGE],
        "invocation": dataclasses.asdict(invocation),
        "order": order,
        "sockets": list(sockets),
        "descriptors": dict(descriptors or {}),
        "patch": patch,
        "site": site,
        "kept": None if kept is None else dataclasses.asdict(kept),
        "environment": dict(environment or {}),
    }
    return write_values(values)


def execute(
    order: Mapping[str, Any],
    label: Iterable[str],
    *,
    sockets: Sequence[int],
    descriptors: Mapping[str, int],
    patch: str | None,
) -> NoReturn:
    """Replace this child process by a new program with the command of the site; see `spawn`."""
    invocation = original()
    descriptor = write_start(
        invocation, order=order, sockets=sockets, descriptors=descriptors, patch=patch, site=os.getppid()
    )
    for each in (descriptor, *sockets, *descriptors.values()):
        os.set_inheritable(each, True)
    os.chdir(invocation.directory)
    interpreter = invocation.find_interpreter()
    words = [interpreter, *invocation.options, "-c", BOOTSTRAP, str(descriptor), *label]
    os.execve(interpreter, words, invocation.environment)


def spawn(
    order: Mapping[str, Any],
    label: Iterable[str],
    *,
    sockets: Sequence[int] = (),
    descriptors: Mapping[str, int],
    patch: str | None = None,
    options: Mapping[str, Any] = MappingProxyType(ALONE),
    reserved: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a process that runs the command of this site and ends together with it; see `write_start`.

    ``label``: words that its command line shows; ``options``: further ones of `subprocess.Popen`. Call it in
    the main thread, because the kernel ends the process when the starting thread ends. A `Refusal` if the
    interpreter or the directory no longer exists.
    """
    check()
    invocation = original()
    start = write_start(
        invocation, order=order, sockets=sockets, descriptors=descriptors, patch=patch, site=os.getpid()
    )
    try:
        interpreter = invocation.find_interpreter()
        return subprocess.Popen(
            [interpreter, *invocation.options, "-c", BOOTSTRAP, str(start), *label],
            pass_fds=[start, *sockets, *descriptors.values(), *reserved],
            cwd=invocation.directory,
            env=invocation.environment_of_child(),
            **options,
        )
    except OSError as error:
        raise Refusal(f"{CANNOT_RUN}: {error.strerror}: {error.filename}.") from error
    finally:
        os.close(start)
