"""A developer who saves a module and reloads the page until it shows the save."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .clients import Client, Request

THINK = 0.005
"""Seconds between an answer and the next request."""
BEFORE, AFTER = 0.3, 0.7
"""Seconds of requests before a save, and after the first answer that shows it."""
DEADLINE = 15.0
"""Seconds after which a save counts as missed."""


@dataclass(frozen=True)
class Edit:
    """A save, and the requests from just before it until just after the page shows it."""

    saved: float
    value: str
    requests: list[Request]

    @property
    def since(self) -> list[Request]:
        return [request for request in self.requests if request.ended >= self.saved]

    @property
    def first_new(self) -> Request | None:
        return next(filter(self.shows, self.since), None)

    def shows(self, request: Request) -> bool:
        return request.outcome == "200" and request.version == self.value

    @property
    def seconds(self) -> float | None:
        """Seconds from the save to the first answer that shows it; None if it was missed."""
        return self.first_new.ended - self.saved if self.first_new else None

    @property
    def last_old(self) -> float:
        """Seconds from the save to the last answer of the old code; 0 without such an answer."""
        end = self.first_new.began if self.first_new else float("inf")
        olds = [request for request in self.old if request.began < end]
        return max((request.ended - self.saved for request in olds), default=0)

    @property
    def old(self) -> list[Request]:
        return [request for request in self.since if request.outcome == "200" and not self.shows(request)]

    @property
    def stale(self) -> list[Request]:
        """The answers of the old code to requests that began after the first request to the new code."""
        first = self.first_new
        return [request for request in self.old if first and request.began > first.began]

    @property
    def failed(self) -> list[Request]:
        return [request for request in self.since if request.outcome != "200"]


class Editor:
    """Edits one module of a project. Each save writes a new value."""

    def __init__(self, module: Path) -> None:
        self.module = module
        self.saves = 0

    def edit(self, port: int, pause: float) -> Edit:
        """Save after a pause, and request the page until it shows the save or `DEADLINE` has passed."""
        time.sleep(pause)
        client = Client(port, "/", keep_alive=False)
        requests = ask(client, BEFORE)
        saved = time.monotonic()
        value = self.save()
        requests += ask(client, DEADLINE, lambda request: request.version == value)
        edit = Edit(saved, value, requests)
        if edit.first_new:
            requests += ask(client, AFTER)
        return edit

    def save(self) -> str:
        """Save as editors do: alternately write to the file and replace it by another."""
        self.saves += 1
        text = re.sub('VERSION = ".*"', f'VERSION = "{self.saves}"', self.module.read_text())
        if self.saves % 2:
            self.module.write_text(text)
        else:
            other = self.module.with_name(f"{self.module.name}.{os.getpid()}")
            other.write_text(text)
            other.replace(self.module)
        return str(self.saves)


def ask(
    client: Client, seconds: float, until: Callable[[Request], bool] = lambda request: False
) -> list[Request]:
    """Send one request after the other, each on a new connection."""
    requests: list[Request] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        requests.append(client.ask())
        if until(requests[-1]):
            break
        time.sleep(THINK)
    return requests
