"""The whole table: what each method does from each state, and in the middle of each transition."""

from __future__ import annotations

import threading

import pytest

from django_wspbus.wspbus import states

from .conftest import DEADLINE

METHODS = ["start", "stop", "graceful", "exit", "restart"]

START = ["Bus STARTING", "Bus STARTED"]
STOP = ["Bus STOPPING", "Bus STOPPED"]
EXIT = [*STOP, "Bus EXITING", "Bus EXITED"]
GRACEFUL = ["Bus graceful"]

# (state, method): the state it leads to, the listeners that run, the lines that are logged
SETTLED = {
    ("STOPPED", "start"): ("STARTED", ["start"], START),
    ("STOPPED", "stop"): ("STOPPED", ["stop"], STOP),
    ("STOPPED", "graceful"): ("STOPPED", ["graceful"], GRACEFUL),
    ("STOPPED", "exit"): ("EXITING", ["stop", "exit"], EXIT),
    ("STARTED", "start"): ("STARTED", [], ["Bus is STARTED already"]),
    ("STARTED", "stop"): ("STOPPED", ["stop"], STOP),
    ("STARTED", "graceful"): ("STARTED", ["graceful"], GRACEFUL),
    ("STARTED", "exit"): ("EXITING", ["stop", "exit"], EXIT),
    ("EXITING", "start"): ("STARTED", ["start"], START),
    ("EXITING", "stop"): ("STOPPED", ["stop"], STOP),
    ("EXITING", "graceful"): ("EXITING", ["graceful"], GRACEFUL),
    ("EXITING", "exit"): ("EXITING", [], ["Bus is EXITING already"]),
}

# The same where a listener of that transition, or a thread meanwhile, calls the method: it has its
# turn when the transition is over, but for an exit during a start.
UNDER_WAY = {
    ("STARTING", "start"): ("STARTED", ["start"], [*START, "Bus is STARTED already"]),
    ("STARTING", "stop"): ("STOPPED", ["start", "stop"], START + STOP),
    ("STARTING", "graceful"): ("STARTED", ["start", "graceful"], START + GRACEFUL),
    ("STARTING", "exit"): ("EXITING", ["start", "stop", "exit"], ["Bus STARTING", *EXIT]),
    ("STOPPING", "start"): ("STARTED", ["stop", "start"], STOP + START),
    ("STOPPING", "stop"): ("STOPPED", ["stop", "stop"], STOP + STOP),
    ("STOPPING", "graceful"): ("STOPPED", ["stop", "graceful"], STOP + GRACEFUL),
    ("STOPPING", "exit"): ("EXITING", ["stop", "stop", "exit"], STOP + EXIT),
    ("EXITING", "start"): ("STARTED", ["stop", "exit", "start"], EXIT + START),
    ("EXITING", "stop"): ("STOPPED", ["stop", "exit", "stop"], EXIT + STOP),
    ("EXITING", "graceful"): ("EXITING", ["stop", "exit", "graceful"], EXIT + GRACEFUL),
    ("EXITING", "exit"): ("EXITING", ["stop", "exit"], [*EXIT, "Bus is EXITING already"]),
}
# A thread is not kept waiting for an exit that is under way, as that may be waiting for the thread.
FROM_A_THREAD = UNDER_WAY | {
    ("EXITING", "exit"): ("EXITING", ["stop", "exit"], [*EXIT[:3], "Bus is exiting already", "Bus EXITED"]),
}
CHANNELS = {"STARTING": "start", "STOPPING": "stop", "EXITING": "exit"}


def row(table, state, method):
    """A restart is an exit, with an end of its own in block()."""
    return table[state, "exit" if method == "restart" else method]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("state", ["STOPPED", "STARTED", "EXITING"])
def test_from_a_state_at_rest(bus, journal, state, method):
    if state != "STOPPED":
        {"STARTED": bus.start, "EXITING": bus.exit}[state]()
    journal.listen_to_all()
    journal.lines.clear()
    getattr(bus, method)()
    assert (bus.state.name, journal.events, journal.lines) == row(SETTLED, state, method)
    assert bus.execv is (method == "restart" and state != "EXITING")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("state", ["STARTING", "STOPPING", "EXITING"])
def test_from_a_listener_of_a_transition(bus, journal, state, method):
    channel = CHANNELS[state]
    seen = []

    def call_once():
        bus.unsubscribe(channel, call_once)
        seen.append(bus.state.name)
        getattr(bus, method)()
        seen.append(bus.state.name)

    bus.subscribe(channel, call_once)
    journal.listen_to_all()
    getattr(bus, channel)()
    # The listener that follows in the same channel does not run where an exit ends a start.
    ends_start = state == "STARTING" and method in ("exit", "restart")
    outcome, events, lines = row(UNDER_WAY, state, method)
    assert (bus.state.name, journal.events, journal.lines) == (outcome, events[ends_start:], lines)
    assert seen == [state, state]
    assert bus.execv is (method == "restart" and state != "EXITING")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("state", ["STARTING", "STOPPING", "EXITING"])
def test_from_another_thread_during_a_transition(bus, journal, in_thread, state, method):
    channel = CHANNELS[state]
    calling = threading.Event()
    threads = []

    def call():
        calling.set()
        getattr(bus, method)()

    def call_once():
        bus.unsubscribe(channel, call_once)
        assert bus.state.name == state
        threads.append(in_thread(call))
        assert calling.wait(DEADLINE)
        if method in ("exit", "restart"):  # a listener may wait for a thread that asks for the exit
            threads[0].join(DEADLINE)
            assert not threads[0].is_alive()

    journal.listen_to_all()
    bus.subscribe(channel, call_once, 60)
    getattr(bus, channel)()
    threads[0].join(DEADLINE)
    assert (bus.state.name, journal.events, journal.lines) == row(FROM_A_THREAD, state, method)
    assert bus.execv is (method == "restart" and state != "EXITING")


@pytest.mark.parametrize("state", ["STOPPED", "STARTED"])
def test_block_from_a_state_at_rest_waits_for_the_exit_and_for_the_thread_that_did_it(
    bus, journal, in_thread, state
):
    if state == "STARTED":
        bus.start()
    journal.lines.clear()
    bus.subscribe("main", lambda: in_thread(bus.exit) if not journal.lines else None)
    bus.block(interval=0.01)
    assert bus.state is states.EXITING
    assert [line for line in journal.lines if "already" not in line and "Waiting for thread" not in line] == [
        *EXIT,
        "Waiting for child threads to terminate...",
    ]


def test_block_from_exiting_returns_at_once(bus, journal):
    bus.exit()
    bus.block()
    assert journal.lines == [*EXIT, "Waiting for child threads to terminate..."]


@pytest.mark.parametrize("state", ["STARTING", "STOPPING", "EXITING"])
def test_block_during_a_transition_in_another_thread_waits_for_the_last_exit_listener(
    bus, journal, in_thread, state
):
    inside, going = threading.Event(), threading.Event()

    @bus.subscribe(CHANNELS[state])
    def hold():
        inside.set()
        assert going.wait(DEADLINE)

    journal.listen_to_all()
    in_thread(getattr(bus, CHANNELS[state]))
    assert inside.wait(DEADLINE)
    assert bus.state.name == state
    bus.defer(going.set)  # runs once block() waits
    if state == "EXITING":
        going.set()
    else:
        bus.defer(bus.exit)
    bus.block()
    assert bus.state is states.EXITING
    assert journal.events[-2:] == ["stop", "exit"]
    assert "Bus EXITED" in journal.lines


def test_several_calls_from_a_listener_have_their_turns_in_order(bus, journal):
    @bus.subscribe("start")
    def call():
        bus.graceful()
        bus.stop()
        bus.graceful()

    journal.listen_to_all()
    bus.start()
    assert bus.state is states.STOPPED
    assert journal.events == ["start", "graceful", "stop", "graceful"]


def test_a_bus_may_go_around_many_times(bus, journal):
    journal.listen_to_all()
    for _ in range(50):
        bus.start()
        bus.stop()
        bus.start()
        bus.exit()
    assert journal.events == ["start", "stop", "start", "stop", "exit"] * 50


def test_a_restart_that_is_followed_by_an_exit_is_an_exit(bus):
    bus.restart()
    assert bus.execv
    bus.exit()
    assert not bus.execv
    bus.block()


def test_an_exit_that_is_followed_by_a_restart_stays_an_exit(bus):
    bus.exit()
    bus.restart()
    assert not bus.execv
    bus.block()


def test_a_start_after_a_restart_forgets_it(bus):
    bus.restart()
    bus.start()
    bus.exit()
    assert not bus.execv
