"""Findings about the settings: the ids of the system checks, with one sentence for each."""

from __future__ import annotations

from dataclasses import dataclass

from django.core import checks

IDS = {
    "E001": "An unknown key.",
    "E002": "A value of the wrong type or shape.",
    "E003": "An address that cannot be bound: it is malformed, or its port is out of range.",
    "E004": "An address that is used twice, by servers or by a server and the probes.",
    "E005": "A dotted path that cannot be imported.",
    "E006": "An application that is not WSGI.",
    "E007": "An unknown signal.",
    "E008": "A signal that no process can catch.",
    "E009": "An unknown user or group, or one that this process is not allowed to become.",
    "E010": "A PID file that cannot be written.",
    "E011": "An output file, or the directory of a Unix socket, that cannot be written.",
    "E012": "An option that the server does not know, or a value that it does not take.",
    "E013": "An option of a server that belongs to the site.",
    "E014": "A backend of the wrong kind.",
    "E015": "A number out of range.",
    "E016": "A file that is named by an option and cannot be read.",
    "E017": "Static files are switched on without django.contrib.staticfiles.",
    "E018": "Settings that exclude each other.",
    "E019": "ALLOWED_HOSTS with which Django answers every request with 400.",
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
    """The level of a check of a plugin or of Django; None: the first letter of the id says it."""

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
