"""What is raised for the listeners that failed, and what it shows when it is printed."""

from __future__ import annotations

import traceback
from functools import partial

import pytest

from django_wspbus.wspbus import ChannelFailures


def fill(failures, *errors):
    for error in errors:
        try:
            raise error
        except type(error):
            failures.handle_exception()
    return failures


def test_empty_failures_are_false():
    failures = ChannelFailures()
    assert not failures
    assert failures.get_instances() == []
    assert str(failures) == repr(failures) == ""
    failures.handle_exception()  # while none is handled
    assert not failures


def test_handle_exception_takes_what_is_being_handled():
    errors = [ValueError("one"), KeyError("two")]
    failures = fill(ChannelFailures(), *errors)
    assert failures
    assert failures.get_instances() == errors
    assert str(failures) == repr(failures) == "ValueError('one')\nKeyError('two')"


def test_get_instances_returns_a_list_of_its_own():
    failures = fill(ChannelFailures("why"), ValueError())
    failures.get_instances().clear()
    assert len(failures.get_instances()) == 1
    assert failures.args == ("why",)


def fail(number):
    raise ValueError(f"number {number}")


@pytest.mark.parametrize("method", ["publish", "start", "stop", "graceful"])
def test_a_printed_traceback_shows_every_contained_traceback_once(bus, method):
    channel = "own" if method == "publish" else method
    for number in range(3):
        bus.subscribe(channel, partial(fail, number))
    with pytest.raises(ChannelFailures) as caught:
        bus.publish(channel) if method == "publish" else getattr(bus, method)()
    printed = "".join(traceback.format_exception(caught.value))
    for number in range(3):
        # As the last line of a traceback; the message of the whole holds them as ValueError(...).
        assert printed.count(f"\nValueError: number {number}\n") == 1
    assert printed.count('raise ValueError(f"number {number}")') == 3


@pytest.mark.parametrize("method", ["start", "stop", "graceful"])
def test_an_error_does_not_seem_to_come_from_what_was_handled_when_the_bus_was_called(bus, method):
    @bus.subscribe(method)
    def fail():
        try:
            raise ValueError("its own")
        except ValueError:
            raise KeyError("listener")  # noqa: B904

    try:
        raise RuntimeError("elsewhere")
    except RuntimeError:
        with pytest.raises(ChannelFailures) as caught:
            getattr(bus, method)()
    (error,) = caught.value.get_instances()
    printed = "".join(traceback.format_exception(error))
    assert "its own" in printed
    assert "elsewhere" not in printed
