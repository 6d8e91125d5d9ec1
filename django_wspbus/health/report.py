"""The condition of a site, and the answer to a probe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Condition:
    """How a site is.

    ``state``: "starting", "ready", "reloading", "draining" or "failed". ``reason``: for every client, and so
    without the message of an exception. ``details``: the JSON has them besides, in values that it knows.
    """

    state: str
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to a probe. ``checks``: name -> what fails, "" if nothing does."""

    is_good: bool
    condition: Condition
    checks: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        state, reason = self.condition.state, self.condition.reason
        return " ".join(f"{state}: {reason}".split()) if reason else state

    def json(self) -> str:
        told = {
            "status": "ok" if self.is_good else "unavailable",
            "state": self.condition.state,
            "reason": self.condition.reason,
            "checks": {name: reason or "ok" for name, reason in self.checks.items()},
        }
        return json.dumps({**told, **self.condition.details}, default=str)
