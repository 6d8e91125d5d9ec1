"""The fleet of a site, and its members, as blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ..system.rejections import REJECTED
from .blocks import Block, Line, Table
from .text import NOTHING, as_duration, as_text, cut, first_line, plural, quoted

COUNTED = {"waiting": "waiting to be sent", "unsent": "dropped before they were sent", "missed": "missed"}
"""The counts of messages of a fleet, in words."""


def connection(fleet: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the state of the connection with the engine, and what was lost."""
    engine = str(fleet.get("engine")).rpartition(".")[2]
    words = "up" if fleet.get("up") else "unavailable"
    since = f", for {as_duration(fleet['since'])}" if fleet.get("since") is not None else ""
    reason = f": {first_line(fleet['error'])}" if fleet.get("error") else ""
    line = f"Fleet {quoted(fleet.get('name'))}: {cut(engine)} {words}{since}{reason}"
    yield Line(line, "good" if fleet.get("up") else "bad")
    counted = [(fleet.get(name), words) for name, words in COUNTED.items()]
    counts = ", ".join(f"{count} {words}" for count, words in counted if count)
    if counts:
        yield Line(f"Messages: {counts}")
    for reason, count in (fleet.get("rejected") or {}).items():
        yield Line(f"Messages dropped: {count} {REJECTED.get(reason, cut(str(reason)))}", "bad")


def has_members(status: Mapping[str, Any]) -> bool:
    """Return whether a report of a site has the members of its fleet."""
    return "members" in (status.get("fleet") or {})


def members(fleet: Mapping[str, Any]) -> Iterator[Block]:
    """Yield whether the fleet is well, and a row for each member."""
    found: list[Mapping[str, Any]] = list(fleet.get("members") or ())
    reasons = [cut(str(each)) for each in fleet.get("reasons") or ()]
    if fleet.get("well"):
        sites = sum(bool(each.get("site")) for each in found)
        others = len(found) - sites
        of_others = f", and {plural(others, 'process')}" if others == 1 else f", and {others} processes"
        more = f"{of_others} of another program" if others else ""
        yield Line(f"Well: {plural(sites, 'site')}{more}", "good")
    else:
        yield Line(f"Not well: {'; '.join(reasons)}", "bad")
    yield from connection(fleet)
    yield Line(f"Leader: {cut(str(fleet.get('leader') or 'none'))}")
    if deploy := fleet.get("deploy"):
        yield Line(f"Deploy: run by {cut(str(deploy))}")
    if len(versions := fleet.get("versions") or {}) > 1:
        each = "; ".join(f"{quoted(name)} on {cut(', '.join(hosts))}" for name, hosts in versions.items())
        yield Line(f"The members run {len(versions)} versions: {each}", "bad")
    if found:
        yield Line("")
        yield _table(found)


def _table(found: list[Mapping[str, Any]]) -> Table:
    return Table(
        ["Host", "Process", "State", "Seen", "Processes", "Key", "Version"],
        [_row(each) for each in found],
        right=("Process", "Seen"),
        bad=frozenset(index for index, each in enumerate(found) if each.get("reason")),
    )


def _row(member: Mapping[str, Any]) -> list[str]:
    return [
        as_text(member.get("host")),
        as_text(member.get("pid")),
        "missing" if member.get("missing") else as_text(member.get("state")).lower(),
        as_duration(member.get("seen")),
        _processes(member),
        as_text(member.get("key")) + ("" if member.get("accepted") else " (another)"),
        as_text(member.get("version")),
    ]


def _processes(member: Mapping[str, Any]) -> str:
    """Return the number of processes by role, as ``1 site, 4 workers``."""
    roles = Counter("+".join(each.get("roles") or ()) for each in member.get("processes") or ())
    return ", ".join(plural(number, cut(role)) for role, number in roles.items() if role) or NOTHING
