"""The command line and the environment of a program of PROCESSES."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ...conf import ProcessSettings, settings_module
from ...successor.invocation import Invocation

COMMAND = "runbus"
OPTIONS = ("--settings", "--pythonpath")
"""The options of ``runbus`` that a management command gets as well."""


def words_of(settings: ProcessSettings, number: int, invocation: Invocation) -> list[str]:
    """Return the words of the command line; ``number``: that of the instance, from 1.

    A management command is run by the program that has run the site, with the interpreter that this leads to
    now: FileNotFoundError if there is none.
    """
    words = [word.replace("{index}", str(number)) for word in settings.program or settings.command]
    if settings.program:
        return words
    name, *arguments = words
    program, rest = _split(invocation.command)
    return [
        *(invocation.find_interpreter(), *invocation.options, *program),
        *(name, *_options(rest), *arguments),
    ]


def _split(command: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the program that runs management commands, and the arguments of the site's own command."""
    length = 2 if command[:1] and command[0] in ("-m", "-c") else 1
    program, rest = list(command[:length]), list(command[length:])
    is_ours = program == ["-m", "django_wspbus"]
    if is_ours or COMMAND not in rest[:1]:  # a script of the project may call the command by itself
        return ["-m", "django"], rest
    return program, rest


def _options(arguments: Sequence[str]) -> Iterator[str]:
    for index, word in enumerate(arguments):
        name, has_value, _ = word.partition("=")
        if name in OPTIONS:
            yield word
            if not has_value:
                yield from arguments[index + 1 : index + 2]


def environment_of(settings: ProcessSettings, invocation: Invocation) -> dict[str, str]:
    """Return the environment: that of the site at its start, and ENV."""
    environment = invocation.environment_of_child()
    folder = os.path.dirname(invocation.find_interpreter())
    # The programs of a virtual environment are found, whether it is activated or not.
    environment["PATH"] = os.pathsep.join([folder, environment.get("PATH", os.defpath)])
    environment.setdefault("PYTHONUNBUFFERED", "1")  # so that each line is seen at once, through a pipe
    if module := settings_module():
        environment["DJANGO_SETTINGS_MODULE"] = module
    return environment | dict(settings.env)
