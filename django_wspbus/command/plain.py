"""Output for pipes and simple terminals: one line for each thing, in aligned columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from .blocks import Block, Line, Table, Text
from .text import LIMIT, cut, escape

GAP = "  "


class Plain:
    """Writes blocks to a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            self._stream.writelines(f"{line}\n" for line in lines_of(block))
        self._stream.flush()

    @contextmanager
    def live(self) -> Iterator[Callable[[Sequence[Block]], None]]:
        """Separate the blocks by an empty line."""

        def show(blocks: Sequence[Block]) -> None:
            self.show([*blocks, Line("")])

        yield show


def lines_of(block: Block) -> Iterator[str]:
    """Yield the lines of a block, escaped."""
    match block:
        case Line(text):
            yield escape(text)
        case Text(text, indent):
            for line in text.rstrip("\n").split("\n"):
                yield (" " * indent + escape(line.expandtabs())).rstrip()
        case Table():
            yield from _rows(block)


def _rows(table: Table) -> Iterator[str]:
    cells = [list(table.columns), *([cut(cell, LIMIT) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield GAP.join(
            cell.rjust(width) if name in table.right else cell.ljust(width)
            for name, cell, width in zip(table.columns, row, widths, strict=True)
        ).rstrip()
