from __future__ import annotations

import threading
import time
from pathlib import Path

from django_wspbus.wspbus import states

from .conftest import DEADLINE


def test_wait_for_returns_true_once_the_condition_holds(bus, in_thread):
    done = []

    def make_it_true():
        done.append(1)
        bus.wake()

    in_thread(make_it_true)
    assert bus.wait_for(lambda: done, timeout=DEADLINE) is True


def test_wait_for_returns_false_at_its_deadline(bus):
    started = time.monotonic()
    assert bus.wait_for(lambda: False, timeout=0.05) is False
    assert time.monotonic() - started >= 0.05
    assert bus.wait_for(lambda: False, timeout=0) is False


def test_wait_for_in_a_start_listener_returns_false_when_another_thread_asks_for_the_exit(
    bus, journal, in_thread
):
    found = []

    @bus.subscribe("start", priority=10)
    def wait():
        in_thread(bus.exit)
        found.append(bus.wait_for(lambda: False, timeout=DEADLINE))

    journal.listen_to_all()
    bus.start()
    assert found == [False]
    assert bus.state is states.EXITING
    assert journal.events == ["stop", "exit"]


def test_wait_for_in_a_start_listener_returns_false_when_a_deferred_exit_comes(bus, journal):
    found = []

    @bus.subscribe("start", priority=10)
    def wait():
        bus.defer(bus.exit)
        found.append(bus.wait_for(lambda: False, timeout=DEADLINE))

    journal.listen_to_all()
    bus.start()
    assert found == [False]
    assert journal.events == ["stop", "exit"]


def test_wait_for_outside_a_start_is_not_ended_by_an_exit(bus):
    done = []
    bus.start()

    @bus.subscribe("stop")
    def wait():
        bus.defer(lambda: done.append(1))
        assert bus.wait_for(lambda: done, timeout=DEADLINE)

    bus.exit()
    bus.block()  # which would leave with 70 if the listener had failed


def test_a_wait_on_top_of_another_leaves_it_awake(bus):
    """In the main thread both sleep on the same pipe: one must not swallow what wakes the other."""
    done = []

    @bus.subscribe("main")
    def wait_inside():
        bus.unsubscribe("main", wait_inside)
        bus.defer(lambda: done.append("deferred"))
        assert bus.wait_for(lambda: done, timeout=DEADLINE)
        threading.Thread(target=bus.exit).start()

    bus.start()
    bus.block(interval=0.01)
    assert done == ["deferred"]


def test_many_waits_leave_no_descriptor_open(bus):
    descriptors = Path("/dev/fd")
    bus.wait_for(lambda: False, timeout=0)
    before = len(list(descriptors.iterdir()))
    for _ in range(50):
        bus.wait_for(lambda: False, timeout=0)
    assert len(list(descriptors.iterdir())) == before


def test_a_process_without_free_descriptors_can_still_wait(run):
    script = """
import os, resource, threading
from django_wspbus.wspbus import Bus

bus = Bus()
resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
threading.Timer(0.05, bus.start).start()
bus.wait(bus.states.STARTED)
bus.defer(bus.exit)
bus.block()
print(bus.state.name)
"""
    assert run(script).finish() == ["EXITING"]
