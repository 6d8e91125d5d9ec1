"""Why a site does not start, as the error page shows it: a heading, and the text that the terminal has."""

from __future__ import annotations

import re
import traceback

from ..process.messages import Message
from ..project import libraries
from ..project.tracebacks import TRACEBACK, explain, formatted, place_of, summary

# What colours a terminal, and moves its cursor: CSI and OSC sequences, and those of two characters.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
# Of Django's system checks, which lists the worst first, and warnings after what has failed.
FAILED_CHECK = re.compile(r"^(?:CRITICALS|ERRORS):\n(?:\?: )?(.+)", re.MULTILINE)
LAST_FRAME = re.compile(r'^[ |]+File "[^\n]*\n(?: [^\n]*\n)*(?=\S)', re.MULTILINE)


def report_of(error: BaseException) -> Message:
    """Return {"title", "text"}: what has failed in a line, and all there is to say of it, without colours.

    A command that refuses to go on has given the reason in its own words; the error beneath may be its cause.
    """
    origin = _deepest(error)
    if hasattr(origin, "get_instances") and origin.get_instances():
        origin = origin.get_instances()[0]
    is_of_project = _is_of_project(origin)
    is_said = isinstance(error, SystemExit) or type(error).__name__ in ("CommandError", "SystemCheckError")
    text = plain(str(error) if is_said else explain(error) if place_of(error) else formatted(error))
    has_more = origin is not error or isinstance(error, SystemExit)  # than where the command says it
    if is_said and has_more and is_of_project and TRACEBACK not in text:
        text = f"{text}\n\n{explain(origin)}"
    if is_said and TRACEBACK not in text:
        title = _first_of(text)
    elif not is_of_project and TRACEBACK in text:  # of another process
        title = _last_error_of(text)
    else:
        title = plain(summary(origin if is_of_project else error))
    return {"title": title or repr(error), "text": text.strip()}


def _deepest(error: BaseException) -> BaseException:
    """Return the error that all others have come of."""
    seen = {id(error)}  # an error may be among its own causes
    while (below := error.__cause__ or error.__context__) is not None and id(below) not in seen:
        seen.add(id(below))
        error = below
    return error


def plain(text: str) -> str:
    """Return a text without escape sequences of terminals."""
    return ESCAPES.sub("", text)


def _first_of(text: str) -> str:
    """Return the first check that has failed, or else the first line."""
    check = FAILED_CHECK.search(text)
    return check[1].strip() if check else text.strip().partition("\n")[0].strip()


def _last_error_of(text: str) -> str:
    """Return the line of a traceback that comes after its last frame."""
    ends = [match.end() for match in LAST_FRAME.finditer(text)]
    return (text[ends[-1] :] if ends else text.rstrip().splitlines()[-1]).partition("\n")[0].strip()


def _is_of_project(error: BaseException) -> bool:
    """Whether an error has come from code below the project's own, and not from what reports it."""
    traces = [each for each, _ in traceback.walk_tb(error.__traceback__)]
    return any(libraries.is_project_file(frame.f_code.co_filename) for frame in traces) or isinstance(
        error, SyntaxError
    )
