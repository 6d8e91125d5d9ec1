"""The requests that a worker of gunicorn is answering, as the site reads them in its record."""

from __future__ import annotations

import os
import signal
import time

import pytest

from django_wspbus.children.stacks import read_stacks, stack_of
from django_wspbus.process.dump import STACKS_SIGNAL
from django_wspbus.process.record import Record, Stage
from django_wspbus.process.slots import InFlight

from ..clients import ask, connect
from ..conftest import GUNICORN, Later, Shop, configure, release
from ..faults import rows
from .site import OwnSite

CLASSES = {"sync": {}, "gthread": {"threads": 2}, "gevent": {}, "gevent_pywsgi": {}}


def serves(shop: Shop, worker_class: str) -> None:
    if worker_class.startswith("gevent"):
        pytest.importorskip("gevent")
    options = {"worker_class": worker_class, "workers": 1, **CLASSES[worker_class]}
    configure(shop, {"shop": {"BACKEND": GUNICORN, "OPTIONS": options}})


def in_flight(record: Record) -> list[InFlight]:
    return list(record.slots.in_flight())


@pytest.mark.parametrize("worker_class", rows(CLASSES, 2))
def test_a_request_is_in_flight_from_its_head_to_its_last_byte(
    shop: Shop, later: Later, worker_class: str
) -> None:
    serves(shop, worker_class)
    with OwnSite(shop, patch="gevent" if worker_class.startswith("gevent") else None) as site:
        site.child.serve()
        (pid,) = site.expect(1, Stage.SERVING)
        record = site.record(pid)
        began = time.monotonic()
        answer = later(ask, site.address, "/stream/name?secret=1")
        shop.expect_note("name waits")
        (request,) = site.await_that(lambda: in_flight(record))

        assert request.name == "GET /stream/name"
        assert began < request.started < request.progressed < time.monotonic()
        assert request.thread != 0
        os.kill(pid, signal.SIGSTOP)  # the site reads on
        assert in_flight(record) == [request]
        os.kill(pid, signal.SIGCONT)
        release(shop, "name")
        assert answer.result() == (200, "begun, ended")
        site.await_that(lambda: not in_flight(record) and record.slots.answered == 1)
        assert record.unrecorded == 0


def test_a_client_that_hangs_up_or_sends_nonsense_leaves_no_request_in_flight(shop: Shop) -> None:
    serves(shop, "gthread")
    with OwnSite(shop) as site:
        site.child.serve()
        (pid,) = site.expect(1, Stage.SERVING)
        for data in (
            b"nonsense\r\n\r\n",
            b"GET / HTTP/1.1\r\n",
            b"POST /upload/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
        ):
            with connect(site.address) as client:
                client.sendall(data)
        assert ask(site.address)[0] == 200
        site.await_that(lambda: not in_flight(site.record(pid)))
        site.await_that(lambda: site.record(pid).connections == 0)


def dump_of(site: OwnSite, pid: int) -> str:
    """Make a process write its stacks, and return them."""
    record = site.record(pid)
    record.begin_dump()
    assert STACKS_SIGNAL is not None
    os.kill(pid, STACKS_SIGNAL)
    site.await_that(
        lambda: "in wait_for_signals" in record.read_dump() or record.read_dump().count("File") > 5
    )
    return record.read_dump()


def test_the_processes_write_their_stacks_at_a_signal(shop: Shop) -> None:
    serves(shop, "gthread")
    with OwnSite(shop) as site:
        site.child.serve()
        (pid,) = site.expect(1, Stage.SERVING)
        for each, function in ((pid, "in run"), (site.child.pid, "wait_for_signals")):
            assert site.record(each).dumps_stacks
            # Again and again, as the process may not be in its main loop yet.
            site.await_that(lambda each=each, function=function: function in dump_of(site, each))
        assert ask(site.address)[1] == f"{pid} STARTED"


@pytest.mark.extended
@pytest.mark.parametrize("worker_class", ["gevent", "gevent_pywsgi"])
def test_the_stacks_of_greenlets_that_wait_are_shown(shop: Shop, later: Later, worker_class: str) -> None:
    serves(shop, worker_class)
    with OwnSite(shop, patch="gevent") as site:
        site.child.serve()
        (pid,) = site.expect(1, Stage.SERVING)
        record = site.record(pid)
        answers = [later(ask, site.address, f"/held/{name}") for name in ("first", "second")]
        for name in ("first", "second"):
            shop.expect_note(f"{name} waits")
        requests = in_flight(record)
        assert len(requests) == 2

        for _ in range(2):  # the handler stays
            ((_, stacks),) = read_stacks([(pid, record)])
            for request in requests:
                assert " in held\n" in str(stack_of(str(stacks), request.thread)), stacks
        for name in ("first", "second"):
            release(shop, name)
        assert sorted(answer.result()[1] for answer in answers) == ["first answered", "second answered"]
