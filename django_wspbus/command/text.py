"""Values as text: durations, sizes, and what comes from outside, escaped."""

from __future__ import annotations

import json
from typing import Any

LIMIT = 200
"""Characters of a value from outside, such as a path or a name."""

NOTHING = "-"
"""The text of a value that is not known, so that each row of a table has each column."""

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
TOO_LONG_FOR_SECONDS = 120


def escape(text: str) -> str:
    """Return the text with an escape for each character that a terminal may obey instead of showing it.

    These are control characters, line ends, and marks that change the direction of text.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def cut(text: str, limit: int = LIMIT) -> str:
    """Return the text, escaped, and cut to the limit."""
    shown = escape(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def quoted(value: object) -> str:
    """Return a name from outside in quotes."""
    return f"'{cut(str(value))}'"


def as_text(value: object) -> str:
    """Return a value of a table: a dash if it is not known."""
    return NOTHING if value is None or value == "" else str(value)


def as_json(value: object, limit: int = LIMIT) -> str:
    """Return a value as JSON, cut to the limit."""
    return cut(json.dumps(value, ensure_ascii=False), limit)


def as_duration(seconds: float | None) -> str:
    """Return a duration in at most two units, such as ``0.84 s``, ``45 s``, ``12 min``, ``3 d 4 h``."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{max(seconds, 0):.{2 if seconds < 1 else 1}f} s"
    if seconds < TOO_LONG_FOR_SECONDS:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    index = next(index for index, (size, _) in enumerate(UNITS) if whole >= size)
    (size, unit), (smaller, other) = UNITS[index], UNITS[index + 1]
    rest = whole % size // smaller
    return f"{whole // size} {unit} {rest} {other}" if rest else f"{whole // size} {unit}"


def as_size(bytes_: int | None) -> str:
    """Return a size in memory, such as ``43 MB``."""
    if bytes_ is None:
        return NOTHING
    if bytes_ < 10**9:
        return f"{bytes_ / 10**6:.0f} MB"
    return f"{bytes_ / 10**9:.1f} GB"


def plural(number: int, noun: str) -> str:
    """Return a number of things, such as ``1 worker``, ``2 workers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def first_line(value: Any) -> str:
    """Return the first line of a text that is not empty, cut."""
    lines = [line for line in str(value or "").split("\n") if line.strip()]
    return cut(lines[0]) if lines else ""
