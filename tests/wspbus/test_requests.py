"""graceful() and restart() while a thread is in block(): it runs them, and calls share a run."""

from __future__ import annotations

import contextlib
import threading

import pytest

from django_wspbus.wspbus import Bus, ChannelFailures, Refusal, states

from .conftest import DEADLINE


class Blocked:
    """A bus with a thread in block(), and a graceful listener that a test holds."""

    def __init__(self, bus: Bus, in_thread) -> None:
        self.bus = bus
        self.runs: list[threading.Thread] = []
        self.entered = threading.Semaphore(0)
        self.held = threading.Semaphore(0)
        bus.subscribe("graceful", self.graceful)
        self.thread = in_thread(self.block)
        bus.wait(states.STARTED)
        while bus.waiting.home is None:
            bus.wait_for(lambda: False, 0.001)

    def block(self) -> None:
        self.bus.start()
        self.bus.block()

    def graceful(self) -> None:
        self.runs.append(threading.current_thread())
        self.entered.release()
        assert self.held.acquire(timeout=DEADLINE)


@pytest.fixture
def blocked(bus, in_thread):
    blocked = Blocked(bus, in_thread)
    yield blocked
    for _ in range(10):
        blocked.held.release()
    bus.exit()
    blocked.thread.join(DEADLINE)


def test_graceful_runs_in_the_thread_that_blocks_and_returns_when_it_is_done(blocked, in_thread):
    asking = in_thread(blocked.bus.graceful)
    assert blocked.entered.acquire(timeout=DEADLINE)
    assert asking.is_alive()
    blocked.held.release()
    asking.join(DEADLINE)
    assert not asking.is_alive()
    assert blocked.runs == [blocked.thread]


def test_calls_during_a_reload_share_the_next_one(blocked, in_thread):
    first = in_thread(blocked.bus.graceful)
    assert blocked.entered.acquire(timeout=DEADLINE)
    others = [in_thread(blocked.bus.graceful) for _ in range(5)]
    while len(blocked.bus.requests._asked["graceful"]) < len(others):
        blocked.bus.wait_for(lambda: False, 0.001)
    blocked.held.release()
    first.join(DEADLINE)
    assert all(other.is_alive() for other in others)
    assert blocked.entered.acquire(timeout=DEADLINE)
    blocked.held.release()
    for other in others:
        other.join(DEADLINE)
    assert len(blocked.runs) == 2


def test_each_call_raises_the_failures_of_its_reload_and_the_bus_stays_started(blocked, in_thread):
    blocked.bus.subscribe("graceful", lambda: {}["no such key"])
    caught = []

    def ask():
        with pytest.raises(ChannelFailures, match="no such key") as failure:
            blocked.bus.graceful()
        caught.append(failure.value)

    first = in_thread(ask)
    assert blocked.entered.acquire(timeout=DEADLINE)
    for _ in range(2):
        blocked.held.release()
    first.join(DEADLINE)
    in_thread(ask).join(DEADLINE)
    assert len(caught) == 2
    assert blocked.bus.state is states.STARTED


def test_the_thread_that_blocks_runs_what_it_asks_for_in_a_listener_afterwards(blocked, in_thread):
    def once_more():
        if len(blocked.runs) == 1:
            blocked.bus.graceful()
            blocked.bus.graceful()

    blocked.bus.subscribe("graceful", once_more)
    for _ in range(2):
        blocked.held.release()
    in_thread(blocked.bus.graceful).join(DEADLINE)
    for _ in range(2):
        assert blocked.entered.acquire(timeout=DEADLINE)
    assert blocked.runs == [blocked.thread] * 2


def test_a_call_that_waits_is_refused_by_an_exit_whose_listener_waits_for_that_call(blocked, in_thread):
    caught = []

    def ask():
        with pytest.raises(Refusal, match="exits before the reload"):
            blocked.bus.graceful()
        caught.append(True)

    blocked.bus.request("graceful", lambda error: None)
    assert blocked.entered.acquire(timeout=DEADLINE)
    asking = in_thread(ask)
    while not blocked.bus.requests._asked["graceful"]:
        blocked.bus.wait_for(lambda: False, 0.001)
    blocked.bus.subscribe("stop", lambda: asking.join(DEADLINE))
    in_thread(blocked.bus.exit)
    asking.join(DEADLINE)
    blocked.held.release()
    blocked.thread.join(DEADLINE)
    assert caught == [True]
    assert len(blocked.runs) == 1


def test_a_restart_that_is_refused_changes_nothing_and_raises_the_reason(blocked):
    ran = []
    blocked.bus.subscribe("before_restart", lambda: ran.append("first"), 10)

    @blocked.bus.subscribe("before_restart", priority=20)
    def refuse():
        raise Refusal("Not before noon.")

    blocked.bus.subscribe("before_restart", lambda: ran.append("after"), 30)
    with pytest.raises(ChannelFailures, match="Not before noon"):
        blocked.bus.restart()
    assert ran == ["first"]
    assert blocked.bus.state is states.STARTED
    assert not blocked.bus.execv
    assert not blocked.bus.exit_asked


def test_without_a_thread_in_block_a_refused_restart_raises_in_its_caller(bus, journal):
    bus.subscribe("before_restart", lambda: {}["why"])
    bus.start()
    with pytest.raises(ChannelFailures, match="why"):
        bus.restart()
    assert bus.state is states.STARTED
    assert any("before_restart" in line for line in journal.lines)


def test_an_exit_that_is_requested_during_the_dry_run_of_a_restart_is_no_restart(bus):
    bus.subscribe("before_restart", bus.exit)
    bus.subscribe("before_restart", lambda: {}["not called"], 60)
    bus.start()
    bus.restart()
    assert bus.state is states.EXITING
    assert not bus.execv


RESTART = """
import os, sys, threading
from django_wspbus.wspbus import Bus

def tell(what):  # in one piece, as two threads do
    os.write(1, f"{what}\\n".encode())

bus = Bus()
for channel in ("before_restart", "stop", "exit", "execv"):
    bus.subscribe(channel, lambda channel=channel: tell(channel))
bus.start()
if "SECOND" in os.environ:
    tell("second")
    sys.exit(bus.exit())
os.environ["SECOND"] = "1"

def ask():
    bus.restart()
    tell("granted")

asking = threading.Thread(target=ask, daemon=True)
bus.subscribe("stop", lambda: asking.join(20) or tell(asking.is_alive()), 90)
bus.defer(asking.start)
bus.block()
"""


def test_a_call_of_restart_returns_before_the_first_stop_listener_waits_for_it(run):
    lines = run(RESTART).finish()
    assert lines[0] == "before_restart"
    assert sorted(lines[1:3]) == ["granted", "stop"]
    assert lines[3:] == ["False", "exit", "execv", "second", "stop", "exit"]


def test_a_thread_that_is_going_to_block_runs_what_others_ask_for_before(bus, in_thread):
    runs = []
    bus.subscribe("graceful", lambda: runs.append(threading.current_thread()))
    bus.start(blocks=True)
    asking = in_thread(bus.graceful)
    assert bus.wait_for(lambda: runs, DEADLINE)  # which runs what is deferred
    asking.join(DEADLINE)
    assert runs == [threading.main_thread()]
    bus.defer(bus.exit)
    bus.block()


@pytest.mark.parametrize("ended_by", ["failure", "exit"])
def test_a_thread_whose_start_failed_does_not_keep_others_that_ask_waiting(bus, in_thread, ended_by):
    bus.subscribe("start", bus.exit if ended_by == "exit" else lambda: 1 / 0)
    with contextlib.nullcontext() if ended_by == "exit" else pytest.raises(ChannelFailures):
        bus.start(blocks=True)
    runs = []
    bus.subscribe("graceful", lambda: runs.append(threading.current_thread()))
    asking = in_thread(bus.graceful)
    asking.join(DEADLINE)
    assert runs == [asking]


NO_LOG_LISTENER = """
import threading
from django_wspbus.wspbus import Bus

bus = Bus()
bus.subscribe("graceful", lambda: {}["the cause"])
bus.start()
bus.request("graceful", lambda error: bus.exit())
bus.block()
"""


def test_the_failure_of_a_request_is_written_to_stderr_without_a_log_listener(run):
    process = run(NO_LOG_LISTENER)
    assert process.finish() == []
    assert process.err.text.count("KeyError: 'the cause'") == 1


def test_a_request_after_an_exit_has_no_outcome(bus):
    outcomes = []
    bus.start()
    bus.exit()
    bus.request("graceful", outcomes.append)
    bus.wait_for(lambda: False, 0)  # which runs what is deferred
    assert outcomes == []


def test_a_start_that_is_to_outlive_failures_ends_as_started_and_keeps_them(bus, journal):
    bus.subscribe("start", lambda: {}["one"])

    @bus.subscribe("start")
    def refuse():
        raise Refusal("two")

    journal.listen("start")
    bus.start(despite_failures=True)
    assert bus.state is states.STARTED
    assert journal.events == ["start"]
    assert [str(error) for error in bus.failed_start.get_instances()] == ["'one'", "two"]
    bus.stop()
    with pytest.raises(ChannelFailures):
        bus.start()
    assert bus.failed_start is None


def test_a_subclass_may_report_failures_in_its_own_way():
    reported = []

    class Quiet(Bus):
        def report_failure(self, channel, listener, error):
            reported.append((channel, listener, error))

        def report_failed_start(self, error):
            reported.append((self.state, error))

    bus, lines = Quiet(), []
    bus.subscribe("log", lambda msg, level: lines.append(msg))
    listener = bus.subscribe("start", lambda: {}["the cause"])
    with pytest.raises(ChannelFailures, match="the cause") as caught:
        bus.start()
    (error,) = caught.value.get_instances()
    assert reported == [("start", listener, error), (states.STARTING, caught.value)]
    assert "the cause" not in "\n".join(lines)


def test_an_exit_has_a_deadline_if_there_is_a_timeout(bus):
    seen = []
    bus.subscribe("exit", lambda: seen.append(bus.deadline))
    bus.start()
    assert bus.deadline is None
    bus.stop_timeout = 30
    bus.exit()
    assert seen == [bus.deadline]
    assert seen[0] is not None


def test_the_plan_of_a_channel_is_what_a_publication_calls(bus):
    bus.roles = {"worker"}
    late = bus.subscribe("shop.sold", lambda: "late", 90)
    early = bus.subscribe("shop.sold", lambda: "early", 10)
    bus.subscribe("shop.sold", lambda: "elsewhere", role="site")
    assert bus.plan("shop.sold") == (early, late)
    assert bus.plan("without.listeners") == ()
