from __future__ import annotations

import pytest

HANGING = """
import signal, sys, threading
from django_wspbus.wspbus import Bus

bus = Bus(stop_timeout=1)
hang = threading.Event()
what = sys.argv[1]

def hang_here():
    print("hangs", flush=True)
    hang.wait()

def hang_in_a_thread():
    thread = threading.Thread(target=hang_here, name="the collector")
    thread.start()

def hang_in_the_log(msg, level):
    if msg == "Bus STOPPED":
        hang_here()

if what in ("stop", "exit"):
    bus.subscribe(what, hang_here)
elif what == "thread":
    bus.subscribe("exit", hang_in_a_thread)
elif what == "log":
    bus.subscribe("log", hang_in_the_log)
bus.subscribe("abort", lambda: print("abort", flush=True))
bus.start()
print("ready", flush=True)
if sys.argv[2] == "thread":
    threading.Thread(target=bus.exit).start()
elif sys.argv[2] == "signal":
    signal.signal(signal.SIGTERM, lambda number, frame: bus.exit())
    signal.raise_signal(signal.SIGTERM)
else:
    bus.defer(bus.exit)
bus.block()
print("never", flush=True)
"""


@pytest.mark.parametrize("asked_by", ["block", "thread", "signal"])
@pytest.mark.parametrize("what", ["stop", "exit"])
def test_a_listener_that_hangs_is_named_with_its_stack_and_the_status_is_70(run, what, asked_by):
    process = run(HANGING, what, asked_by)
    assert process.finish(70) == ["ready", "hangs", "abort"]
    printed = process.err.text
    assert printed.startswith("The bus did not exit within 1 seconds.\n")
    assert f"The {what!r} listener <function hang_here at 0x" in printed
    assert ", in hang_here\n    hang.wait()\n" in printed
    assert ", in wait\n" in printed


@pytest.mark.parametrize("asked_by", ["block", "thread", "signal"])
def test_a_thread_that_hangs_is_named_with_its_stack_and_the_status_is_70(run, asked_by):
    process = run(HANGING, "thread", asked_by)
    assert process.finish(70) == ["ready", "hangs", "abort"]
    printed = process.err.text
    assert printed.startswith("The bus did not exit within 1 seconds.\nThe thread the collector hangs:\n")
    assert ", in hang_here\n    hang.wait()\n" in printed


@pytest.mark.parametrize("asked_by", ["block", "thread"])
def test_a_log_listener_that_hangs_is_shown_in_the_stack_of_the_exit(run, asked_by):
    process = run(HANGING, "log", asked_by)
    assert process.finish(70) == ["ready", "hangs", "abort"]
    assert "The exit hangs:\n" in process.err.text
    assert ", in hang_in_the_log\n" in process.err.text


def test_an_exit_in_time_is_not_ended(run):
    source = HANGING.replace("stop_timeout=1", "stop_timeout=20")
    assert run(source, "nothing", "block").finish() == ["ready", "never"]


IN_WAIT_FOR = """
from django_wspbus.wspbus import Bus

bus = Bus(stop_timeout=0.3)

@bus.subscribe("stop")
def wait_for_the_collector():
    bus.wait_for(lambda: False)

bus.start()
bus.defer(bus.exit)
bus.block()
"""


def test_the_stack_of_a_listener_that_hangs_in_the_bus_begins_with_the_listener(run):
    process = run(IN_WAIT_FOR)
    process.finish(70)
    stack = process.err.text.partition(" hangs:\n")[2].splitlines()
    assert stack[0].endswith(", in wait_for_the_collector")
    assert any(line.endswith(", in wait_for") for line in stack)


ONE_DEADLINE = """
import threading, time
from django_wspbus.wspbus import Bus

bus = Bus(stop_timeout=4)
hang = threading.Event()
bus.subscribe("stop", lambda: hang.wait(3.9))
bus.subscribe("exit", lambda: threading.Thread(target=hang.wait, name="the collector").start())
bus.start()
began = time.monotonic()
bus.subscribe("abort", lambda: print(time.monotonic() - began, flush=True))
bus.exit()
bus.block()
"""


def test_listeners_and_threads_share_one_deadline(run):
    (seconds,) = run(ONE_DEADLINE).finish(70)
    assert 4 <= float(seconds) < 3.9 + 4


def test_a_timeout_does_not_outlive_its_exit(bus):
    bus.stop_timeout = 20
    for _ in range(3):
        bus.start()
        bus.exit()
    bus.block()
