from __future__ import annotations

import itertools
import sys
import threading

import pytest

from django_wspbus.wspbus import states
from django_wspbus.wspbus.turns import Turns
from tests.servers.load import await_that

from .conftest import DEADLINE


@pytest.fixture(autouse=True)
def switch_often():
    """Give the threads more occasions to get in each other's way."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def test_10000_publishes_against_subscribing_threads_lose_no_listener_and_no_error_comes(bus, in_thread):
    calls = itertools.count()
    changes = []
    over = threading.Event()
    bus.subscribe("own", lambda: next(calls), 10)
    bus.subscribe("own", lambda: "last", 90)

    def change(number):
        rounds = 0
        while not over.is_set():
            listeners = [lambda: "other" for _ in range(3)]
            for listener in listeners:
                bus.subscribe("own", listener, number)
                bus.subscribe(f"own {number} {rounds % 100}", listener)
            for listener in listeners:
                bus.unsubscribe("own", listener)
            rounds += 1
        changes.append(rounds)

    threads = [in_thread(change, 20 * number) for number in range(1, 4)]
    try:
        for number in range(10_000):
            results = bus.publish("own")
            assert results[0] == number
            assert results[-1] == "last"
            assert set(results[1:-1]) <= {"other"}
    finally:
        over.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(changes) == 3
    assert min(changes) > 0
    assert bus.publish("own") == [10_000, "last"]


def test_threads_that_publish_while_roles_change_call_the_listeners_of_every_role(bus, in_thread):
    calls = []
    over = threading.Event()
    bus.subscribe("own", lambda: "any", role="any")
    bus.subscribe("own", lambda: "site", role="site")

    def publish():
        while not over.is_set():
            calls.append(tuple(bus.publish("own")))

    threads = [in_thread(publish) for _ in range(2)]
    try:
        await_that(lambda: calls)
        for _ in range(2000):
            bus.roles = {"site"}
            bus.roles = {"worker"}
    finally:
        over.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert set(calls) <= {("any",), ("any", "site")}
    assert bus.publish("own") == ["any"]


def test_transitions_from_many_threads_run_one_at_a_time(bus, in_thread):
    inside = []
    overlaps = []
    counts = dict.fromkeys(("start", "stop", "graceful"), 0)

    def enter(channel):
        def listener():
            counts[channel] += 1
            inside.append(channel)
            if len(inside) > 1:
                overlaps.append(tuple(inside))
            for _ in range(20):
                bus.publish("own")
            inside.remove(channel)

        bus.subscribe(channel, listener)

    for channel in counts:
        enter(channel)

    def go_around():
        for _ in range(100):
            bus.start()
            bus.graceful()
            bus.stop()

    threads = [in_thread(go_around) for _ in range(4)]
    for thread in threads:
        thread.join(DEADLINE)
    assert overlaps == []
    assert counts["stop"] == counts["graceful"] == 400
    assert 0 < counts["start"] <= 400
    assert bus.state is states.STOPPED


def test_many_threads_that_exit_at_once_run_each_listener_once(bus, journal, in_thread):
    journal.listen_to_all()
    barrier = threading.Barrier(20)

    def leave():
        barrier.wait(DEADLINE)
        bus.exit()

    for _ in range(50):
        bus.start()
        journal.events.clear()
        threads = [in_thread(leave) for _ in range(20)]
        for thread in threads:
            thread.join(DEADLINE)
        assert bus.state is states.EXITING
        assert journal.events == ["stop", "exit"]


def test_an_exit_that_races_with_a_start_in_another_thread_is_never_lost(bus, journal, in_thread):
    journal.listen_to_all()
    barrier = threading.Barrier(2)
    outcomes = set()

    def leave():
        barrier.wait(DEADLINE)
        bus.exit()

    for _ in range(200):
        journal.events.clear()
        thread = in_thread(leave)
        barrier.wait(DEADLINE)
        bus.start()
        thread.join(DEADLINE)
        # Either the exit came before the start, or it ended it, or it followed it.
        assert bus.state in (states.STARTED, states.EXITING)
        outcomes.add(bus.state)
        assert journal.events.count("exit") <= 1
        assert journal.events == (["stop", "exit"] * ("exit" in journal.events) + ["start"]) or (
            journal.events[-2:] == ["stop", "exit"]
        )
        bus.exit()
        bus.state = states.STOPPED
    assert outcomes


@pytest.mark.parametrize("method", ["start", "stop", "graceful"])
def test_a_listener_may_join_a_thread_that_asks_for_the_exit(bus, journal, method):
    """As one does that stops a server whose handler is just calling bus.exit()."""
    joined = []

    @bus.subscribe(method)
    def join():
        thread = threading.Thread(target=bus.exit)
        thread.start()
        thread.join(DEADLINE)
        joined.append(not thread.is_alive())
        bus.unsubscribe(method, join)

    journal.listen("exit")
    getattr(bus, method)()
    assert joined == [True]
    assert bus.state is states.EXITING
    assert journal.events == ["exit"]


class HeldLock:
    """A lock during whose use another thread leaves an operation to the thread that holds it."""

    def __init__(self, leave):
        self.leave = leave
        self.lock = threading.RLock()
        self.acquire, self.release = self.lock.acquire, self.lock.release

    def __enter__(self):
        self.lock.acquire()
        leave, self.leave = self.leave, lambda: None
        thread = threading.Thread(target=leave)
        thread.start()
        thread.join(DEADLINE)

    def __exit__(self, *args):
        self.lock.release()


@pytest.mark.parametrize("how", ["wait", "take"])
def test_an_operation_that_is_handed_over_to_a_thread_with_the_lock_is_not_lost(how):
    ran = []
    turns = Turns(pytest.fail)
    turns.lock = HeldLock(lambda: turns.hand_over(lambda: ran.append(threading.current_thread())))
    if how == "wait":
        turns.wait()
    else:
        turns.take(lambda: ran.append("own"))
    assert ran == ([threading.main_thread()] if how == "wait" else ["own", threading.main_thread()])


def test_an_operation_that_ends_the_process_costs_none_of_those_that_wait_for_their_turn():
    ran = []
    turns = Turns(pytest.fail)

    def leave():
        turns.take(lambda: sys.exit(3))
        turns.take(lambda: ran.append("next"))

    with pytest.raises(SystemExit):
        turns.take(leave)
    assert ran == ["next"]
