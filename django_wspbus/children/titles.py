"""The names of children in messages."""

from __future__ import annotations

from ..conf import LEADER_ALIAS


def title_of(alias: str) -> str:
    """Return the name of a child within a sentence."""
    return "the leader process" if alias == LEADER_ALIAS else f"the server {alias!r}"


def capitalized(text: str) -> str:
    """Return a text with its first letter as a capital."""
    return text[:1].upper() + text[1:]
