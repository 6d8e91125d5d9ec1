"""A forked child inherits the listeners, and nothing of the state: whatever its parent was doing."""

from __future__ import annotations

import pytest

# The child prints what it finds, goes around once on its own, and leaves by the end of the script.
SITE = """
import os, sys, threading
from django_wspbus.wspbus import Bus, states

bus = Bus()
parent = os.getpid()

def say(*words):
    print("parent" if os.getpid() == parent else "child", *words, flush=True)

for channel in ("start", "stop", "exit"):
    bus.subscribe(channel, lambda channel=channel: say(channel))

@bus.lifespan(priority=10)
def opened():
    try:
        say("opens")
        yield
    finally:
        say("closes")

def in_child():
    say("is", bus.state.name, len(bus.listeners["start"]))
    thread = threading.Thread(target=bus.start)  # for which a lock that was left held would count
    thread.start()
    thread.join(10)
    say("is", bus.state.name)
    bus.exit()
    bus.block()

def fork():
    pid = os.fork()
    if pid == 0:
        in_child()
        leave()
    assert os.waitpid(pid, 0)[1] == 0
    return pid

leave = {
    "sys.exit": lambda: sys.exit(0),
    "os._exit": lambda: os._exit(0),
}[sys.argv[2] if len(sys.argv) > 2 else "sys.exit"]
"""

CHILD = ["is STOPPED 2", "opens", "start", "is STARTED", "stop", "closes", "exit"]

AT_REST = (
    SITE
    + """
bus.start()
{"STARTED": lambda: None, "STOPPED": bus.stop, "EXITING": bus.exit}[sys.argv[1]]()
fork()
say(bus.state.name)
bus.exit()
"""
)


def of(who, lines):
    return [line.removeprefix(f"{who} ") for line in lines if line.startswith(who)]


@pytest.mark.parametrize("leave", ["sys.exit", "os._exit"])
@pytest.mark.parametrize("state", ["STARTED", "STOPPED", "EXITING"])
def test_a_fork_in_a_state_at_rest(run, state, leave):
    process = run(AT_REST, state, leave)
    lines = process.finish()
    assert of("child", lines) == CHILD
    assert (
        of("parent", lines)
        == {
            "STARTED": ["opens", "start", "STARTED", "stop", "closes", "exit"],
            "STOPPED": ["opens", "start", "stop", "closes", "STOPPED", "stop", "exit"],
            "EXITING": ["opens", "start", "stop", "closes", "exit", "EXITING"],
        }[state]
    )
    assert process.err.text == ""


IN_A_LISTENER = (
    SITE
    + """
@bus.subscribe(sys.argv[1], priority=70)
def fork_once():
    bus.unsubscribe(sys.argv[1], fork_once)
    say("in", bus.state.name)
    fork()

bus.start()
bus.graceful()
if len(sys.argv) > 3:
    bus.stop()
bus.exit()
say(bus.state.name)
"""
)


@pytest.mark.parametrize("leave", ["sys.exit", "os._exit"])
@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        ("start", ["opens", "start", "in STARTING", "stop", "closes", "exit", "EXITING"]),
        ("graceful", ["opens", "start", "in STARTED", "stop", "closes", "exit", "EXITING"]),
        ("stop", ["opens", "start", "stop", "in STOPPING", "closes", "exit", "EXITING"]),
        ("exit", ["opens", "start", "stop", "closes", "exit", "in EXITING", "EXITING"]),
    ],
)
def test_a_fork_in_a_listener_whose_child_leaves_there(run, channel, expected, leave):
    """Neither its SystemExit nor its end runs what is left of the parent's transition."""
    process = run(IN_A_LISTENER, channel, leave)
    lines = process.finish()
    child = of("child", lines)
    if channel == "start":
        child[0] = CHILD[0]  # the listener that forks is gone, the two of SITE are there
    assert child == CHILD
    assert of("parent", lines) == expected
    assert process.err.text == ""


def test_a_fork_in_a_listener_of_a_plain_stop(run):
    process = run(IN_A_LISTENER, "stop", "sys.exit", "stop first")
    lines = process.finish()
    assert of("child", lines) == CHILD
    assert of("parent", lines) == [
        *("opens", "start", "stop", "in STOPPING", "closes", "stop", "exit", "EXITING"),
    ]


BESIDE_A_TRANSITION = (
    SITE
    + """
inside, go_on = threading.Event(), threading.Event()

@bus.subscribe(sys.argv[1], priority=90)
def hold():
    if os.getpid() == parent:
        inside.set()
        assert go_on.wait(20)

thread = threading.Thread(target=getattr(bus, sys.argv[1]))
thread.start()
assert inside.wait(20)
fork()
go_on.set()
thread.join()
bus.exit()
say(bus.state.name)
"""
)


@pytest.mark.parametrize("channel", ["start", "graceful", "stop", "exit"])
def test_a_fork_while_another_thread_holds_the_transition(run, channel):
    process = run(BESIDE_A_TRANSITION, channel, "os._exit", flags=["-W", "ignore"])
    lines = process.finish()
    child = of("child", lines)
    assert child[0].startswith("is STOPPED")
    assert child[1:] == CHILD[1:]
    assert of("parent", lines)[-1] == "EXITING"


BLOCKED = (
    SITE
    + """
def fork_in_a_thread():
    bus.wait(states.STARTED)
    fork()
    bus.exit()

thread = threading.Thread(target=fork_in_a_thread)
thread.start()
bus.start()
bus.block()
say(bus.state.name)
"""
)


def test_a_fork_in_a_thread_while_the_main_thread_is_in_block(run):
    process = run(BLOCKED, "-", "os._exit", flags=["-W", "ignore"])
    lines = process.finish()
    assert of("child", lines) == CHILD
    assert of("parent", lines) == ["opens", "start", "stop", "closes", "exit", "EXITING"]


ATEXIT = """
import os, sys
from django_wspbus.wspbus import Bus

bus = Bus()
bus.subscribe("exit", lambda: print("exit", os.getpid() == parent, flush=True))
parent = os.getpid()
bus.start()
if os.fork():
    os.wait()
    print("parent ends", flush=True)
"""


def test_the_hook_for_the_end_of_the_process_runs_in_the_parent_alone(run):
    process = run(ATEXIT, flags=["-W", "default"])
    assert process.finish() == ["parent ends", "exit True"]
    assert process.err.text.count("RuntimeWarning: The main thread is exiting") == 1


ROLES = """
import os
from django_wspbus.wspbus import Bus

bus = Bus()
bus.roles = {"site", "worker"}
bare = Bus()
if os.fork() == 0:
    print(set(bus.roles), bare.roles, flush=True)
    os._exit(0)
os.wait()
print(sorted(bus.roles), bare.roles, flush=True)
"""


def test_a_child_plays_no_role_until_it_is_given_one(run):
    assert run(ROLES).finish() == ["set() None", "['site', 'worker'] None"]


DESPITE_FAILURES = """
import os, sys
from django_wspbus.wspbus import Bus

bus = Bus()

@bus.subscribe("start")
def fork():
    pid = os.fork()
    if pid == 0:
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    sys.exit("the parent")

bus.start(despite_failures=True)
print(bus.state.name, bus.failed_start, flush=True)
bus.exit()
"""


def test_a_start_despite_failures_keeps_the_process_from_its_end_and_not_a_forked_child(run):
    left, state = run(DESPITE_FAILURES).finish()
    assert left == "3"
    assert state.startswith("STARTED RuntimeError(")
    assert "has tried to end the process: SystemExit('the parent')" in state
