"""The decisions of a respawner, by children that the test plays."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from django_wspbus.children.progress import Progress
from django_wspbus.servers.respawner import DELAY_AFTER_SIGNAL, Respawner
from django_wspbus.system.backoff import FIRST
from django_wspbus.wspbus import Refusal

READY_TIMEOUT = 30.0


class PlayedChild:
    alias = "shop"

    def __init__(self, pid: int = 1, *, answered: bool = False) -> None:
        self.pid = pid
        self.progress = Progress()
        self.progress.has_answered = answered
        self.ended = self.ended_cleanly = self.is_ready = self.is_settled = False
        self.age = self.lifetime = 0.0

    def how_ended(self) -> str:
        return f"was killed by SIGKILL, process {self.pid}"

    def why_not_ready(self, timeout: float) -> str:
        return f"it was not ready within {timeout:g} seconds"


class Site:
    """The children of a site and its bus, as a respawner sees them."""

    def __init__(self) -> None:
        self.serving: dict[str, Any] = {}
        self.swapping = self.exit_asked = False
        self.dismissed: list[Any] = []
        self.booted: list[PlayedChild] = []
        self.refusal: Refusal | None = None
        self.log_lines: list[str] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.switchboard = SimpleNamespace(call_later=lambda *timer: self.timers.append(timer))
        self.respawner = Respawner(self, "shop", self, self.boot, READY_TIMEOUT)  # type: ignore[arg-type]
        self.respawner.is_active = True

    def boot(self) -> Any:
        if self.refusal is not None:
            raise self.refusal
        self.booted.append(PlayedChild(len(self.booted) + 10))
        return self.booted[-1]

    def log(self, message: str, level: int = 20) -> None:
        self.log_lines.append(message)

    def defer(self, function: Callable[[], None]) -> None:
        function()

    def dismiss(self, child: Any, *, is_replaced: bool = False) -> None:
        self.dismissed.append(child)
        if self.serving.get("shop") is child:
            del self.serving["shop"]

    def switch(self, children: list[Any]) -> None:
        self.serving = {"shop": children[0]}

    def fire(self) -> float:
        """Let the only timer end; return its seconds."""
        ((seconds, function),) = self.timers
        self.timers.clear()
        function()
        return seconds


@pytest.fixture
def site() -> Site:
    return Site()


def end(site: Site, child: PlayedChild) -> None:
    child.ended = True
    site.serving = {"shop": child}
    site.respawner.look()


def test_a_child_that_has_served_is_replaced_at_once_and_the_successor_switched_to(site: Site) -> None:
    old = PlayedChild(answered=True)
    end(site, old)
    assert site.dismissed == [old]
    (new,) = site.booted
    assert site.log_lines == ["The server 'shop' was killed by SIGKILL, process 1; restarting it."]
    assert site.respawner.trouble == "it was killed by SIGKILL, process 1"

    site.respawner.resume()
    assert site.serving == {}
    new.is_ready = True
    site.respawner.look()
    assert site.serving == {"shop": new}

    site.respawner.resume()
    assert site.respawner.trouble is not None  # until it has answered
    new.progress.has_answered = True
    site.respawner.look()
    assert site.respawner.trouble is None
    assert site.log_lines[1:] == ["The server 'shop' answers again, process 10."]
    assert site.booted == [new]


def test_a_child_that_a_signal_has_ended_is_replaced_a_moment_later(site: Site) -> None:
    old = PlayedChild(answered=True)
    old.ended_cleanly = True
    end(site, old)
    assert site.booted == []
    assert site.fire() == DELAY_AFTER_SIGNAL
    assert len(site.booted) == 1


@pytest.mark.parametrize("why", ["settled", "late"])
def test_a_successor_that_does_not_become_ready_is_followed_by_another_one(site: Site, why: str) -> None:
    end(site, PlayedChild(answered=True))
    (first,) = site.booted
    site.timers.clear()
    first.is_settled, first.age = why == "settled", READY_TIMEOUT + (why == "late")
    site.respawner.look()
    assert site.dismissed[1:] == [first]
    assert site.respawner.trouble == "it was not ready within 30 seconds"
    assert site.log_lines[-1].startswith("The server 'shop' did not restart: it was not ready within 30")
    assert site.fire() == FIRST
    assert len(site.booted) == 2


def test_a_child_that_cannot_be_started_is_tried_again_and_logged_once(site: Site) -> None:
    site.refusal = Refusal("there is no interpreter 1")
    end(site, PlayedChild(answered=True))
    waits = []
    for number in range(2, 5):
        site.refusal = Refusal(f"there is no interpreter {number}")
        waits.append(site.fire())
    assert waits == sorted(waits)
    assert waits[-1] > waits[0] == FIRST
    assert len(site.log_lines) == 2
    site.refusal = None
    site.fire()
    assert len(site.booted) == 1


def test_a_start_that_has_failed_is_made_again(site: Site) -> None:
    site.respawner.is_active = False
    site.respawner.retry("no descriptor was free")
    assert site.respawner.trouble == "no descriptor was free"
    assert site.fire() == FIRST
    assert len(site.booted) == 1


def test_what_workers_report_is_in_the_log_and_the_same_reason_once(site: Site) -> None:
    child = PlayedChild()
    site.serving = {"shop": child}
    child.progress.failed_stops.append("worker 3 ended before its stop listeners had run.")
    child.progress.failed_workers += ["ValueError in worker 5", "ValueError in worker 4"]
    site.respawner.look()
    assert site.log_lines == [
        "The server 'shop': worker 3 ended before its stop listeners had run.",
        "A new worker of the server 'shop' did not start: ValueError in worker 4",
    ]
    assert child.progress.failed_stops == child.progress.failed_workers == []


def test_a_reload_ends_a_successor_with_the_old_code(site: Site) -> None:
    end(site, PlayedChild(answered=True))
    site.respawner.pause()
    assert site.dismissed[1:] == site.booted
    site.respawner.pause()
    assert len(site.dismissed) == 2
    site.respawner.resume()
    assert len(site.booted) == 2


@pytest.mark.parametrize("name", ["exit_asked", "swapping"])
def test_nothing_is_started_while_the_site_exits_or_replaces_all_children(site: Site, name: str) -> None:
    setattr(site, name, True)
    end(site, PlayedChild(answered=True))
    site.respawner.resume()
    assert site.booted == site.dismissed == []
    setattr(site, name, False)
    site.serving = {}
    site.respawner.resume()
    assert len(site.booted) == 1
