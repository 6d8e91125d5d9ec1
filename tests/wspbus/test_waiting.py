from __future__ import annotations

import threading
import time

import pytest

from django_wspbus.wspbus import states

from .conftest import DEADLINE


@pytest.mark.parametrize("state", list(states))
def test_wait_returns_at_once_in_the_state(bus, state):
    bus.state = state
    bus.wait(state)
    bus.wait([state])
    bus.wait(states)
    bus.state = states.STOPPED


def test_wait_for_one_state_is_woken_by_it_although_its_interval_is_long(bus, in_thread):
    seen = []

    def wait():
        bus.wait(states.STARTED, interval=1000)
        seen.append(bus.state)

    thread = in_thread(wait)
    bus.start()
    thread.join(DEADLINE)
    assert seen == [states.STARTED]


def test_wait_for_several_states_is_over_with_the_first_of_them(bus, in_thread):
    seen = []

    def wait():
        bus.wait((states.STARTED, states.EXITING), interval=1000)
        seen.append(bus.state)

    thread = in_thread(wait)
    bus.stop()
    bus.exit()
    thread.join(DEADLINE)
    assert seen == [states.EXITING]


def test_many_threads_are_woken_by_one_change(bus, in_thread):
    threads = [in_thread(bus.wait, states.STARTED) for _ in range(50)]
    bus.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)


def test_wait_publishes_at_intervals_with_the_listeners_that_come_and_go(bus, in_thread):
    calls = []
    enough = threading.Event()

    @bus.subscribe("tick")
    def tick():
        calls.append(threading.current_thread())
        if len(calls) == 5:
            bus.unsubscribe("tick", tick)
            enough.set()

    thread = in_thread(bus.wait, states.STARTED, 0.01, "tick")
    assert enough.wait(DEADLINE)
    bus.start()
    assert calls == [thread] * 5


@pytest.mark.parametrize("how", ["subscribe", "in place", "assignment", "changed assignment", "roles"])
def test_wait_polls_for_a_listener_that_came_while_it_slept(bus, in_thread, how):
    """It sleeps without a limit while the channel has no listener, and so has to be woken."""
    called, polled = threading.Event(), threading.Event()
    bus.roles = {"worker"}

    @bus.subscribe("main")
    def poll_once():
        bus.unsubscribe("main", poll_once)
        polled.set()

    if how == "roles":
        bus.subscribe("main", called.set, role="site")
    if how == "changed assignment":
        bus.listeners["main"] = assigned = {poll_once}
    in_thread(bus.wait, states.STARTED, 0.01, "main")
    assert polled.wait(DEADLINE)
    bus.subscribe("other", polled.set)
    if how == "subscribe":
        bus.subscribe("main", called.set)
    elif how == "in place":
        bus.listeners["main"].add(called.set)
    elif how == "changed assignment":
        assigned.add(called.set)
    elif how == "assignment":
        bus.listeners["main"] = {called.set}
    else:
        bus.roles = {"site"}
    assert called.wait(DEADLINE)
    bus.start()


def test_wait_goes_on_when_a_listener_of_its_channel_fails(bus, journal, in_thread):
    calls = []
    enough = threading.Event()

    @bus.subscribe("tick")
    def fail():
        calls.append(1)
        if len(calls) == 3:
            enough.set()
        raise ValueError("tick")

    thread = in_thread(bus.wait, states.STARTED, 0.01, "tick")
    assert enough.wait(DEADLINE)
    bus.start()
    thread.join(DEADLINE)
    assert len([line for line in journal.lines if "ValueError: tick" in line]) == len(calls) >= 3


def test_block_is_woken_by_an_exit_from_another_thread_although_its_interval_is_long(bus, in_thread):
    def leave():
        bus.wait(states.STARTED)
        bus.exit()

    bus.start()
    in_thread(leave)
    before = time.monotonic()
    bus.block(interval=1000)
    assert time.monotonic() - before < DEADLINE


def test_block_waits_for_the_threads_that_are_not_daemons_and_for_those_they_start(bus, journal):
    ended = []
    waited_for = threading.Event()
    forever = threading.Event()

    @bus.subscribe("log")
    def look(msg, level):
        if msg == "Waiting for thread the parent.":
            waited_for.set()

    def parent():
        assert waited_for.wait(DEADLINE)
        threading.Thread(target=lambda: ended.append("child"), name="the child").start()
        ended.append("parent")

    daemon = threading.Thread(target=forever.wait, daemon=True)
    daemon.start()
    threading.Thread(target=parent, name="the parent").start()
    bus.start()
    bus.exit()
    bus.block()
    assert sorted(ended) == ["child", "parent"]
    assert daemon.is_alive()
    waiting = journal.lines.index("Waiting for child threads to terminate...")
    assert journal.lines[waiting - 1] == "Bus EXITED"
    forever.set()
    daemon.join(DEADLINE)


def test_block_ends_although_another_thread_starts_the_bus_again_after_the_exit(bus, in_thread):
    starting = threading.Event()

    def start():
        starting.set()
        bus.start()

    @bus.subscribe("exit")
    def start_again():
        bus.unsubscribe("exit", start_again)
        in_thread(start)
        assert starting.wait(DEADLINE)

    bus.start()
    bus.defer(lambda: in_thread(bus.exit))  # from within block()
    bus.block()
    bus.wait(states.STARTED)
