"""The replacement of workers that the test plays: what the site reads of them, and the orders they get."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from django_wspbus import conf
from django_wspbus.children.retiring.retirement import Retirement
from django_wspbus.process.messages import Link
from django_wspbus.process.record import Record
from django_wspbus.process.reports import Expected, Ready, RetirementPolicy, Standby, Stopped, as_message
from django_wspbus.process.switchboard import Switchboard
from django_wspbus.process.worker_orders import Begin, Order, Retire, read_order
from tests.processes import DEADLINE
from tests.servers.load import await_that

from ..test_child import FakeChild

FIRST = 2**22 + 1
"""The PID of the first worker, which no process of the system has."""


class FakeWorker:
    """A worker with a record, which says what the test makes it say."""

    def __init__(self, child: FakeChild, pid: int) -> None:
        self.pid = pid
        self.record = Record.make(4)
        self.record.threads = 2
        self.link = child.say_hello("worker", pid, [self.record.descriptor])
        self.listener = child.say_hello("listener", pid)
        self._orders: list[Order] = []

    def say(self, report: Standby | Ready | Stopped) -> None:
        self.link.send(as_message(report))

    def order(self) -> Order:
        """Wait for the next order."""
        if not self._orders:  # several may come at once
            received = self.listener.receive(DEADLINE)
            assert received
            self._orders = [read_order(message) for message, _ in received]
        return self._orders.pop(0)

    def has_no_order(self) -> bool:
        return not self._orders and self.listener.receive(0.2) == []

    def begin(self) -> None:
        self.say(Standby(self.pid))
        assert self.order() == Begin()
        self.say(Ready(self.pid))

    def hang(self) -> None:
        """Begin a request long ago."""
        self.record.slots.writers[0].begin(threading.get_ident(), "GET /hang/", time.monotonic() - 100)

    def end(self) -> None:
        self.link.close()
        self.listener.close()


class Site:
    """A child with two workers that serve and one that stands by, and its `Retirement`."""

    def __init__(self, policy: RetirementPolicy) -> None:
        self.log: list[str] = []
        self.switchboard = Switchboard()
        self.child = FakeChild(self.switchboard)
        seen = self.child.seen
        settings = conf.Settings(servers={}, graceful_timeout=100)
        self.retirement = Retirement(
            seen, self.switchboard, settings, lambda message, level: self.log.append(message)
        )
        seen.changed = self.retirement.look
        self.record = Record.make(0)
        self.master: Link = self.child.say_hello("master", self.child.process.pid, [self.record.descriptor])
        self.master.send(as_message(Expected(2, policy)))
        self.workers = [FakeWorker(self.child, pid) for pid in (FIRST, FIRST + 1, FIRST + 2)]
        await_that(lambda: len(seen.progress.listeners) == 3 and len(seen.records) == 4)
        for worker in self.workers[:2]:
            worker.begin()
        await_that(lambda: seen.is_ready)
        seen.serve()
        self.workers[2].say(Standby(FIRST + 2))

    def await_log(self, text: str) -> None:
        await_that(lambda: any(text in line for line in self.log), lambda: self.log)

    def close(self) -> None:
        self.child.close()
        self.child.seen.close()
        self.switchboard.close()
        for record in (self.record, *(worker.record for worker in self.workers)):
            record.close()


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(RetirementPolicy(**request.param))
    yield site
    site.close()


@pytest.mark.parametrize("site", [{"requests": 1}], indirect=True)
def test_exactly_the_worker_with_a_reason_gets_the_order_once_its_successor_is_ready(site: Site) -> None:
    _, old, successor = site.workers
    site.switchboard.pause()  # it sees all three at once
    for number in range(3):
        old.record.slots.writers[0].begin(1, "GET /", float(number))
        old.record.slots.writers[0].end(float(number))
    site.switchboard.resume()

    assert successor.order() == Begin()
    assert old.record.retiring == 1
    assert old.has_no_order()
    successor.say(Ready(successor.pid))
    order = old.order()
    assert isinstance(order, Retire)
    assert order.requests == pytest.approx(time.monotonic() + 100, abs=10)
    assert order.requests < order.listeners
    assert site.workers[0].has_no_order()
    site.await_log(f"Worker {old.pid} of the server 'shop' retires: it has answered 3 requests.")


@pytest.mark.parametrize("site", [{"requests": 1}], indirect=True)
def test_requests_that_a_worker_cuts_off_are_in_the_log(site: Site) -> None:
    _, old, successor = site.workers
    for _ in range(2):
        old.record.slots.writers[0].begin(1, "GET /", 1.0)
        old.record.slots.writers[0].end(1.0)
    assert successor.order() == Begin()
    successor.say(Ready(successor.pid))
    assert isinstance(old.order(), Retire)
    old.say(Stopped(old.pid, [], "GET /slow"))
    site.await_log("(GRACEFUL_TIMEOUT): GET /slow.")


@pytest.mark.parametrize("site", [{"age": 1000}], indirect=True)
def test_a_worker_that_ends_is_replaced_by_the_one_that_stands_by(site: Site) -> None:
    site.workers[0].end()
    assert site.workers[2].order() == Begin()
    assert site.workers[1].has_no_order()


@pytest.mark.parametrize("site", [{"request_timeout": 1.0}], indirect=True)
def test_a_worker_with_only_stuck_requests_left_has_to_end_at_once(site: Site) -> None:
    old, _, successor = site.workers
    old.hang()
    old.record.connections = 1
    old.record.beat = time.monotonic() + 1000  # its main loop runs
    assert successor.order() == Begin()
    site.await_log(f"is stuck in worker {old.pid}: GET /hang/, begun 10")
    successor.say(Ready(successor.pid))
    first, second = old.order(), old.order()
    assert isinstance(first, Retire)
    assert isinstance(second, Retire)
    assert second.requests < first.requests
    assert second.listeners <= time.monotonic() + 1
    site.await_log(
        f"Worker {old.pid} of the server 'shop' is killed: only stuck requests are left: GET /hang/"
    )
    assert sum("is stuck in worker" in line for line in site.log) == 1


@pytest.mark.parametrize("site", [{"request_timeout": 1.0}], indirect=True)
def test_a_worker_with_another_connection_goes_on(site: Site) -> None:
    old, _, successor = site.workers
    old.hang()
    old.record.connections = 2
    old.record.beat = time.monotonic() + 1000
    assert successor.order() == Begin()
    successor.say(Ready(successor.pid))
    assert isinstance(old.order(), Retire)
    assert old.has_no_order()


@pytest.mark.parametrize("site", [{"age": 1000}], indirect=True)
def test_fewer_workers_are_wanted_and_the_oldest_goes_at_once(site: Site) -> None:
    site.child.seen.wanted = 1
    site.retirement.look()

    assert isinstance(site.workers[0].order(), Retire)
    assert site.record.wanted == 1
    assert site.workers[1].has_no_order()


@pytest.mark.parametrize("site", [{"age": 1000}], indirect=True)
def test_the_observers_are_notified_when_a_trouble_begins_or_ends(site: Site) -> None:
    child, seen = site.child.seen, []
    await_that(lambda: FIRST + 2 in child.progress.standby)

    def note() -> None:
        seen.append(child.trouble)

    child.changed = note
    child.trouble = "it was stuck"
    site.retirement.look()

    await_that(lambda: seen[-1:] == [None], lambda: seen)


@pytest.mark.parametrize("site", [{"age": 1000}], indirect=True)
def test_a_worker_without_a_record_goes_as_well_if_fewer_are_wanted(site: Site) -> None:
    site.child.seen.records.pop(FIRST).close()
    site.child.seen.wanted = 1
    site.retirement.look()

    assert isinstance(site.workers[0].order(), Retire)
    assert site.workers[1].has_no_order()
