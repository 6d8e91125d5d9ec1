from __future__ import annotations

import pytest

SITE = """
import sys
from django_wspbus.wspbus import Bus, Refusal

bus = Bus()
for channel in ("stop", "exit"):
    bus.subscribe(channel, lambda channel=channel: print(channel, flush=True))
how = sys.argv[1]
"""

FAILING_START = (
    SITE
    + """
@bus.lifespan
def first():
    print("first opens", flush=True)
    yield
    print("first closes", flush=True)

@bus.lifespan
def second():
    print("second opens", flush=True)
    yield
    print("second closes", flush=True)

@bus.subscribe("start", priority=60)
def fail():
    {}["the cause"]

@bus.subscribe("start", priority=60)
def fail_too():
    raise Refusal("another cause")

if how == "caught":
    try:
        bus.start()
    except Exception:
        pass
else:
    bus.start()
"""
)


@pytest.mark.parametrize(("how", "status"), [("raised", 1), ("caught", 0)])
def test_the_cause_of_a_failed_start_is_on_stderr_without_any_log_listener(run, how, status):
    process = run(FAILING_START, how)
    assert process.finish(status) == [
        "first opens",
        "second opens",
        "second closes",
        "first closes",
        "stop",
        "exit",
    ]
    printed, _, uncaught = process.err.text.partition("Traceback (most recent call last):\n  File")
    assert printed == "Shutting down due to error in start listener:\n"
    for cause in ("KeyError: 'the cause'", "Refusal: another cause"):
        assert cause in uncaught
    assert ", in fail\n" in uncaught
    assert ", in fail_too\n" in uncaught


NO_EXIT = (
    SITE
    + """
bus.start()
if how == "stopped":
    bus.stop()
elif how == "exited":
    bus.exit()
print("end", flush=True)
"""
)


@pytest.mark.parametrize("warnings", ["default", "error"])
@pytest.mark.parametrize(
    ("how", "state", "expected"),
    [
        ("started", "STARTED", ["end", "stop", "exit"]),
        ("stopped", "STOPPED", ["stop", "end", "stop", "exit"]),
    ],
)
def test_a_main_thread_that_ends_without_an_exit_is_warned_of_and_the_bus_exits(
    run, how, state, expected, warnings
):
    process = run(NO_EXIT, how, flags=["-W", warnings])
    assert process.finish() == expected
    assert f"RuntimeWarning: The main thread is exiting, but the Bus is in the states.{state} state; " in (
        process.err.text
    )


def test_a_main_thread_that_ends_after_an_exit_is_not_warned_of(run):
    process = run(NO_EXIT, "exited")
    assert process.finish() == ["stop", "exit", "end"]
    assert process.err.text == ""


NO_BLOCK = """
from django_wspbus.wspbus import Bus

bus = Bus(stop_timeout=5)
bus.subscribe("exit", lambda: print("exit", flush=True))
bus.start()
"""


def test_an_exit_at_the_end_of_the_interpreter_may_have_a_timeout(run):
    """No thread can be started there, from Python 3.12 on."""
    process = run(NO_BLOCK, flags=["-W", "ignore"])
    assert process.finish() == ["exit"]
    assert process.err.text == ""


STATUS = (
    SITE
    + """
def fail():
    raise ValueError("late")

@bus.subscribe("main")
def leave():
    if how == "SystemExit":
        raise SystemExit(0)
    if how == "KeyboardInterrupt":
        raise KeyboardInterrupt
    bus.exit()

bus.subscribe("exit", fail)
bus.start()
bus.block(0.01)
"""
)


@pytest.mark.parametrize("how", ["exit", "SystemExit", "KeyboardInterrupt"])
def test_a_process_in_which_an_exit_listener_failed_exits_with_70_and_the_reason(run, how):
    process = run(STATUS, how)
    assert process.finish(70) == ["stop", "exit"]
    assert process.err.text.startswith("Errors in 'exit' listeners:\nTraceback")
    assert process.err.text.count("ValueError: late") == 1
