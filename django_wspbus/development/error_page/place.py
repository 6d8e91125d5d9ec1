"""The place of an error: the file and the line at the end of a traceback, with the lines around it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ..frames import FRAME
from ..watching.files import is_foreign

AROUND = 5
"""Lines shown before the line that failed, and after it."""

MOST_SOURCE = 1 << 20
"""Bytes read of a source file."""

LONGEST_SOURCE_LINE = 500
"""Characters shown of a line."""


@dataclass(slots=True)
class Place:
    """The place of an error.

    ``lines``: pairs of a number and a text. ``caret``: the markers below the line that failed.
    """

    path: str
    number: int
    lines: list[tuple[int, str]]
    caret: str


def find_place(text: str, root: str) -> Place | None:
    """Return the last place of a traceback; if that is in a library, the last one in the project at ``root``.

    A syntax error is always at the last place, also in a library: the place is the error, and no call.
    """
    frames = list(FRAME.finditer(text))
    if not frames:
        return None
    own = [match for match in frames if is_own(match[1], root) and os.path.basename(match[1]) != "manage.py"]
    match = own[-1] if own and frames[-1][3] else frames[-1]
    path, number = os.path.join(root, match[1]), int(match[2])
    lines = _around(path, number)
    line = dict(lines).get(number, "")
    return Place(path, number, lines, _caret(text[match.end() + 1 :].split("\n", 2)[:2], line))


def is_own(path: str, root: str) -> bool:
    """Return whether a file belongs to the project, and not to a library that is installed in its folder."""
    relative = os.path.relpath(os.path.join(root, path), root)
    return not any(part == ".." or is_foreign(part) for part in relative.split(os.sep))


def _around(path: str, number: int) -> list[tuple[int, str]]:
    try:
        with open(path, "rb") as file:
            source = file.read(MOST_SOURCE).decode(errors="replace")
    except (OSError, ValueError):
        return []
    first = max(1, number - AROUND)
    lines = source.splitlines()[first - 1 : number + AROUND]
    return [(first + index, line[:LONGEST_SOURCE_LINE]) for index, line in enumerate(lines)] if lines else []


def _caret(printed: list[str], line: str) -> str:
    """Return the markers below a line, indented as in the source: the traceback prints them without."""
    if len(printed) < 2 or not re.fullmatch(r" *[~^][~^ ]*", printed[1]) or "^" not in printed[1]:
        return ""
    if printed[0].strip() != line.strip():
        return ""
    offset = len(printed[1]) - len(printed[1].lstrip()) - (len(printed[0]) - len(printed[0].lstrip()))
    indentation = line[: len(line) - len(line.lstrip())]
    return f"{indentation}{' ' * offset}{printed[1].strip()}"
