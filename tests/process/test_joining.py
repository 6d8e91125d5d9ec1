"""A program of PROCESSES that joins its site; here the test plays the site."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_wspbus.process.messages import Link
from django_wspbus.process.pairs import take_in
from django_wspbus.process.record import Record, Stage
from django_wspbus.process.worker_orders import Publish, as_message
from django_wspbus.successor.invocation import SITE

from ..processes import DEADLINE

RUNS = """
from django_wspbus import bus
bus.subscribe("stop", lambda: print("stop listeners ran", flush=True))
bus.subscribe("prices.changed", lambda sku: sku.upper(), role="any")
with bus.running("worker"):
    print("runs", type(bus.site).__name__, flush=True)
    {inside}
print("left", type(bus.site).__name__, flush=True)
"""


class Received:
    """The messages over the links of a process, by the role of each link."""

    def __init__(self, pair: socket.socket) -> None:
        self.pair = pair
        self.links: dict[str, Link] = {}
        self.record: Record | None = None

    def take_link(self) -> dict[str, Any]:
        """Take the next link; return its `Hello`."""
        link = take_in(self.pair)
        assert link is not None
        while not (messages := link.receive(DEADLINE)):
            assert messages is not None
        (hello, descriptors), *_ = messages
        self.links[hello["role"]] = link
        if descriptors:
            self.record = Record(descriptors[0])
        return hello

    def next(self, role: str) -> list[dict[str, Any]] | None:
        """Return the next messages over a link; None at its end."""
        messages = self.links[role].receive(DEADLINE)
        assert messages != []
        return None if messages is None else [message for message, _ in messages]

    def close(self) -> None:
        for link in self.links.values():
            link.close()
        if self.record is not None:
            self.record.close()


@contextmanager
def program(inside: str, address: str = "{fd}:{inode}") -> Iterator[tuple[Any, Received]]:
    ours, theirs = socket.socketpair()
    where = address.format(fd=theirs.fileno(), inode=os.fstat(theirs.fileno()).st_ino)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", RUNS.format(inside=textwrap.dedent(inside))],
        pass_fds=[theirs.fileno()],
        env={**os.environ, SITE: where},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    theirs.close()
    received = Received(ours)
    try:
        with process, ours:
            yield process, received
            assert process.stdin is not None
            process.stdin.close()
            process.wait(DEADLINE)
    finally:
        process.kill()
        received.close()


def test_a_command_that_runs_the_bus_joins_the_site_and_leaves_it() -> None:
    with program("input()") as (process, received):
        assert (received.take_link(), received.take_link()) == (
            {"report": "Hello", "role": "worker", "pid": process.pid},
            {"report": "Hello", "role": "listener", "pid": process.pid},
        )
        assert received.next("worker") == [{"report": "Ready", "pid": process.pid}]
        assert process.stdout.readline() == "runs SiteOfProgram\n"
        assert received.record is not None
        assert (received.record.pid, received.record.stage) == (process.pid, Stage.SERVING)
        assert received.record.dumps_stacks

        received.links["listener"].send(as_message(Publish(7, "prices.changed", ["spade"])))
        (reply,) = received.next("worker") or ()
        assert (reply["report"], reply["number"], reply["results"]) == ("Replied", 7, ["SPADE"])

        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read() == "stop listeners ran\nleft NoSite\n"
        (stopped,) = received.next("worker") or ()
        assert stopped["report"] == "Stopped"
        assert received.next("worker") is None
        assert received.next("listener") is None
    assert process.returncode == 0


def test_sigterm_runs_the_stop_listeners_of_a_command_that_has_joined() -> None:
    with program("input()") as (process, _received):
        assert process.stdout.readline() == "runs SiteOfProgram\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "stop listeners ran\n"
    assert process.returncode == 0


def test_a_handler_of_the_command_stays() -> None:
    # Not by print, which may be at work when the signal comes.
    handler = "import os, signal; signal.signal(15, lambda *_: os.write(1, b'handled\\n')); "
    with program(f"{handler}print('ready', flush=True); input()") as (process, _received):
        assert [process.stdout.readline() for _ in range(2)] == ["runs SiteOfProgram\n", "ready\n"]
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "handled\n"


@pytest.mark.parametrize("address", ["", "nonsense", "1:1", "{fd}:1", "99:{inode}"])
def test_a_variable_that_leads_nowhere_joins_nothing(address: str) -> None:
    with program("pass", address) as (process, _received):
        assert process.stdout.read() == "runs NoSite\nstop listeners ran\nleft NoSite\n"
    assert process.returncode == 0
