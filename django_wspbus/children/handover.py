"""Handing children over from one program of the site process to the next."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import asdict

from ..process.messages import Link, Message
from ..process.record import Record
from ..process.reports import Report
from ..process.switchboard import Switchboard
from ..successor.state import ChildState, RecordState
from .child import Child
from .processes import AdoptedProcess


def state_of(child: Child, unanswered: Callable[[Link], list[Message]]) -> ChildState:
    """Return the state from which the next program can `adopt` a child; the switchboard must be paused."""
    progress = child.progress
    return ChildState(
        alias=child.alias,
        pid=child.pid,
        pair=child.links.pair.fileno(),
        links=child.links.hand_over(unanswered, progress.workers, progress.listeners, progress.ready),
        expected=progress.expected,
        leads=progress.leads,
        version=progress.version,
        is_serving=child.is_serving,
        has_answered=progress.has_answered,
        time_left=None if child.deadline is None else max(child.deadline - time.monotonic(), 0),
        allowed=child.allowed,
        allowed_for_requests=child.allowed_for_requests,
        why_shortened=child.why_shortened,
        records=[RecordState(pid, record.descriptor) for pid, record in child.records.items()],
        policy=asdict(progress.policy),
        standby=sorted(progress.standby),
        begun=sorted(progress.begun),
        stopped=sorted(progress.stopped),
        failed_stops=list(progress.failed_stops),
        cut_off={str(pid): names for pid, names in progress.cut_off.items()},
        hurried=sorted(progress.hurried),
        ready_since={str(pid): since for pid, since in progress.ready_since.items()},
        wanted=child.wanted,
        retiring=list(child.retiring.values()),
        stuck=sorted(child.stuck_logged),
    )


def adopt(
    state: ChildState,
    switchboard: Switchboard,
    answer: Callable[[Link, Message], None],
    changed: Callable[[Child], None],
    ended: Callable[[Child, int, Record], None],
    reported: Callable[[Child, Report], None],
) -> Child:
    """Take over a child of the program before."""
    process, pair = AdoptedProcess(state.pid), socket.socket(fileno=state.pair)
    child = Child(
        *(state.alias, process, pair, switchboard, answer),
        changed=lambda: changed(child),
        ended=ended,
        reported=reported,
    )
    take_up(child, state)
    return child


def take_up(child: Child, state: ChildState) -> None:
    """Give a child that has just been made the state that the program before has handed over."""
    child.served_from = time.monotonic() if state.is_serving else None
    child.deadline = None if state.time_left is None else time.monotonic() + state.time_left
    if child.deadline is not None:
        child.dismissed_at = child.deadline - state.allowed
        child.allowed_for_requests = state.allowed_for_requests
        child.why_shortened = state.why_shortened
    child.progress.adopt(state)
    child.wanted = state.wanted
    child.retiring = {each.pid: each for each in state.retiring}
    child.stuck_logged = {(pid, slot, serial) for pid, slot, serial in state.stuck}
    child.records = {each.pid: Record(each.descriptor) for each in state.records}
    for link in state.links:
        child.links.adopt(link)
