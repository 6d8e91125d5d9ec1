"""The action ``stacks``: the stack of every thread of every process."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ...children.stacks import NoStacks, read_stacks, split
from ...control.calls import Action, Call
from ...process.record import Record
from ...process.slots import InFlight
from ...successor.values import scratch_file
from ...system.processes import is_suspended
from ...wspbus import Refusal
from ..assembly import Assembly
from .processes import ObservedProcess, all_processes

MOST_TEXT = 8_000_000
"""Characters of all stacks in a result: JSON writes hardly any in more than one byte (`LARGEST_REPLY`)."""


def stacks(site: Assembly) -> Action:
    def answer(call: Call) -> dict[str, Any]:
        pid = call.argument("pid", int, 0)
        chosen = [each for each in all_processes(site.children) if pid in (0, each.pid)]
        if not chosen:
            known = ", ".join(str(each.pid) for each in all_processes(site.children))
            raise Refusal(f"Process {pid} does not belong to this site. Its processes are {known}.")
        of_others = dict(read_stacks(_with_records(chosen)))
        here = [request for server in site.servers for request in server.in_flight()]
        entries = [
            _entry(each, own_stacks(), here)
            if each.role == "site"
            else _entry(each, of_others.get(each.pid) or _without_record(each), each.in_flight())
            for each in chosen
        ]
        return {"processes": list(fitting(entries))}

    return answer


def fitting(entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the entries, and an error in place of the stacks that are too many for one reply."""
    left = MOST_TEXT
    for entry in entries:
        left -= len(entry["stacks"] or "")
        if left < 0:
            pid = entry["pid"]
            yield {**entry, "stacks": None, "error": f"there are too many stacks: ask for those of {pid}"}
        else:
            yield entry


def _with_records(processes: Iterable[ObservedProcess]) -> list[tuple[int, Record]]:
    return [(each.pid, each.record) for each in processes if each.record is not None]


def _without_record(process: ObservedProcess) -> NoStacks:
    if is_suspended(process.pid):
        return NoStacks("does not respond: it is stopped (SIGSTOP)")
    return NoStacks("it writes no stacks, or none yet")


def _entry(process: ObservedProcess, found: str | NoStacks, requests: Iterable[InFlight]) -> dict[str, Any]:
    if isinstance(found, NoStacks):
        return {**process.place, "stacks": None, "error": str(found)}
    return {**process.place, "stacks": with_requests(found, requests), "error": None}


def own_stacks() -> str:
    """Return the stacks of this process; that of the calling thread says that it answers."""
    with scratch_file() as file:
        faulthandler.dump_traceback(file.fileno(), all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")


def with_requests(found: str, requests: Iterable[InFlight]) -> str:
    """Return stacks with the request that a thread answers below the line of the thread."""
    now = time.monotonic()
    by_thread = {request.thread: request for request in requests}
    parts = []
    for thread, stack in split(found).items():
        head, line_end, frames = stack.partition("\n")
        if (request := by_thread.get(thread)) is not None:
            head += f"\n  (answers {request.name} for {now - request.started:.1f} s)"
        parts.append(head + line_end + frames)
    return "\n\n".join(parts) or found
