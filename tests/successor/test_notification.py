"""The protocol of sd_notify(3)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from django_wspbus.successor import notification
from django_wspbus.successor.notification import ServiceManager, status
from tests import service_managers
from tests.descriptors import no_descriptor


def test_a_manager_whose_queue_is_full_delays_the_site_for_a_moment_only(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification, "SEND_TIMEOUT", 0.01)
    with service_managers.ServiceManager(str(short / "notify")) as deaf:
        manager = ServiceManager({"NOTIFY_SOCKET": deaf.name})
        sent = 0
        while manager.send(status("x" * 200)):
            sent += 1
        manager.close()
    assert sent > 0


def test_it_still_speaks_once_the_process_has_no_free_descriptor(short: Path) -> None:
    with service_managers.ServiceManager(str(short / "notify")) as played:
        manager = ServiceManager({"NOTIFY_SOCKET": played.name})
        assert manager.send("READY=1")
        with no_descriptor():
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                os.dup(0)
            assert manager.send("WATCHDOG=1")
        manager.close()
        assert played.drain() == [{"READY": "1"}, {"WATCHDOG": "1"}]


def test_a_status_is_one_short_line() -> None:
    assert status("first\nREADY=1") == "STATUS=first"
    assert status("") == "STATUS="
    assert len(status("x" * 1000)) == len("STATUS=") + 300


@pytest.mark.parametrize(
    ("variables", "pid", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 7, 3.0),
        ({"WATCHDOG_USEC": "3000000"}, 7, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, 7, None),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None, 3.0),
        ({"WATCHDOG_USEC": "0"}, 7, None),
        ({"WATCHDOG_USEC": "soon"}, 7, None),
        ({}, 7, None),
    ],
)
def test_a_watchdog_counts_for_the_process_that_it_names(
    variables: dict[str, str], pid: int | None, seconds: float | None
) -> None:
    assert ServiceManager(variables).watchdog(pid) == seconds
