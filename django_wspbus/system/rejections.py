"""The reasons for which messages of a fleet are dropped, in words."""

from __future__ import annotations

REJECTED = {
    "key": "signed with another SECRET_KEY",
    "unsigned": "without a valid signature",
    "foreign": "of another fleet",
    "misdirected": "for another member",
    "replayed": "that had come before",
    "future": "from the future: the clocks of the engine and the sender disagree",
    "old": "too old",
    "built-in": "on a channel of the bus itself",
    "version": "of another version of django-wspbus",
}
"""Reason -> words that follow a number of messages."""

REMEDIES = {
    "key": "Give all hosts one SECRET_KEY; while it changes, list the other one in SECRET_KEY_FALLBACKS.",
    "version": "Deploy the same version of django-wspbus to all hosts.",
}
"""Reason -> the remedy, where there is one."""
