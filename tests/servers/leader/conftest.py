from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from django_wspbus.control.protocol import Result
from tests.controlled import order, site_of
from tests.processes import RunningSite
from tests.projects import GUNICORN, Note, Project
from tests.servers.load import await_that

LEADING = """
from django_wspbus import NotLeader, cron


@bus.lifespan(role="leader")
def leading():
    note(f"leads with {bus.leader.token}")
    yield
    note("leads no more")

"""


URLS = """
from django.http import HttpResponse, JsonResponse
from django.urls import path

from django_wspbus import bus


def ask(request):
    return JsonResponse([[each.pid, each.roles] for each in bus.ask("shop.pid")], safe=False)


urlpatterns = [
    path("", lambda request: HttpResponse("served")),
    path("status", lambda request: JsonResponse(bus.site.status())),
    path("ask", ask),
]
"""


class Shop(Project):
    """A project with a listener of the role "leader"."""

    server = {**GUNICORN, "OPTIONS": {"workers": 1}}

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.leads()
        self.write("shop/urls.py", URLS)
        self.serves(self.server)

    def leads(self, more: str = "") -> None:
        self.listeners(LEADING + more)

    def of_leaders(self) -> list[Note]:
        return [note for note in self.notes() if note.event.startswith("leads with")]

    def expect_leaders(self, count: int) -> list[int]:
        """Wait until processes have begun to lead so many times; return their PIDs, in this order."""
        await_that(lambda: len(self.of_leaders()) >= count)
        return [note.pid for note in self.of_leaders()]

    def expect_successor(self, before: int) -> int:
        """Wait until another process than the one with this PID leads; return its PID."""
        await_that(lambda: self.of_leaders()[-1].pid != before, self.notes)
        return self.of_leaders()[-1].pid

    def has_stopped(self, pid: int) -> bool:
        """Return whether a process has run its stop listeners, or has ended."""
        return not psutil.pid_exists(pid) or pid in self.pids_of("leads no more")

    def pids_of(self, beginning: str) -> list[int]:
        return [note.pid for note in self.notes() if note.event.startswith(beginning)]

    def tokens(self) -> list[int]:
        return [int(note.event.split()[-1]) for note in self.of_leaders()]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def act(site: RunningSite, action: str) -> None:
    """Reload ("graceful") or restart a site, and wait until it is done."""
    _, outcome = order(site_of(site), action)
    assert isinstance(outcome, Result), outcome
