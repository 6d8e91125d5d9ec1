"""Signals that arrive in a process of its own, in the middle of anything."""

from __future__ import annotations

import signal

import pytest

SITE = """
import os, signal, sys, threading
from django_wspbus.wspbus import Bus

bus = Bus()
how = sys.argv[1]
signalled = []

def handle(number, frame):
    signalled.append(number)
    if how == "direct":
        bus.exit()
    else:
        bus.defer(bus.exit)

signal.signal(signal.SIGTERM, handle)

def say(*words, to=1):
    # Not print(): a handler that moves the bus may have interrupted one.
    os.write(to, (" ".join(map(str, words)) + os.linesep).encode())

def listen(channel, name):
    bus.subscribe(channel, lambda: say(name))
"""

TWO_TERMS = (
    SITE
    + """
never = threading.Event()

listen("stop", "first stop")

@bus.subscribe("stop")
def slow():
    say("slow begins")
    while len(signalled) < 2:
        never.wait(0.01)
    say("slow ends")

listen("stop", "last stop")
listen("exit", "exit")
bus.start()
say("ready")
bus.block()
say(bus.state.name)
"""
)


@pytest.mark.parametrize("how", ["direct", "deferred"])
def test_two_sigterms_while_a_stop_listener_is_slow_call_each_listener_once(run, how):
    process = run(TWO_TERMS, how)
    process.out.expect("ready")
    process.signal(signal.SIGTERM)
    process.out.expect("slow begins")
    process.signal(signal.SIGTERM)
    expected = ["ready", "first stop", "slow begins", "slow ends", "last stop", "exit", "EXITING"]
    assert process.finish() == expected


DURING_START = (
    SITE
    + """
go_on = threading.Event()

@bus.lifespan
def opened():
    say("opened")
    yield
    say("closed")

@bus.subscribe("start")
def slow():
    say("slow begins")
    while not signalled:
        go_on.wait(0.01)
    say("slow ends")

@bus.lifespan
def never():
    say("never")
    yield
    say("never")

listen("stop", "stop")
listen("exit", "exit")
bus.start()
say(bus.state.name)
bus.block()
say("end")
"""
)


@pytest.mark.parametrize("how", ["direct", "deferred"])
def test_a_sigterm_during_a_start_takes_effect_between_two_listeners(run, how):
    process = run(DURING_START, how)
    process.out.expect("slow begins")
    process.signal(signal.SIGTERM)
    assert process.finish() == [
        *("opened", "slow begins", "slow ends"),
        *("closed", "stop", "exit", "EXITING", "end"),
    ]


IN_WAIT_FOR = (
    SITE
    + """
@bus.subscribe("start")
def wait():
    say("waiting")
    say(bus.wait_for(lambda: False))

listen("start", "never")
listen("exit", "exit")
bus.start()
say(bus.state.name)
bus.block()
"""
)


@pytest.mark.parametrize("how", ["direct", "deferred"])
def test_a_sigterm_during_a_start_ends_a_wait_for_without_a_limit(run, how):
    process = run(IN_WAIT_FOR, how)
    process.out.expect("waiting")
    process.signal(signal.SIGTERM)
    assert process.finish() == ["waiting", "False", "exit", "EXITING"]


@pytest.mark.parametrize("how", ["direct", "deferred"])
def test_a_sigterm_wakes_block_at_once_although_it_does_not_poll(run, how):
    process = run(SITE + 'listen("exit", "exit")\nbus.start()\nsay("ready")\nbus.block(1000)\n', how)
    process.out.expect("ready")
    process.signal(signal.SIGTERM)
    assert process.finish() == ["ready", "exit"]


CTRL_C = (
    SITE
    + """
@bus.subscribe("stop")
def slow():
    say("slow begins")
    bus.wait_for(lambda: False, timeout=30)
    say("never")

listen("stop", "last stop")
listen("exit", "exit")
bus.subscribe("log", lambda msg, level: say(msg, to=2))
bus.start()
bus.defer(lambda: say("ready"))  # in block(), which takes the interrupt
try:
    bus.block()
finally:
    say(bus.state.name)
"""
)


def test_ctrl_c_exits_and_a_second_one_costs_only_the_listener_it_hits(run):
    process = run(CTRL_C, "direct")
    process.out.expect("ready")
    process.signal(signal.SIGINT)
    process.out.expect("slow begins")
    process.signal(signal.SIGINT)
    assert process.finish(-signal.SIGINT) == ["ready", "slow begins", "last stop", "exit", "EXITING"]
    assert "Keyboard Interrupt: shutting down bus" in process.err.lines


STORM = (
    SITE
    + """
counts = {"alarms": 0, "graceful": 0, "stop": 0, "exit": 0}

def count(name):
    counts[name] += 1

for channel in ("graceful", "stop", "exit"):
    bus.subscribe(channel, lambda channel=channel: count(channel))

def renew(number, frame):
    count("alarms")
    bus.graceful()

signal.signal(signal.SIGALRM, renew)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
rounds = 0
while counts["alarms"] < 200:  # anything may be interrupted
    bus.start()
    bus.stop()
    rounds += 1
signal.setitimer(signal.ITIMER_REAL, 0)
assert counts["graceful"] == counts["alarms"] >= 200, counts
assert counts["stop"] == rounds > 0, counts
bus.start()
say("ready")
bus.block()
assert counts["stop"] == rounds + 1, counts
assert counts["exit"] == 1, counts
say(bus.state.name)
"""
)


def test_a_storm_of_signals_that_interrupt_transitions_loses_no_turn(run):
    process = run(STORM, "direct")
    process.out.expect("ready")
    process.signal(signal.SIGTERM)
    assert process.finish() == ["ready", "EXITING"]
