"""The condition of a site, and the answer to a probe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of a site.

    ``state``: "starting", "ready", "saturated", "reloading", "draining", "failed" or "stuck". ``reason``:
    shown to every client, so it must not hold the message of an exception. ``details``: further fields of the
    JSON report.
    """

    state: str
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to a probe. ``checks``: name -> reason of the failure, "" if the check passes."""

    is_good: bool
    condition: Condition
    checks: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        state, reason = self.condition.state, self.condition.reason
        return " ".join(f"{state}: {reason}".split()) if reason else state

    def json(self) -> str:
        fields = {
            "status": "ok" if self.is_good else "unavailable",
            "state": self.condition.state,
            "reason": self.condition.reason,
            "checks": {name: reason or "ok" for name, reason in self.checks.items()},
        }
        return json.dumps({**fields, **self.condition.details}, default=str)
