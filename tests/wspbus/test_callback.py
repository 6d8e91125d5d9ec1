from __future__ import annotations

import threading

import pytest

from django_wspbus.wspbus import ChannelFailures, states

from .conftest import DEADLINE


def test_start_with_callback_calls_it_in_a_thread_once_the_bus_is_started(bus):
    seen = []

    def callback(*args, **kwargs):
        seen.append((bus.state, threading.current_thread(), args, kwargs))

    thread = bus.start_with_callback(callback, (1, 3, 5), {"foo": "bar"})
    thread.join(DEADLINE)
    assert seen == [(states.STARTED, thread, (1, 3, 5), {"foo": "bar"})]
    assert thread.name.startswith("Bus Callback ")


def test_start_with_callback_needs_no_arguments(bus):
    called = threading.Event()
    bus.start_with_callback(called.set)
    assert called.wait(DEADLINE)


def test_a_callback_may_end_what_it_was_started_with(bus):
    bus.start_with_callback(bus.exit)
    bus.block()
    assert bus.state is states.EXITING


def test_a_bus_that_has_exited_before_may_start_with_a_callback(bus):
    bus.exit()
    bus.start_with_callback(bus.exit)
    bus.block()


def test_a_start_that_fails_ends_the_thread_without_a_call(bus):
    before = set(threading.enumerate())
    bus.subscribe("start", lambda: 1 / 0)
    with pytest.raises(ChannelFailures):
        bus.start_with_callback(pytest.fail)
    for thread in set(threading.enumerate()) - before:
        thread.join(DEADLINE)
    assert set(threading.enumerate()) <= before


def test_an_exit_during_the_start_ends_the_thread_without_a_call(bus):
    bus.subscribe("start", bus.exit)
    thread = bus.start_with_callback(pytest.fail)
    thread.join(DEADLINE)
    assert not thread.is_alive()
