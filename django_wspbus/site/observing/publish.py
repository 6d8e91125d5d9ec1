"""The action ``publish``: publish on a channel in the site process, and in every worker that serves.

A program of PROCESSES that has joined the site counts as a worker.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from ...children.child import Child
from ...children.stacks import why_silent
from ...control.calls import Action, Call
from ...process.dump import ENDED_OR_STOPPED
from ...process.reports import Replied
from ...process.site import reasons
from ...process.worker_orders import Publish
from ...system.processes import state_of
from ...wspbus import Refusal
from ...wspbus.messenger import BUILT_IN_CHANNELS
from ..assembly import Assembly
from ..channels import RESERVED_CHANNELS
from .processes import ObservedProcess, all_processes

TIMEOUT, LONGEST_TIMEOUT = 2.0, 60.0
"""Seconds for all processes together to answer."""

LOOK_INTERVAL = 0.01
"""Seconds between two looks for answers."""

_numbers = itertools.count(time.monotonic_ns())  # no answer to the program before a restart has the same one


def publish(site: Assembly) -> Action:
    def answer(call: Call) -> dict[str, Any]:
        channel, args = call.argument("channel", str), call.argument("args", list, [])
        timeout = float(call.argument("timeout", int | float, TIMEOUT))  # type: ignore[arg-type]
        if channel in (*BUILT_IN_CHANNELS, *RESERVED_CHANNELS):
            raise Refusal(
                f"The channel {channel!r} belongs to django-wspbus: publish on a channel of your own."
            )
        return Publication(site, channel, args).result(min(max(timeout, 0.0), LONGEST_TIMEOUT))

    return answer


class Publication:
    """One publication in all processes."""

    def __init__(self, site: Assembly, channel: str, args: list[Any]) -> None:
        self._site = site
        self._channel = channel
        self._args = args
        self._number = next(_numbers)
        self._here: Future[list[Any]] = Future()

    def result(self, timeout: float) -> dict[str, Any]:
        """Publish, and return the answers that come within a number of seconds, and which do not."""
        deadline = time.monotonic() + timeout
        children = self._site.children
        own, *others = all_processes(children)
        serving = [*children.serving.values(), *children.programs()]
        workers = [each for each in others if is_ready_worker(each, serving)]
        asked = [each for each in workers if self._ask(each)]
        self._site.bus.defer(self._publish_here)
        while not self._are_answered(asked) and time.monotonic() < deadline:
            time.sleep(LOOK_INTERVAL)
        replies, missing = [], []
        for each in (own, *workers):
            if (reply := self._reply_of(each)) is not None:
                replies.append({**each.place, **reply})
            else:
                reason = _why_missing(each, timeout) if each in (own, *asked) else "it takes no orders"
                missing.append({**each.place, "reason": reason})
        return {"replies": replies, "missing": missing}

    def _ask(self, process: ObservedProcess) -> bool:
        order = Publish(self._number, self._channel, self._args)
        return process.child is not None and process.child.order_worker(process.pid, order)

    def _publish_here(self) -> None:
        """Publish in this process, in the thread that moves the bus."""
        try:
            self._here.set_result(self._site.bus.publish(self._channel, *self._args))
        except BaseException as error:  # the client gets it; SystemExit must not end the site
            self._here.set_exception(error)

    def _are_answered(self, workers: Iterable[ObservedProcess]) -> bool:
        return self._here.done() and all(
            self._reported_by(each) is not None or each.pid not in _workers_of(each) for each in workers
        )

    def _reply_of(self, process: ObservedProcess) -> dict[str, Any] | None:
        if process.role == "site":
            return _outcome(self._here) if self._here.done() else None
        reported = self._reported_by(process)
        if reported is None:
            return None
        return _as_reply(reported.results) if reported.error is None else _failed(reported.error)

    def _reported_by(self, process: ObservedProcess) -> Replied | None:
        replies = [] if process.child is None else list(process.child.progress.replies)
        wanted = self._number, process.pid
        return next((each for each in replies if (each.number, each.pid) == wanted), None)


def is_ready_worker(process: ObservedProcess, serving: Iterable[Child]) -> bool:
    """Return whether a process is a worker that serves, or is about to."""
    child = process.child
    if child is None or process.role not in ("worker", "leader") or child not in list(serving):
        return False
    progress = child.progress
    return process.pid in {progress.workers.get(each) for each in list(progress.ready)}


def _workers_of(process: ObservedProcess) -> list[int]:
    return [] if process.child is None else process.child.workers


def _outcome(published: Future[list[Any]]) -> dict[str, Any]:
    error = published.exception()
    return _as_reply(published.result()) if error is None else _failed(reasons(error))


def _as_reply(results: list[Any] | None) -> dict[str, Any]:
    try:
        json.dumps(results, allow_nan=False)  # NaN is not JSON, although Python writes it
    except (TypeError, ValueError, RecursionError) as unfit:
        return _failed(f"The results cannot be sent to another process: {unfit}.")
    return {"results": results, "error": None}


def _failed(error: str) -> dict[str, Any]:
    return {"results": None, "error": error}


def _why_missing(process: ObservedProcess, timeout: float) -> str:
    if state_of(process.pid) in ENDED_OR_STOPPED:
        return why_silent(process.pid).removeprefix("does not respond: ")
    return f"no answer within {timeout:g} s"
