"""The output of an action, apart from how it is shown: lines, tables, and texts of several lines.

`plain` and `pretty` show them. They escape all that they show, so nothing that comes from outside reaches the
terminal as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

Style = Literal["", "good", "bad", "dim", "title"]


class Line(NamedTuple):
    """A line."""

    text: str
    style: Style = ""


class Table(NamedTuple):
    """Rows of equal length; the columns named in ``right`` are aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()
    bad: frozenset[int] = frozenset()
    """The indexes of the rows that need attention."""


class Text(NamedTuple):
    """A text of several lines that is shown in full, such as a traceback. All its lines are indented."""

    text: str
    indent: int = 4


Block = Line | Table | Text


class Output(Protocol):
    """Shows blocks on a stream."""

    def show(self, blocks: Sequence[Block]) -> None:
        """Write the blocks, and flush them."""

    def live(self) -> Any:
        """Return a context manager whose value is called with blocks that replace those shown before."""
