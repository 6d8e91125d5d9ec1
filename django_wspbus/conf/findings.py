"""What can be wrong with a configuration: the ids of the system checks, and one sentence for each finding."""

from __future__ import annotations

from dataclasses import dataclass

from django.core import checks

IDS = {
    "E001": "A key that is not known.",
    "E002": "A value of the wrong type or shape.",
    "E003": "An address that cannot be bound: no address, or a port out of range.",
    "E004": "An address that two servers, one server twice, or the probes too, would bind.",
    "E005": "A dotted path that does not import.",
    "E006": "An application that is no WSGI application: ASGI, or not callable as one.",
    "E007": "An unknown signal.",
    "E008": "A signal that cannot be caught.",
    "E009": "An unknown user or group, or one that this process may not become.",
    "E010": "A PID file that cannot be written.",
    "E011": "A file or directory for output that cannot be written.",
    "E012": "An option that the server does not know, or a value that it does not take.",
    "E013": "An option of a server that the site owns.",
    "E014": "A backend that is not of the kind that is needed here.",
    "E015": "A number out of range.",
    "E016": "A file that an option names and that cannot be read.",
    "E017": "Static files that are to be served without django.contrib.staticfiles.",
    "E018": "Settings that exclude each other.",
    "E019": "ALLOWED_HOSTS that let Django answer no request.",
    "W001": "A signal that publishes on a channel whose name is almost that of a bus method.",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: the id, the path of the key, what it got and what it takes."""

    id: str
    path: str
    message: str
    hint: str | None = None
    level: int | None = None
    """Django's, for a finding of somebody else's; ours say it by the first letter of their id."""

    @property
    def is_error(self) -> bool:
        return self.id.startswith("E") if self.level is None else self.level >= checks.ERROR

    @property
    def full_id(self) -> str:
        return self.id if self.level is not None else f"django_wspbus.{self.id}"

    @property
    def line(self) -> str:
        """The finding in one line, for a terminal."""
        hint = f" {self.hint}" if self.hint else ""
        return f"{self.path}: {self.message}{hint} ({self.full_id})"

    def as_check(self) -> checks.CheckMessage:
        level = self.level or (checks.ERROR if self.is_error else checks.WARNING)
        return checks.CheckMessage(level, f"{self.path}: {self.message}", hint=self.hint, id=self.full_id)
