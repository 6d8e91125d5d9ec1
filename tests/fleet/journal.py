"""The journal of a fleet, in which the processes of its sites write what they do: see `site_code`."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..processes import DEADLINE

FREQUENT = ("acts", "stores", "fenced")


@dataclass(frozen=True)
class Note:
    """A line of the journal."""

    at: float
    site: str
    pid: int
    event: str
    values: dict[str, Any]

    @classmethod
    def read(cls, line: str) -> Note:
        values = json.loads(line)
        common = {name: values.pop(name) for name in ("at", "site", "pid", "event")}
        return cls(**common, values=values)

    @property
    def token(self) -> int:
        return int(self.values["token"])

    def has(self, values: dict[str, Any]) -> bool:
        return all(
            self.values.get(name, getattr(self, name, None)) == value for name, value in values.items()
        )


class Journal:
    """The notes of all processes, and the promises that they have to keep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._notes: list[Note] = []
        self._by_event: dict[str, list[Note]] = defaultdict(list)
        self._read = 0
        self._lock = threading.Lock()

    def notes(self, event: str | None = None, **values: Any) -> list[Note]:
        """Return the notes of an event, or all, that have these values, in the order of their writing."""
        with self._lock:
            self._read_on()
            found = self._notes if event is None else self._by_event[event]
            return [note for note in found if note.has(values)]

    def _read_on(self) -> None:
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for note in map(Note.read, whole.decode().splitlines()):
            self._notes.append(note)
            self._by_event[note.event].append(note)

    def story(self) -> str:
        """Return all but the frequent notes, as text."""
        shown = [note for note in self.notes() if note.event not in FREQUENT]
        return "\n".join(f"{each.at:.3f} {each.site} {each.pid} {each.event} {each.values}" for each in shown)

    # Waiting

    def await_that(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"No {what}.\n{self.story()}"
            time.sleep(0.02)

    def expect(self, event: str, count: int = 1, **values: Any) -> list[Note]:
        """Wait for so many notes of an event with these values; return them."""
        self.await_that(lambda: len(self.notes(event, **values)) >= count, f"{count} of {event} {values}")
        return self.notes(event, **values)

    def await_leader(self, after: int = 0, but: Container[str] = ()) -> Note:
        """Wait for a leader that acts under a token larger than ``after``, and has not stopped.

        ``but``: the names of sites that do not count. Return its note ``leads``.
        """

        def leaders() -> list[Note]:
            acting = {note.token for note in self.notes("acts")}
            stopped = {note.token for note in self.notes("stops")}
            new = [note for note in self.notes("leads") if note.token > after and note.site not in but]
            return [note for note in new if note.token in acting - stopped]

        self.await_that(leaders, f"leader after {after}")
        return leaders()[-1]

    # The promises

    def check_leaders(self, effects: Iterable[str] = ("stores", "fenced")) -> list[int]:
        """Fail if two processes acted under valid tokens at a time, or an effect was fenced in vain.

        ``effects``: the events whose order shows the latter. Return the tokens.
        """
        first_seen: dict[int, float] = {}
        last_seen: dict[int, float] = {}
        processes = defaultdict(set)
        for note in [*self.notes("leads"), *self.notes("acts")]:
            processes[note.token].add(note.pid)
            first_seen[note.token] = min(first_seen.get(note.token, note.at), note.at)
            last_seen[note.token] = max(last_seen.get(note.token, 0.0), note.values["since"])
        assert first_seen, self.story()
        assert all(len(pids) == 1 for pids in processes.values()), processes
        end = 0.0
        for token in sorted(first_seen):
            assert first_seen[token] >= end, f"Two lead at a time, {token} and another.\n{self.story()}"
            end = max(end, last_seen[token])
        for event in effects:
            tokens = [note.token for note in sorted(self.notes(event), key=_place)]
            assert tokens == sorted(tokens), event
        return sorted(first_seen)

    def check_ticks(self) -> list[float]:
        """Fail if a tick ran twice; return the ticks that ran."""
        ticks = [note.values["tick"] for note in self.notes("runs")]
        assert len(ticks) == len(set(ticks)), self.story()
        return sorted(ticks)

    def check_messages(self, sender: str) -> dict[int, int]:
        """Fail if a process got a message of a sender twice, or in another order; return PID -> how many."""
        found: dict[int, list[int]] = defaultdict(list)
        for note in self.notes("received", sender=sender):
            found[note.pid].append(note.values["number"])
        assert all(numbers == sorted(set(numbers)) for numbers in found.values()), found
        return {pid: len(numbers) for pid, numbers in found.items()}

    def unaccounted(self, sender: str, site: int, process: int) -> int:
        """Return how many messages a process has neither got nor seen in a gap, since the first that it got.

        ``site``: the PID of the site that has sent them; it has no other sender.
        """
        sent = self.notes("sent", sender=sender)
        got = self.notes("received", sender=sender, pid=process)
        if not got:
            return len(sent)
        gaps = [each for each in self.notes("gap", pid=process) if each.values["sender"].endswith(f":{site}")]
        missed = sum(each.values["missed"] for each in gaps)
        return int(sent[-1].values["number"] - got[0].values["number"]) + 1 - len(got) - missed


def _place(note: Note) -> float:
    """Return the place of an effect: in its table, or in the journal, which the store's lock orders."""
    return float(note.values.get("number", note.at))
