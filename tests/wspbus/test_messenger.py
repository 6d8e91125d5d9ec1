from __future__ import annotations

import pytest

from django_wspbus.wspbus import Bus, ChannelFailures, Messenger

BUILT_IN = ["start", "stop", "exit", "graceful", "log", "main"]


def test_a_new_bus_has_the_built_in_channels_without_listeners(bus):
    assert bus.listeners == {channel: set() for channel in BUILT_IN}
    assert isinstance(bus.listeners, dict)


@pytest.mark.parametrize("channel", [*BUILT_IN, "shop.order_paid"])
def test_listeners_run_by_priority_from_0_upwards_and_the_results_follow(bus, channel):
    for priority in (100, 50, 0, 50.5, -1):
        bus.subscribe(channel, lambda priority=priority: priority, priority)
    assert bus.publish(channel) == [-1, 0, 50, 50.5, 100]


@pytest.mark.parametrize("channel", [*BUILT_IN, "shop.order_paid"])
def test_equal_priorities_run_in_the_order_in_which_they_subscribed(bus, channel):
    for number in range(100):
        bus.subscribe(channel, lambda number=number: number, 10 if number >= 50 else None)
    assert bus.publish(channel) == [*range(50, 100), *range(50)]


def test_the_priority_is_50_unless_the_callback_has_one(bus):
    def early():
        return "early"

    early.priority = 49
    bus.subscribe("own", lambda: "51", 51)
    bus.subscribe("own", lambda: "left out")
    bus.subscribe("own", early)
    assert bus.publish("own") == ["early", "left out", "51"]


def test_a_priority_that_is_given_wins_over_that_of_the_callback(bus):
    def listener():
        return "listener"

    listener.priority = 0
    bus.subscribe("own", lambda: "50")
    bus.subscribe("own", listener, 60)
    assert bus.publish("own") == ["50", "listener"]


def test_the_priority_of_a_method_is_honoured(bus):
    class Plugin:
        def start(self):
            return "method"

        start.priority = 75

    bus.subscribe("own", Plugin().start)
    bus.subscribe("own", lambda: "74", 74)
    bus.subscribe("own", lambda: "76", 76)
    assert bus.publish("own") == ["74", "method", "76"]


def test_subscribe_returns_the_callback(bus):
    assert bus.subscribe("own", len) is len


def test_subscribe_without_a_callback_is_a_decorator(bus):
    @bus.subscribe("own")
    def late():
        return "late"

    @bus.subscribe("own", priority=10)
    def early():
        return "early"

    assert (late(), early()) == ("late", "early")
    assert bus.publish("own") == ["early", "late"]


def test_a_callback_that_subscribes_again_is_called_once_with_its_new_priority(bus):
    def first():
        return "first"

    bus.subscribe("own", first, 10)
    bus.subscribe("own", lambda: "second", 20)
    bus.subscribe("own", first, 30)
    assert bus.publish("own") == ["second", "first"]


def test_arguments_reach_the_listeners_by_position_and_by_name(bus):
    bus.subscribe("own", lambda *args, **kwargs: (args, kwargs))
    bus.subscribe("own", lambda a, b=0: (a, b))
    assert bus.publish("own", 1) == [((1,), {}), (1, 0)]
    assert bus.publish("own", 1, b=2) == [((1,), {"b": 2}), (1, 2)]


def test_publishing_without_listeners_has_no_effect(bus):
    names = [f"channel {number}" for number in range(1500)]
    assert [bus.publish(name, 1, two=2) for name in names] == [[]] * 1500
    assert list(bus.listeners) == BUILT_IN


def test_a_channel_that_was_published_without_listeners_calls_one_that_subscribes_later(bus):
    assert bus.publish("own") == []
    bus.subscribe("own", lambda: "here")
    assert bus.publish("own") == ["here"]


def test_unsubscribe_removes_one_listener_of_one_channel(bus):
    for channel in ("own", "other"):
        bus.subscribe(channel, len)
    bus.subscribe("own", repr)
    bus.unsubscribe("own", len)
    assert (bus.publish("own", ""), bus.publish("other", "")) == (["''"], [0])


def test_unsubscribe_of_what_is_not_there_has_no_effect(bus):
    bus.unsubscribe("own", len)
    bus.unsubscribe("start", len)
    assert list(bus.listeners) == BUILT_IN


def test_a_listener_that_comes_back_goes_to_the_end_of_its_priority(bus):
    def first():
        return "first"

    bus.subscribe("own", first)
    bus.subscribe("own", lambda: "second")
    bus.unsubscribe("own", first)
    bus.subscribe("own", first)
    assert bus.publish("own") == ["second", "first"]


def test_a_listener_may_subscribe_and_unsubscribe_while_its_channel_is_published(bus):
    def once():
        bus.unsubscribe("own", once)
        bus.subscribe("own", lambda: "later")
        return "once"

    bus.subscribe("own", once)
    bus.subscribe("own", lambda: "always")
    assert bus.publish("own") == ["once", "always"]
    assert bus.publish("own") == ["always", "later"]


def test_a_listener_may_publish_on_its_own_channel(bus):
    def countdown(number):
        return [number, *bus.publish("own", number - 1)] if number else []

    bus.subscribe("own", countdown)
    assert bus.publish("own", 2) == [[2, [1, []]]]


def test_two_buses_share_nothing(bus):
    other = Bus()
    other.subscribe("own", lambda: "other")
    assert bus.publish("own") == []


def test_a_messenger_alone_publishes_logs_and_plays_roles_without_any_state():
    messenger = Messenger()
    lines = []
    messenger.subscribe("log", lambda msg, level: lines.append((msg, level)))
    messenger.subscribe("sold", lambda number: number, role="site")

    @messenger.subscribe("sold")
    def fail(number):
        raise ValueError("sold out")

    with pytest.raises(ChannelFailures, match="sold out"):
        messenger.publish("sold", 3)
    messenger.unsubscribe("sold", fail)
    assert messenger.publish("sold", 3) == [3]
    messenger.roles = {"worker"}
    assert messenger.publish("sold", 3) == []
    ((message, level),) = lines
    assert message.startswith(f"Error in 'sold' listener {fail!r}\nTraceback")
    assert level == 40
    assert not hasattr(messenger, "state")


def test_subscriptions_are_restored_with_their_priorities_and_roles(bus):
    bus.subscribe("own", lambda: "late", 90)
    early = bus.subscribe("own", lambda: "early", 10)
    elsewhere = bus.subscribe("own", lambda: "elsewhere", role="site")
    before = bus.subscriptions()
    bus.unsubscribe("own", early)
    bus.subscribe("own", elsewhere, role="worker")
    bus.subscribe("new", lambda: "new")
    bus.restore(before)
    bus.roles = {"worker"}
    assert bus.publish("own") == ["early", "late"]
    assert "new" not in bus.listeners
    bus.listeners["own"].discard(early)
    assert bus.publish("own") == ["late"]
