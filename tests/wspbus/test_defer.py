from __future__ import annotations

import os
import signal
import threading

import pytest

from django_wspbus.wspbus import states

from .conftest import DEADLINE


def test_what_a_thread_defers_runs_in_the_thread_that_is_in_block(bus, in_thread):
    ran = []

    def defer():
        bus.defer(lambda: ran.append(threading.current_thread()))
        bus.defer(bus.exit)

    bus.start()
    in_thread(defer)
    bus.block(interval=1000)
    assert ran == [threading.main_thread()]
    assert bus.state is states.EXITING


def test_it_runs_in_block_also_where_that_is_not_the_main_thread(bus, in_thread):
    ran = []
    bus.start()
    thread = in_thread(bus.block)
    bus.defer(lambda: ran.append(threading.current_thread()))
    bus.defer(bus.exit)
    thread.join(DEADLINE)
    assert ran == [thread]


def test_deferred_functions_run_in_their_order(bus):
    ran = []
    for number in range(10):
        bus.defer(lambda number=number: ran.append(number))
    bus.defer(bus.exit)
    assert ran == []
    bus.block()
    assert ran == list(range(10))


def test_a_signal_handler_may_defer(bus):
    ran = []

    def handle(number, frame):
        bus.defer(lambda: ran.append(number))
        bus.defer(bus.exit)

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        bus.start()
        sender = threading.Timer(0, os.kill, [os.getpid(), signal.SIGUSR1])
        sender.start()
        bus.block(interval=1000)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    sender.join(DEADLINE)
    assert ran == [signal.SIGUSR1]


def test_an_exception_is_logged_and_the_rest_goes_on(bus, journal):
    def fail():
        raise ValueError("deferred")

    bus.defer(fail)
    bus.defer(bus.exit)
    bus.block()
    assert any("Error in deferred" in line and "ValueError: deferred" in line for line in journal.lines)


def test_an_exception_is_written_to_stderr_without_a_log_listener(bus, capfd):
    def fail():
        raise ValueError("deferred")

    bus.defer(fail)
    bus.defer(bus.exit)
    bus.block()
    printed = capfd.readouterr().err
    assert "Error in deferred" in printed
    assert "Traceback" in printed
    assert "ValueError: deferred" in printed


def test_a_deferred_system_exit_ends_block_after_the_exit(bus, journal):
    def leave():
        raise SystemExit(3)

    journal.listen_to_all()
    bus.start()
    bus.defer(leave)
    with pytest.raises(SystemExit) as left:
        bus.block()
    assert left.value.code == 3
    assert journal.events == ["start", "stop", "exit"]


def test_during_a_start_in_the_main_thread_it_runs_between_two_listeners(bus, journal):
    journal.listen("start", "first")
    bus.subscribe("start", lambda: bus.defer(lambda: journal.events.append("deferred")))
    journal.listen("start", "second")
    bus.start()
    assert journal.events == ["first", "deferred", "second"]


def test_during_a_start_in_another_thread_it_waits_for_the_main_thread(bus, journal, in_thread):
    bus.subscribe("start", lambda: bus.defer(lambda: journal.events.append("deferred")))
    journal.listen("start", "second")
    in_thread(bus.start).join(DEADLINE)
    assert journal.events == ["second"]
    bus.defer(bus.exit)
    bus.block()
    assert journal.events == ["second", "deferred"]


def test_an_exit_that_is_deferred_by_a_start_listener_ends_the_start(bus, journal):
    journal.listen("start", "first")
    bus.subscribe("start", lambda: bus.defer(bus.exit))
    journal.listen("start", "never")
    bus.start()
    assert bus.state is states.EXITING
    assert journal.events == ["first"]
    assert "Bus STARTED" not in journal.lines
