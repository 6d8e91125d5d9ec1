"""The figures of a fleet in which things have failed, from its journal; and the promises that they show."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from .journal import Journal, Note

LATE = 1.0
"""Seconds after its tick from which a run counts as late."""


@dataclass
class Fault:
    """Something that has failed, in seconds of CLOCK_REALTIME."""

    name: str
    began: float
    ended: float
    reaches_engine: bool
    """True if at least one site reaches the engine meanwhile."""
    loses_writes: bool = False
    """True if the engine has lost writes that it had acknowledged."""


@dataclass
class Life:
    """The life of a site: from its start to a kill, or to the end."""

    site: str
    pid: int
    sender: str
    is_whole: bool = True
    """False if it has been killed, or did not live from the first message on."""
    is_killed: bool = False


@dataclass
class Tally:
    """Counts what the journal holds. ``problems`` names each broken promise."""

    journal: Journal
    faults: list[Fault]
    lives: list[Life]
    began: float
    ended: float
    interval: float
    problems: list[str] = field(default_factory=list)

    # The leader

    def elections(self) -> int:
        return len({note.token for note in self.journal.notes("leads")})

    def check_leaders(self) -> None:
        """Find two that led at a time, and effects that a fence should have refused."""
        try:
            self.journal.check_leaders(["stores"])  # an engine without its last writes gives numbers again
        except AssertionError as error:
            self.problems.append(str(error)[:2000])
        fenced = self.journal.notes("fenced")
        for begin, end in self._spans(fault for fault in self.faults if fault.loses_writes):
            span = [note for note in fenced if begin <= note.at < end]
            tokens = [note.token for note in sorted(span, key=lambda note: note.values["number"])]
            if tokens != sorted(tokens):
                self.problems.append(f"An effect was fenced in vain between {begin} and {end}.")

    def longest_without_leader(self) -> tuple[float, float]:
        """Return the longest time without an act of a leader in which the engine was there, and its begin."""
        acts = [note.at for note in self.journal.notes("acts")]
        longest = (0.0, 0.0)
        for begin, end in self._spans(fault for fault in self.faults if not fault.reaches_engine):
            times = [begin, *(at for at in acts if begin <= at < end), end]
            for before, after in itertools.pairwise(times):
                longest = max(longest, (after - before, before))
        return longest

    def _spans(self, faults: Iterable[Fault]) -> Iterator[tuple[float, float]]:
        """Yield the times between some faults."""
        begin = self.began
        for fault in faults:
            yield begin, fault.began
            begin = fault.ended
        yield begin, self.ended

    # Messages

    def messages(self) -> dict[str, int]:
        """Return the number of messages sent, received and counted as lost, over all site processes."""
        sent = Counter(note.values["sender"] for note in self.journal.notes("sent"))
        received: dict[tuple[int, str], list[int]] = defaultdict(list)
        for note in self.journal.notes("received"):
            received[note.pid, note.values["sender"]].append(note.values["number"])
        for (pid, sender), numbers in received.items():
            if numbers != sorted(set(numbers)):
                self.problems.append(f"{pid} got messages of {sender} twice, or in another order: {numbers}")
        gaps: Counter[tuple[int, int]] = Counter()
        for note in self.journal.notes("gap"):
            gaps[note.pid, int(note.values["sender"].rpartition(":")[2] or 0)] += note.values["missed"]
        totals: Counter[str] = Counter(sent=sum(sent.values()))
        for receiver, sender in itertools.product(self.lives, self.lives):
            numbers, missed = received[receiver.pid, sender.sender], gaps[receiver.pid, sender.pid]
            totals["received"] += len(numbers)
            totals["lost"] += missed
            self._check_pair(receiver, sender, sent[sender.sender], numbers, missed)
        return dict(totals)

    def _check_pair(
        self, receiver: Life, sender: Life, sent: int, numbers: Sequence[int], missed: int
    ) -> None:
        known = len(numbers) + missed
        first = min(numbers, default=sent + 1)
        if receiver.is_whole and sender.is_whole:
            is_right = known == sent
        elif receiver.is_killed or sender.is_killed:
            is_right = known <= sent
        else:  # the numbers before the first contact count for nothing
            is_right = sent - first + 1 <= known <= sent
        if not is_right:
            text = f"{receiver} got {len(numbers)} and missed {missed} of {sent} messages of {sender}"
            self.problems.append(text)

    # Ticks

    def ticks(self) -> dict[str, int]:
        """Return the number of ticks that were due, and of those that ran, late, not at all, and twice."""
        runs: dict[float, list[Note]] = defaultdict(list)
        for note in self.journal.notes("runs"):
            runs[note.values["tick"]].append(note)
        due = round((max(runs) - min(runs)) / self.interval) + 1 if runs else 0
        twice = {tick: notes for tick, notes in runs.items() if len(notes) > 1}
        for tick, notes in twice.items():
            if not any(
                fault.loses_writes and notes[0].at <= fault.ended <= notes[-1].at for fault in self.faults
            ):
                self.problems.append(f"The tick {tick} ran more than once: {notes}")
        late = sum(notes[0].at - tick > LATE for tick, notes in runs.items())
        return {"due": due, "run": len(runs), "late": late, "skipped": due - len(runs), "twice": len(twice)}
