"""A child as the site process sees it: what its processes say, and in which order it is heard."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence

import pytest

from django_wspbus.children.child import Child
from django_wspbus.children.processes import AdoptedProcess
from django_wspbus.process.messages import Link
from django_wspbus.process.pairs import hand_in
from django_wspbus.process.record import Record
from django_wspbus.process.reports import Died, Failed, Hello, as_message
from django_wspbus.process.switchboard import Switchboard
from django_wspbus.process.worker_orders import Begin, Changed, Retire, read_order
from tests.processes import DEADLINE
from tests.servers.load import await_that


class FakeChild:
    """A child whose process is a program that does nothing, and the test says what it says."""

    def __init__(self, switchboard: Switchboard) -> None:
        self.switchboard = switchboard
        self.process = subprocess.Popen(["sleep", "60"], process_group=0)
        pair, self.pair = socket.socketpair()
        self.links: list[Link] = []
        self._reports = threading.Condition()
        self.seen = Child("shop", self.process, pair, switchboard, lambda link, message: None, self._changed)
        self.seen.listen()

    def _changed(self) -> None:
        with self._reports:
            self._reports.notify_all()

    def say_hello(self, role: str, pid: int, descriptors: Sequence[int] = ()) -> Link:
        link = hand_in(self.pair, "the site")
        self.links.append(link)
        link.send(as_message(Hello(role, pid)), descriptors)
        return link

    def await_reports(self, *, workers: list[int] | None = None, ended: bool = False) -> None:
        """Wait until it is known which workers there are, or that the child has ended, or what it said."""
        seen = self.seen

        def is_known() -> bool:
            if workers is not None:
                return seen.workers == workers
            return seen.ended if ended else seen.is_settled

        with self._reports:
            assert self._reports.wait_for(is_known, DEADLINE)

    def close(self) -> None:
        """End the program and all that it says, as a kill does."""
        self.process.kill()
        self.pair.close()
        for link in self.links:
            link.close()


@pytest.fixture
def child() -> Iterator[FakeChild]:
    switchboard = Switchboard()
    child = FakeChild(switchboard)
    yield child
    child.close()
    child.seen.close()
    switchboard.close()


def test_the_report_of_a_worker_comes_before_the_report_of_its_end(child: FakeChild) -> None:
    master = child.say_hello("master", child.process.pid)
    worker = child.say_hello("worker", 4711)
    child.await_reports(workers=[4711])
    child.switchboard.pause()
    worker.send(as_message(Failed("its start listener failed.", 70)))
    master.send(as_message(Died(4711)))  # of which the link has its turn first
    child.switchboard.resume()
    child.await_reports()

    assert child.seen.why_not_ready(1) == "its start listener failed."
    assert child.seen.progress.status == 70


def test_a_worker_that_died_without_a_word_is_named(child: FakeChild) -> None:
    master = child.say_hello("master", child.process.pid)
    worker = child.say_hello("worker", 4711)
    child.await_reports(workers=[4711])
    worker.close()
    child.await_reports(workers=[])
    master.send(as_message(Died(4711)))
    child.await_reports()

    assert child.seen.why_not_ready(1) == "worker 4711 died before it was ready."
    assert not child.seen.is_ready


def test_only_the_first_of_several_failures_is_reported(child: FakeChild) -> None:
    links = [child.say_hello("worker", pid) for pid in (4711, 4712)]
    child.await_reports(workers=[4711, 4712])
    child.switchboard.pause()
    for number, link in enumerate(links, start=1):
        link.send(as_message(Failed(f"reason {number}", number)))
    child.switchboard.resume()
    child.await_reports()
    child.close()
    child.await_reports(workers=[])

    assert child.seen.why_not_ready(1) == "reason 1"
    assert child.seen.progress.status == 1


def test_it_is_gone_once_its_workers_are_which_outlive_a_killed_master(child: FakeChild) -> None:
    worker = child.say_hello("worker", 4711)
    child.await_reports(workers=[4711])
    child.process.kill()
    child.await_reports(ended=True)

    assert child.seen.how_ended() == "was killed by SIGKILL"
    assert not child.seen.is_gone
    worker.close()
    child.await_reports(workers=[])
    assert child.seen.is_gone


def test_workers_that_listen_get_orders_and_those_that_have_ended_do_not(child: FakeChild) -> None:
    child.say_hello("worker", 4711)
    listeners = [child.say_hello("listener", pid) for pid in (4711, 4712)]
    await_that(lambda: len(child.seen.progress.listeners) == 2)
    assert child.seen.workers == [4711]
    assert child.seen.order_workers(Changed(["views.py"])) == 2
    for link in listeners:
        received = link.receive(DEADLINE)
        assert received is not None
        assert [read_order(message) for message, _ in received] == [Changed(["views.py"])]
    listeners[0].close()
    await_that(lambda: len(child.seen.progress.listeners) == 1)
    assert child.seen.order_workers(Begin()) == 1


def test_an_order_reaches_exactly_the_worker_that_it_is_for(child: FakeChild) -> None:
    links = [child.say_hello("listener", pid) for pid in (4711, 4712)]
    await_that(lambda: len(child.seen.progress.listeners) == 2)

    assert child.seen.order_worker(4712, Retire(1.5, 2.5))
    assert not child.seen.order_worker(4713, Begin())

    received = links[1].receive(DEADLINE)
    assert received is not None
    assert [read_order(message) for message, _ in received] == [Retire(1.5, 2.5)]
    assert links[0].receive(0) == []


def test_the_site_reads_the_record_of_a_worker_until_the_worker_ends(child: FakeChild) -> None:
    record = Record.make(2)
    record.slots.writers[0].begin(1, "GET /", 5.0)
    link = child.say_hello("worker", 4711, [record.descriptor])
    await_that(lambda: 4711 in child.seen.records)

    assert [request.name for request in child.seen.records[4711].slots.in_flight()] == ["GET /"]

    link.close()
    await_that(lambda: child.seen.records == {})
    record.close()


def test_a_further_link_of_a_worker_replaces_its_record_which_is_no_end(child: FakeChild) -> None:
    record, ended = Record.make(2), []
    child.seen._process_ended = lambda child, pid, record: ended.append(pid)
    first = child.say_hello("worker", 4711, [record.descriptor])
    await_that(lambda: 4711 in child.seen.records)
    before = child.seen.records[4711]
    child.say_hello("worker", 4711, [record.descriptor])
    await_that(lambda: len(child.seen.progress.workers) == 2)
    assert before.is_closed
    assert child.seen.records[4711] is not before
    first.close()
    await_that(lambda: child.seen.workers == [4711])
    assert ended == []
    record.close()


def test_a_descriptor_that_is_no_record_is_closed_and_the_messages_count(
    child: FakeChild, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = os.pipe()
    link = child.say_hello("worker", 4711, [writer])
    child.await_reports(workers=[4711])
    link.send(as_message(Hello("listener", 4711)), [])
    link.send({"ping": True}, [writer])
    os.close(writer)
    assert os.read(reader, 1) == b""  # no process holds the other end
    os.close(reader)
    assert child.seen.records == {}
    assert "The record of process 4711 cannot be read." in caplog.text


def test_a_child_that_got_sigterm_ended_as_asked_and_a_killed_one_did_not() -> None:
    ends = {}
    for number in (signal.SIGTERM, signal.SIGKILL):
        switchboard = Switchboard()
        child = FakeChild(switchboard)
        child.process.send_signal(number)
        child.await_reports(ended=True)
        ends[number] = child.seen.ended_cleanly
        child.close()
        child.seen.close()
        switchboard.close()

    assert ends == {signal.SIGTERM: True, signal.SIGKILL: False}


def test_without_a_descriptor_of_the_process_the_end_of_the_pair_is_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)  # as on macOS
    switchboard = Switchboard()
    child = FakeChild(switchboard)
    child.process.kill()
    assert not child.seen.ended
    child.pair.close()
    child.await_reports(ended=True)
    child.seen.close()
    switchboard.close()

    assert child.seen.how_ended() == "was killed by SIGKILL"


def test_an_adopted_process_returns_its_status_to_each_caller_each_time() -> None:
    process = AdoptedProcess(os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {}))

    assert [process.wait(), process.poll(), process.wait()] == [3, 3, 3]


def test_an_adopted_process_that_runs_has_no_status_yet() -> None:
    process = AdoptedProcess(os.posix_spawn("/bin/sh", ["sh", "-c", "exec sleep 60"], {}))
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)

    assert process.wait() == -signal.SIGKILL


def test_an_adopted_process_that_another_caller_has_reaped_has_ended_well() -> None:
    process = AdoptedProcess(os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {}))
    os.waitpid(process.pid, 0)

    assert [process.wait(), process.poll()] == [0, 0]
