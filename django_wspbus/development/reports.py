"""The failure of a start in words, for the terminal and the error page."""

from __future__ import annotations

import re
import traceback

from ..project import libraries
from ..project.tracebacks import TRACEBACK, explain, formatted, place_of, summary
from .launch import Failure

# Colours and cursor movements of a terminal: CSI and OSC sequences, and sequences of two characters.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
# Django lists the worst system checks first, and warnings after the checks that failed.
FAILED_CHECK = re.compile(r"^(?:CRITICALS|ERRORS):\n(?:\?: )?(.+)", re.MULTILINE)
LAST_FRAME = re.compile(r'^[ |]+File "[^\n]*\n(?: [^\n]*\n)*(?=\S)', re.MULTILINE)


def failure_of(error: BaseException) -> Failure:
    """Return the failure of a start that has ended with an error.

    A command that refuses to go on gives its reason in words; its cause may be an error of the project.
    """
    origin = _deepest(error)
    if hasattr(origin, "get_instances") and origin.get_instances():
        origin = origin.get_instances()[0]
    is_of_project = _is_of_project(origin)
    is_said = isinstance(error, SystemExit) or type(error).__name__ in ("CommandError", "SystemCheckError")
    text = plain(str(error) if is_said else explain(error) if place_of(error) else formatted(error))
    has_cause = origin is not error or isinstance(error, SystemExit)  # not only the command's own refusal
    if is_said and has_cause and is_of_project and TRACEBACK not in text:
        text = f"{text}\n\n{explain(origin)}"
    if is_said and TRACEBACK not in text:
        title = _first_of(text)
    elif not is_of_project and TRACEBACK in text:  # the traceback of another process
        title = _last_error_of(text)
    else:
        title = plain(summary(origin if is_of_project else error))
    return Failure(title or repr(error), text.strip())


def _deepest(error: BaseException) -> BaseException:
    """Return the error that caused all others."""
    seen = {id(error)}  # an error may be among its own causes
    while (below := error.__cause__ or error.__context__) is not None and id(below) not in seen:
        seen.add(id(below))
        error = below
    return error


def plain(text: str) -> str:
    """Return a text without the escape sequences of terminals."""
    return ESCAPES.sub("", text)


def _first_of(text: str) -> str:
    """Return the first failed system check, or else the first line."""
    check = FAILED_CHECK.search(text)
    return check[1].strip() if check else text.strip().partition("\n")[0].strip()


def _last_error_of(text: str) -> str:
    """Return the line after the last frame of a traceback."""
    ends = [match.end() for match in LAST_FRAME.finditer(text)]
    return (text[ends[-1] :] if ends else text.rstrip().splitlines()[-1]).partition("\n")[0].strip()


def _is_of_project(error: BaseException) -> bool:
    """Return whether an error passed through code of the project, or is a syntax error."""
    traces = [each for each, _ in traceback.walk_tb(error.__traceback__)]
    return any(libraries.is_project_file(frame.f_code.co_filename) for frame in traces) or isinstance(
        error, SyntaxError
    )
