"""The members of the fleet, for the action ``status``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...fleet.base import LEADER, Engine, Member, Unavailable
from ...fleet.relay import Relay
from ...fleet.roster import Roster
from ...fleet.turn import DEPLOY
from ...wspbus import Refusal
from ..assembly import Assembly


def described_fleet(site: Assembly) -> dict[str, Any]:
    """Return the state of the fleet with all members; a `Refusal` without FLEET."""
    member = site.fleet.member
    if member.relay is None:
        raise Refusal('This site belongs to no fleet: WSPBUS["FLEET"] is not set.')
    state = member.status() or {}
    try:
        roster, leader, deploy = member.commands.call(look, member.relay.engine.timeout * 2)
    except Unavailable as error:
        reasons = [f"the engine is unavailable: {error}"]
        return {**state, "well": False, "reasons": reasons, "members": []}
    members = [_described(roster, member.relay, each) for each in (*roster.living, *roster.missing)]
    reasons = [f"{each['name']} {each['reason']}" for each in members if each["reason"]]
    if not state["up"]:
        reasons.insert(0, f"this site does not hear the others: {state['error']}")
    return {
        **state,
        "well": not reasons,
        "reasons": reasons,
        "leader": _owner(roster, leader),
        "deploy": _owner(roster, deploy),
        "versions": roster.versions(),
        "members": members,
    }


def look(engine: Engine) -> tuple[Roster, str, str]:
    """Return the members, and the holders of the leases of the leader and of a deploy; "" for none."""
    roster = Roster(engine.members(), engine.time(), engine.lease)
    leader, deploy = engine.read(LEADER), engine.read(DEPLOY)
    return roster, leader.holder if leader else "", deploy.holder if deploy else ""


def _owner(roster: Roster, holder: str) -> str | None:
    """Return the member and the process that hold a lease, in words."""
    owner = roster.owner_of(holder)
    return None if owner is None else f"{owner.host}, process {holder.rsplit(':', 2)[1]}"


def _described(roster: Roster, relay: Relay, member: Member) -> dict[str, Any]:
    seen = roster.seconds_since(member)
    is_missing = member in roster.missing
    accepted = relay.signer.accepts(member.key)
    reasons = [
        *([f"has given no sign of life for {seen:.0f} s"] if is_missing else []),
        *([] if accepted else ["signs with another SECRET_KEY"]),
    ]
    return {
        **asdict(member),
        "name": roster.name(member),
        "site": member.is_site,
        "seen": seen,
        "missing": is_missing,
        "accepted": accepted,
        "reason": "; ".join(reasons) or None,
    }
