"""The command line of a program, from which the site starts the program again."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STATE = "DJANGO_WSPBUS_STATE"
"""The variable that leads to the state which the program before has handed over: see `state`."""

KEPT = "DJANGO_WSPBUS_KEPT"
"""The variable that names the descriptors to keep in case the program fails to start: see `runner`."""

ORDER = "DJANGO_WSPBUS_ORDER"
"""The variable that leads to the order of a child or a dry run: see `order`."""

SITE = "DJANGO_WSPBUS_SITE"
"""The variable that leads a program of PROCESSES to its site: "descriptor:inode" of a socket."""

OWN_VARIABLES = (STATE, KEPT, ORDER, SITE)
"""The variables of this package that are addressed to one process."""

ADDRESSED_VARIABLES = (
    *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"),
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "MAINPID"),
    *("GUNICORN_CMD_ARGS", "GUNICORN_PID", "GUNICORN_FD", "GUNICORN_DIRTY_SOCKET"),
)
"""The variables of systemd and gunicorn that are addressed to one process, and so must not reach children."""

# An option of the interpreter, as in -OW error, -Xdev or -Bm module.
_OPTION = re.compile(
    r"--check-hash-based-pycs|-(?=.)(?P<flags>[^cmWX-]*)"
    r"((?P<program>[cm])(?P<rest>.*)|(?P<valued>[WX])(?P<value>.*))?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command line of Python, its directory and environment. Links in paths are resolved at each start."""

    interpreter: str
    """An absolute path, or a bare name to look up on PATH."""
    options: list[str]
    """Options of the interpreter: -O, -X ..., -W ..., and the like."""
    command: list[str]
    """[path, ...], ["-m", module, ...] or ["-c", code, ...]; a path may be relative to the directory."""
    directory: str
    environment: dict[str, str]

    @classmethod
    def typed(
        cls,
        words: Sequence[str],
        *,
        executable: str,
        directory: str | None,
        environment: Mapping[str, str],
    ) -> Invocation:
        """Return the invocation of a process.

        ``words``: its whole command line; ``executable``: its interpreter; ``directory``: its working
        directory at its start, None if that did not exist any more.
        """
        words = list(words) or [""]
        options, command = _split(words[1:])
        logical = _logical_directory(directory, words[0], command, environment)
        interpreter = _typed_interpreter(words[0], executable, logical, environment)
        own = {name: value for name, value in environment.items() if name not in OWN_VARIABLES}
        return cls(interpreter, options, command, logical, own)

    @property
    def words(self) -> list[str]:
        """The command line, as `sys.orig_argv` has it."""
        return [self.interpreter, *self.options, *self.command]

    def find_interpreter(self) -> str:
        """Look up the path of the interpreter; FileNotFoundError if there is none."""
        if os.path.isabs(self.interpreter):
            return self.interpreter
        found = _search(self.interpreter, self.directory, self.environment)
        if found is None:
            raise FileNotFoundError(2, "No such interpreter on PATH", self.interpreter)
        return found

    def environment_of_child(self) -> dict[str, str]:
        """Return the environment without the variables that are addressed to one process."""
        return {name: value for name, value in self.environment.items() if name not in ADDRESSED_VARIABLES}


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options of the interpreter, and the command."""
    options: list[str] = []
    rest = list(arguments)
    while rest and rest[0] != "-" and (match := _OPTION.fullmatch(rest[0])) is not None:
        argument = rest.pop(0)
        options += [f"-{match['flags']}"] if match["flags"] else []
        if match["program"]:
            program = [match["rest"]] if match["rest"] else []
            return options, [f"-{match['program']}", *program, *rest]
        if match["valued"]:
            options.append(f"-{match['valued']}{match['value'] or _next(rest)}")
        elif argument.startswith("--"):
            options += [argument, _next(rest)]
    return options, rest


def _next(words: list[str]) -> str:
    return words.pop(0) if words else ""  # a program that embeds Python may have any command line


def _logical_directory(
    physical: str | None, interpreter: str, command: Sequence[str], environment: Mapping[str, str]
) -> str:
    """Return the path of the working directory with the links by which the user reached it.

    The links are in the absolute path of the script, or else in the shell's $PWD, or else in the path of the
    interpreter.
    """
    script = command[0] if command and not command[0].startswith("-") else ""
    shell = environment.get("PWD", "")
    if physical is None:
        return os.path.dirname(script) if os.path.isabs(script) else shell or os.sep
    found = _ancestor(script, physical)
    # A script outside the directory, as /srv/venv/bin/django-admin, counts only if its path holds a link.
    if found and (found != physical or os.path.realpath(script).startswith(physical + os.sep)):
        return found
    if os.path.isabs(shell) and os.path.realpath(shell) == physical:
        return shell
    return _ancestor(interpreter, physical) or physical


def _ancestor(path: str, physical: str) -> str | None:
    """Return the working directory by way of a folder above a path; None if no such folder contains it."""
    while os.path.isabs(path) and (folder := os.path.dirname(path)) != path:
        real = os.path.realpath(folder)
        if real != os.sep and (physical == real or physical.startswith(real + os.sep)):
            return os.path.normpath(os.path.join(folder, os.path.relpath(physical, real)))
        path = folder
    return None


def _typed_interpreter(typed: str, executable: str, directory: str, environment: Mapping[str, str]) -> str:
    """Return the typed name or path if it leads to the interpreter, else the interpreter's own path."""
    is_name = os.sep not in typed
    found = _search(typed, directory, environment) if is_name else os.path.join(directory, typed)
    if not found or not executable or _real_place(found) != _real_place(executable):
        return executable
    return typed if is_name else found


def _search(name: str, directory: str, environment: Mapping[str, str]) -> str | None:
    """Look up a name on PATH. Relative entries of PATH are relative to the directory."""
    entries = environment.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which(name, path=os.pathsep.join(os.path.join(directory, entry) for entry in entries))


def _real_place(path: str) -> tuple[str, str]:
    """Return the resolved folder, and the name as it is: in a virtual environment the file is a link."""
    return os.path.realpath(os.path.dirname(path)), os.path.basename(path)
