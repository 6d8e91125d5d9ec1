"""The stacks of greenlets, which faulthandler does not see."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from ...process.record import Record

MOST_FRAMES = 100
"""Frames of one stack, as faulthandler has them."""


def stacks_of(record: Record) -> Callable[[FrameType | None], str]:
    """Return a function that returns the stacks of this process: see `Record.write_stacks_on_signal`."""

    def stacks(frame: FrameType | None) -> str:
        return "".join(_stacks(frame, {request.thread for request in record.slots.in_flight()}))

    return stacks


def _stacks(frame: FrameType | None, first: Iterable[int]) -> Iterator[str]:
    """Yield the stack of each greenlet in the form of faulthandler; ``first`` come those that answer.

    The identifiers are those of `threading.get_ident` under gevent.
    """
    from greenlet import getcurrent, greenlet

    found = {id(each): each.gr_frame for each in gc.get_objects() if isinstance(each, greenlet)}
    found[id(getcurrent())] = frame
    for identifier, top in sorted(found.items(), key=lambda item: item[0] not in first):
        if top is not None:
            yield f"\nThread 0x{identifier:016x} (most recent call first):\n"
            yield from _frames(top)


def _frames(top: FrameType) -> Iterator[str]:
    for number, (frame, line) in enumerate(traceback.walk_stack(top)):
        if number == MOST_FRAMES:
            yield "  ...\n"
            return
        yield f'  File "{frame.f_code.co_filename}", line {line} in {frame.f_code.co_name}\n'
