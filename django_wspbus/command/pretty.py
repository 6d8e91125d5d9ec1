"""Output for a terminal, by rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich import box
from rich import table as rich_table
from rich.console import Console, Group, RenderableType
from rich.text import Text as Shown

from .blocks import Block, Line, Table, Text
from .plain import lines_of
from .text import cut

STYLES = {"": "", "good": "bold green", "bad": "bold red", "dim": "dim", "title": "bold"}


class Pretty:
    """Writes blocks to a terminal, with colours where it has some."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def show(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            self._console.print(rendered(block))

    @contextmanager
    def live(self) -> Iterator[Callable[[Sequence[Block]], None]]:
        """Replace the blocks in place, on a screen of their own."""
        from rich.live import Live

        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            yield lambda blocks: live.update(Group(*map(rendered, blocks)), refresh=True)


def rendered(block: Block) -> RenderableType:
    """Return what rich shows for a block; it is given no markup, and no text that is not escaped."""
    match block:
        case Table():
            return _rendered_table(block)
        case Line(_, style):
            return Shown(next(lines_of(block)), style=STYLES[style], overflow="fold")
        case Text():
            return Shown("\n".join(lines_of(block)), overflow="fold")


def _rendered_table(block: Table) -> rich_table.Table:
    table = rich_table.Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for name in block.columns:
        table.add_column(Shown(name), justify="right" if name in block.right else "left", overflow="fold")
    for index, row in enumerate(block.rows):
        style = STYLES["bad"] if index in block.bad else ""
        table.add_row(*(Shown(cut(cell), style=style) for cell in row))
    return table
