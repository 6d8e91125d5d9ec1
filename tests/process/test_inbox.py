"""Messages of the fleet are published one after the other, in a thread of the process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections

from django_wspbus.process.inbox import Delivery, Inbox
from django_wspbus.wspbus import Bus

from ..processes import DEADLINE


class Heard:
    """What listeners have heard, and a condition to wait for it."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.threads: set[str] = set()
        self._changed = threading.Condition()

    def note(self, *values: Any) -> None:
        with self._changed:
            self.values.append(values[0] if len(values) == 1 else values)
            self.threads.add(threading.current_thread().name)
            self._changed.notify()

    def expect(self, condition: Callable[[list[Any]], Any]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.values), DEADLINE), self.values


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus()
    bus.start()
    yield bus
    bus.exit()


@pytest.fixture
def heard(bus: Bus) -> Heard:
    heard = Heard()
    bus.subscribe("shop.changed", heard.note)
    bus.subscribe("fleet.gap", heard.note)
    return heard


def put(inbox: Inbox, *values: Any) -> None:
    for value in values:
        inbox.put(Delivery("host:1", "shop.changed", [value]))


def test_messages_are_published_in_their_order_in_one_thread(bus: Bus, heard: Heard) -> None:
    put(Inbox(bus), *range(100))
    heard.expect(lambda values: values == list(range(100)))
    assert heard.threads == {"Fleet delivery"}


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3)], ids=repr)
def test_a_listener_that_fails_ends_no_delivery(bus: Bus, heard: Heard, error: BaseException) -> None:
    def fail(value: Any) -> None:
        raise error

    bus.subscribe("shop.changed", fail, 10)
    put(Inbox(bus), 1, 2)
    bus.unsubscribe("shop.changed", fail)
    put(Inbox(bus), 3)
    heard.expect(lambda values: 3 in values)


def test_slow_listeners_lose_the_oldest_and_learn_how_many_with_earlier_losses(
    bus: Bus, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on, is_slow = threading.Event(), threading.Event()

    def wait(value: Any) -> None:
        is_slow.set()
        goes_on.wait(DEADLINE)

    bus.subscribe("shop.changed", wait, 10)
    inbox = Inbox(bus, most=5)
    put(inbox, "first")
    assert is_slow.wait(DEADLINE)
    inbox.note_missed("host:1", 7)  # this, too, is dropped
    with caplog.at_level(logging.ERROR):
        put(inbox, *range(20))
    goes_on.set()
    heard.expect(lambda values: 19 in values)
    assert heard.values == ["first", ("", 22), 15, 16, 17, 18, 19]
    assert inbox.missed == 22
    assert len(caplog.records) == 1


def test_a_queue_that_stays_full_is_logged_once_and_a_handler_of_the_log_may_broadcast(
    bus: Bus, heard: Heard
) -> None:
    turns, inbox, logged = threading.Semaphore(0), Inbox(bus, most=5), []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(record)
            put(inbox, "of the log")

    def listen(value: Any) -> None:
        turns.acquire(timeout=DEADLINE)
        heard.note(value)

    bus.subscribe("shop.flood", listen)
    logger, handler = logging.getLogger("django_wspbus"), Handler(logging.ERROR)
    logger.addHandler(handler)
    try:
        for number in range(5):
            for value in range(10):
                inbox.put(Delivery("host:1", "shop.flood", [value]))
            turns.release()
            heard.expect(lambda values, number=number: sum(isinstance(each, int) for each in values) > number)
        assert len(logged) == 1
        turns.release(100)
        put(inbox, "all are published")
        heard.expect(lambda values: "all are published" in values)
        while turns.acquire(blocking=False):
            pass
        for value in range(10):
            inbox.put(Delivery("host:1", "shop.flood", [value]))
        assert len(logged) == 2
    finally:
        logger.removeHandler(handler)
        turns.release(100)


def test_messages_wait_for_the_start_listeners_and_none_comes_after_an_exit() -> None:
    bus, heard = Bus(), Heard()
    inbox = Inbox(bus)

    def start() -> None:
        put(inbox, "while it starts")
        bus.subscribe("shop.changed", heard.note)
        heard.note("started")

    bus.subscribe("start", start)
    bus.start()
    heard.expect(lambda values: len(values) == 2)
    assert heard.values == ["started", "while it starts"]
    bus.exit()
    put(inbox, "after the exit")
    bus.start()
    put(inbox, "after another start")
    heard.expect(lambda values: "after another start" in values)
    bus.exit()
    assert "after the exit" not in heard.values


def test_the_first_messages_of_several_threads_all_arrive(bus: Bus, heard: Heard) -> None:
    inbox, at_once = Inbox(bus), threading.Barrier(8)

    def send(value: int) -> None:
        at_once.wait(DEADLINE)
        put(inbox, value)

    threads = [threading.Thread(target=send, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    heard.expect(lambda values: sorted(values) == list(range(8)))
    for thread in threads:
        thread.join(DEADLINE)


def test_a_process_that_leaves_its_site_keeps_no_thread(bus: Bus, heard: Heard) -> None:
    inbox, found = Inbox(bus), []
    bus.subscribe("shop.changed", lambda value: found.append(threading.current_thread()), 10)
    put(inbox, 1)
    heard.expect(lambda values: values == [1])
    inbox.close()
    found[0].join(DEADLINE)
    assert not found[0].is_alive()
    put(inbox, 2)
    assert heard.values == [1]


def test_a_connection_that_fails_to_close_ends_no_delivery(
    bus: Bus, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the connection cannot be closed")

    monkeypatch.setattr(type(connections), "all", fail)
    inbox = Inbox(bus)
    for value in range(3):
        put(inbox, value)
        heard.expect(lambda values, value=value: value in values)
