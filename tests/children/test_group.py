"""A process with its group, from its start to its end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from django_wspbus.children.group import ProcessGroup
from django_wspbus.process.switchboard import Switchboard
from django_wspbus.system.processes import state_of
from tests.processes import DEADLINE
from tests.servers.load import await_that

WITH_ANOTHER = """\
import os, time
if not os.fork():
    print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def switchboard() -> Iterator[Switchboard]:
    switchboard = Switchboard()
    yield switchboard
    switchboard.close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which has started another one and printed the PID of that."""
    command = [sys.executable, "-S", "-c", WITH_ANOTHER]
    with subprocess.Popen(command, process_group=0, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_the_end_of_the_process_is_reported_once(
    process: subprocess.Popen[bytes], switchboard: Switchboard
) -> None:
    changed = threading.Semaphore(0)
    group = ProcessGroup(process, switchboard, changed.release)
    group.watch()
    assert group.reports_end
    assert not group.ended
    group.send_signal(signal.SIGTERM)
    assert changed.acquire(timeout=DEADLINE)
    assert group.ended
    assert group.ended_cleanly
    assert group.how_ended() == "was killed by SIGTERM"
    group.close()
    assert not changed.acquire(blocking=False)


def test_at_its_close_no_process_of_the_group_is_left(
    process: subprocess.Popen[bytes], switchboard: Switchboard
) -> None:
    assert process.stdout is not None
    other = int(process.stdout.readline())
    group = ProcessGroup(process, switchboard, lambda: None)
    group.watch()
    group.close()
    assert not group.reports_end
    assert process.returncode == -signal.SIGKILL
    await_that(lambda: state_of(other) in ("", "Z"))


def test_an_order_to_exit_bounds_its_time(process: subprocess.Popen[bytes], switchboard: Switchboard) -> None:
    group = ProcessGroup(process, switchboard, lambda: None)
    assert (group.allowed, group.is_overdue) == (0.0, False)
    group.dismissed_at, group.deadline = group.spawned, group.spawned
    assert group.is_overdue
    group.close()
