"""The wake-ups of an idle bus, counted by the kernel."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.servers.load import await_that

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts by Linux's /proc")

SITE = """
import signal, sys, threading
from django_wspbus.wspbus import Bus

bus = Bus()
signal.signal(signal.SIGTERM, lambda number, frame: bus.exit())
calls = []

def call():
    calls.append(1)
    if len(calls) == 10:
        print("called ten times", flush=True)

def subscribe():
    bus.subscribe("main", call)

threading.Thread(target=bus.wait, args=(bus.states.EXITING,)).start()
bus.start()
if sys.argv[1] == "before":
    subscribe()
elif sys.argv[1] == "later":
    threading.Timer(0.1, subscribe).start()
bus.defer(lambda: print("ready", flush=True))
bus.block(interval=0.01)
print(len(calls), flush=True)
"""


def switches(pid):
    """How often the threads of a process have gone to sleep so far."""
    lines = []
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines += [line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt")]
    assert lines
    return sum(int(line.split()[1]) for line in lines)


def test_block_without_a_main_listener_costs_no_wake_ups(run):
    process = run(SITE, "none")
    process.out.expect("ready")

    def is_idle():
        before = switches(process.popen.pid)
        process.out.join(1)
        return switches(process.popen.pid) == before

    await_that(is_idle)  # once it has fallen asleep after that line
    process.signal(signal.SIGTERM)
    assert process.finish() == ["ready", "0"]


@pytest.mark.parametrize("when", ["before", "later"])
def test_block_polls_while_there_is_a_listener_on_main(run, when):
    process = run(SITE, when)
    process.out.expect("called ten times")
    process.signal(signal.SIGTERM)
    process.finish()
