"""The list of members at a moment: those that live, and those that have vanished without leaving."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .base import Member


class Roster:
    """The members of a fleet. ``now``: the time of the engine; ``lease``: the longest time between two signs
    of life, in seconds."""

    def __init__(self, members: Sequence[Member], now: float, lease: float) -> None:
        self._now = now
        self._lease = lease
        ordered = sorted(members, key=lambda member: (member.host, member.pid, member.id))
        self.living = [each for each in ordered if self.seconds_since(each) <= lease]
        places = {(each.host, each.directory) for each in self.living}
        # A site that was killed and has been started again is another member, in the same place.
        self.missing = [
            each for each in ordered if each not in self.living and (each.host, each.directory) not in places
        ]
        self._hosts = Counter(each.host for each in (*self.living, *self.missing))

    def seconds_since(self, member: Member) -> float:
        """Return the seconds since the last sign of life of a member."""
        return max(self._now - member.seen, 0.0)

    def name(self, member: Member) -> str:
        """Return the host of a member, with its PID if several members have the same host."""
        return member.host if self._hosts[member.host] < 2 else f"{member.host}:{member.pid}"

    def versions(self) -> dict[str, list[str]]:
        """Return the versions of the members that live, with the names of those."""
        found: dict[str, list[str]] = {}
        for each in self.living:
            found.setdefault(each.version, []).append(self.name(each))
        return found

    def owner_of(self, holder: str) -> Member | None:
        """Return the member of which a process holds a lease, if it lives; ``holder``: its name."""
        host, pid, _ = holder.rsplit(":", 2) if holder.count(":") >= 2 else ("", "", "")
        for each in self.living:
            if each.host == host and pid in {str(process.pid) for process in each.processes}:
                return each
        return None
