"""The plugin that reports to systemd, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_wspbus.health.report import Condition
from django_wspbus.plugins.systemd import Systemd
from django_wspbus.successor.notification import ServiceManager as Connection
from django_wspbus.wspbus import Bus
from tests.service_managers import ServiceManager


@pytest.fixture
def manager(short: Path) -> Iterator[ServiceManager]:
    with ServiceManager(str(short / "notify")) as manager:
        yield manager


def test_a_condition_that_cannot_be_found_out_does_not_end_the_signs_of_life(manager: ServiceManager) -> None:
    bus = Bus()
    answers: Iterator[Condition] = iter([Condition("ready", "")])  # then the next one raises
    later: list[Callable[[], None]] = []

    def condition() -> Condition:
        for answer in answers:
            return answer
        raise OSError("Too many open files")

    systemd = Systemd(
        bus,
        Connection({"NOTIFY_SOCKET": manager.name}),
        condition,
        lambda seconds, function: later.append(function),
        watchdog=10.0,
        time_to_start=1.0,
        time_to_stop=1.0,
        replaces=False,
    )
    bus.start()
    for _ in range(2):
        with pytest.raises(OSError, match="Too many"):
            systemd.look() if not later else systemd._beat()
    systemd.unsubscribe()
    bus.stop()

    assert len(later) == 2
    assert manager.drain()[-1] == {"WATCHDOG": "1"}
