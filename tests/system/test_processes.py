"""The states of processes, from /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from django_wspbus.system.processes import descendants, has_running_thread, is_suspended, state_of
from tests.servers.load import await_that

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


def test_the_state_of_a_process_follows_its_life() -> None:
    process = subprocess.Popen(SLEEP)
    try:
        await_that(lambda: state_of(process.pid) == "S")
        assert process.pid in descendants(os.getpid())
        await_that(lambda: not has_running_thread(process.pid))  # it may have slept during its boot
        process.send_signal(signal.SIGSTOP)
        await_that(lambda: is_suspended(process.pid))
    finally:
        process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert state_of(process.pid) == "Z"
    process.wait()
    assert state_of(process.pid) == ""
    assert not has_running_thread(process.pid)
    assert descendants(process.pid) == []


def test_one_running_thread_is_enough() -> None:
    ends = threading.Event()
    waiting = threading.Thread(target=ends.wait)
    waiting.start()
    assert has_running_thread(os.getpid())  # the thread that asks
    ends.set()
    waiting.join()
