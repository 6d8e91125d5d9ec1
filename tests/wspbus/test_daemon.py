"""A start listener that forks and goes on in the child, as one that daemonizes does."""

from __future__ import annotations

import os
import signal

import pytest

SITE = """
import atexit, os, signal, sys, threading
from django_wspbus.wspbus import Bus

bus = Bus()
bus.roles = {"site", "worker"}
how = sys.argv[1]

def say(*words):
    print(*words, flush=True)

@bus.lifespan(priority=10)
def opened():
    say("opens")
    yield
    say("closes")

@bus.subscribe("start", priority=20)
def daemonize():
    for _ in range(2):
        if os.fork():
            os._exit(0)
    say("daemon", os.getpid(), bus.state.name)

@bus.subscribe("start", priority=30)
def after():
    say(bus.state.name, sorted(bus.roles))
    if how == "signal":
        signal.signal(signal.SIGTERM, lambda number, frame: bus.exit())
        say("wait")
        say(bus.wait_for(lambda: False, timeout=20))
    elif how == "thread":
        thread = threading.Thread(target=bus.exit)
        thread.start()
        thread.join()
    elif how == "error":
        raise ValueError("in the daemon")

bus.subscribe("start", lambda: say("last", bus.state.name), 90)
bus.subscribe("stop", lambda: say("stop"))
bus.subscribe("exit", lambda: say("exit"), role="site")
bus.start()
say(bus.state.name)
if how == "no exit":
    sys.exit()
bus.defer(bus.exit)
bus.block()
say("end")
"""


def daemon_of(run, how):
    process = run(SITE, how, flags=["-W", "ignore"])
    assert process.popen.wait(20) == 0  # the first parent; its output is also that of the daemon
    return process


def lines_of(process):
    process.out.join(20)
    assert process.out.lines[1].startswith("daemon ")
    assert process.out.lines[1].endswith(" STOPPED")
    return [process.out.lines[0], *process.out.lines[2:]]


BEGINNING = ["opens", "STARTING ['site', 'worker']"]
ENDING = ["stop", "closes", "exit"]


def test_the_daemon_takes_the_place_of_its_parent(run):
    """Its state, its roles, and what its lifespans opened."""
    process = daemon_of(run, "-")
    assert lines_of(process) == [*BEGINNING, "last STARTING", "STARTED", *ENDING, "end"]


def test_a_signal_during_the_rest_of_the_start_ends_it(run):
    process = daemon_of(run, "signal")
    process.out.expect("wait")
    pid = int(process.out.lines[1].split()[1])
    os.kill(pid, signal.SIGTERM)
    assert lines_of(process) == [*BEGINNING, "wait", "False", *ENDING, "EXITING", "end"]


def test_a_thread_may_end_the_rest_of_the_start(run):
    assert lines_of(daemon_of(run, "thread")) == [*BEGINNING, *ENDING, "EXITING", "end"]


def test_an_error_in_the_rest_of_the_start_undoes_it(run):
    process = daemon_of(run, "error")
    assert lines_of(process) == [*BEGINNING, "last STARTING", *ENDING]
    process.err.join(20)
    assert "ValueError: in the daemon" in process.err.text


@pytest.mark.parametrize("warnings", ["error", "default"])
def test_the_end_of_the_daemon_without_an_exit_is_warned_of_and_made_up_for(run, warnings):
    process = run(SITE, "no exit", flags=["-W", warnings, "-W", "ignore::DeprecationWarning"])
    assert lines_of(process) == [*BEGINNING, "last STARTING", "STARTED", *ENDING]
    process.err.join(20)
    assert "The main thread is exiting, but the Bus is in the states.STARTED state" in process.err.text
