from __future__ import annotations

import pytest

from django_wspbus.wspbus import ChannelFailures, states


def make(bus, events, name, priority=None, **options):
    def lifespan():
        events.append(f"{name} starts")
        yield
        events.append(f"{name} stops")

    lifespan.__name__ = lifespan.__qualname__ = name
    return bus.lifespan(priority, **options)(lifespan)


def test_what_comes_before_the_yield_runs_at_start_and_the_rest_at_stop(bus):
    events = []
    make(bus, events, "a")
    assert events == []
    bus.start()
    assert events == ["a starts"]
    bus.stop()
    assert events == ["a starts", "a stops"]


def test_it_may_be_decorated_without_parentheses(bus):
    events = []

    @bus.lifespan
    def lifespan():
        """What it is for."""
        events.append("starts")
        yield
        events.append("stops")

    with bus.running():
        assert events == ["starts"]
    assert events == ["starts", "stops"]
    assert lifespan.__name__ == "lifespan"
    assert lifespan.__doc__ == "What it is for."
    assert "lifespan" in repr(lifespan)


def test_equal_priorities_stop_in_the_reverse_order_of_their_start(bus):
    events = []
    for name in "abc":
        make(bus, events, name)
    with bus.running():
        pass
    assert events == ["a starts", "b starts", "c starts", "c stops", "b stops", "a stops"]


def test_priorities_are_mirrored_at_stop(bus):
    events = []
    for name, priority in (("middle", None), ("last", 90), ("first", 10), ("second", 20.5)):
        make(bus, events, name, priority)
    with bus.running():
        pass
    assert events[:4] == ["first starts", "second starts", "middle starts", "last starts"]
    assert events[4:] == ["last stops", "middle stops", "second stops", "first stops"]


def test_the_priority_of_the_function_is_honoured(bus):
    events = []

    def early():
        events.append("early")
        yield

    early.priority = 10
    make(bus, events, "middle")
    assert bus.lifespan(early).priority == 10
    bus.start()
    assert events == ["early", "middle starts"]


def test_it_goes_around_with_the_bus(bus):
    events = []
    make(bus, events, "a")
    for _ in range(3):
        bus.start()
        bus.stop()
    assert events == ["a starts", "a stops"] * 3


def test_one_that_has_not_started_is_not_undone(bus):
    events = []
    make(bus, events, "a")
    bus.stop()
    bus.exit()
    assert events == []


def test_one_that_has_started_is_not_started_again_by_a_plain_publish(bus):
    events = []
    make(bus, events, "a")
    bus.start()
    bus.publish("start")
    bus.exit()
    bus.publish("stop")
    assert events == ["a starts", "a stops"]


def test_a_start_that_fails_undoes_in_reverse_those_that_had_started(bus):
    events = []
    make(bus, events, "a")

    @bus.lifespan
    def failing():
        events.append("failing starts")
        raise ValueError
        yield

    make(bus, events, "b")
    with pytest.raises(ChannelFailures):
        bus.start()
    assert events == ["a starts", "failing starts", "b starts", "b stops", "a stops"]
    assert bus.state is states.EXITING


def test_an_exit_during_a_start_undoes_only_those_that_had_started(bus):
    events = []
    make(bus, events, "a", 10)
    bus.subscribe("start", bus.exit, 20)
    make(bus, events, "b", 30)
    bus.start()
    assert events == ["a starts", "a stops"]


def test_one_that_fails_at_stop_does_not_keep_the_others_from_stopping(bus):
    events = []
    make(bus, events, "a")

    @bus.lifespan
    def failing():
        yield
        raise ValueError("late")

    make(bus, events, "b")
    bus.start()
    with pytest.raises(ChannelFailures, match="late"):
        bus.stop()
    assert events == ["a starts", "b starts", "b stops", "a stops"]
    bus.stop()  # nothing is left to undo


@pytest.mark.parametrize("yields", [0, 2])
def test_one_that_does_not_yield_once_is_an_error(bus, yields):
    @bus.lifespan
    def wrong():
        yield from range(yields)

    with pytest.raises(ChannelFailures, match="generator didn't"), bus.running():
        pass


def test_it_may_be_unsubscribed_and_subscribed(bus):
    events = []
    lifespan = make(bus, events, "a")
    lifespan.unsubscribe()
    bus.start()
    bus.stop()
    assert events == []
    lifespan.subscribe()
    bus.start()
    bus.stop()
    assert events == ["a starts", "a stops"]


def test_calling_it_calls_the_function(bus):
    @bus.lifespan(priority=10)
    def numbers():
        yield 1

    assert list(numbers()) == [1]


def test_it_runs_where_its_role_is_played(bus):
    events = []
    make(bus, events, "worker")
    make(bus, events, "site", role="site")
    make(bus, events, "any", role="any")
    bus.roles = {"site"}
    with bus.running():
        pass
    assert events == ["site starts", "any starts", "any stops", "site stops"]


def test_an_unknown_role_is_a_value_error(bus):
    with pytest.raises(ValueError, match="'master'"):
        make(bus, [], "a", role="master")
