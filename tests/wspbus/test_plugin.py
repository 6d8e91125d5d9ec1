from __future__ import annotations

import pytest

from django_wspbus import Bus, Plugin


@pytest.fixture
def bus():
    bus = Bus()
    yield bus
    bus.listeners.clear()
    bus.roles = None
    bus.exit()


class Recorder(Plugin):
    """Listens to everything that has a name here, and remembers it."""

    def __init__(self, bus, name="plugin"):
        super().__init__(bus)
        self.name = name
        self.calls = []

    def start(self):
        self.calls.append(f"{self.name} start")

    def stop(self):
        self.calls.append(f"{self.name} stop")

    def log(self, message, level):
        self.calls.append(message)

    def main(self):
        return self.name

    main.priority = 10

    def helper(self):
        raise AssertionError("there is no channel of this name")


def test_methods_that_are_named_after_a_channel_listen_on_it(bus):
    plugin = Recorder(bus)
    plugin.subscribe()
    bus.start()
    bus.stop()
    assert plugin.calls == [
        *("Bus STARTING", "plugin start", "Bus STARTED"),
        *("Bus STOPPING", "plugin stop", "Bus STOPPED"),
    ]


def test_a_channel_of_ones_own_counts_if_the_bus_has_it(bus):
    class Shop(Plugin):
        def paid(self, order):
            return order

    Shop(bus).subscribe()
    assert bus.publish("paid", 7) == []
    bus.listeners["paid"] = set()
    Shop(bus).subscribe()
    assert bus.publish("paid", 7) == [7]


def test_an_attribute_that_is_no_method_does_not_listen(bus):
    class Shop(Plugin):
        start = "at nine"
        stop = None

    Shop(bus).subscribe()
    bus.start()
    assert bus.publish("start") == []


def test_unsubscribe_undoes_it_and_may_come_first(bus):
    plugin = Recorder(bus)
    plugin.unsubscribe()
    plugin.subscribe()
    plugin.subscribe()
    assert [len(listeners) for listeners in bus.listeners.values()].count(1) == 4
    plugin.unsubscribe()
    bus.start()
    assert plugin.calls == []
    assert not any(bus.listeners.values())


def test_the_priority_of_a_method_is_its_attribute_and_fifty_otherwise(bus):
    Recorder(bus, "ten").subscribe()
    for priority in (9, 11, 49, 51):
        bus.subscribe("main", lambda priority=priority: priority, priority)

    class Usual(Plugin):
        def main(self):
            return "fifty"

    Usual(bus).subscribe()
    assert bus.publish("main") == [9, "ten", 11, 49, "fifty", 51]


@pytest.mark.parametrize(
    ("role", "called_in"),
    [(None, {"worker"}), ("worker", {"worker"}), ("site", {"site"}), ("any", {"site", "worker"})],
)
@pytest.mark.parametrize("of", ["class", "object"])
def test_the_role_of_a_plugin_is_that_of_its_listeners(bus, role, called_in, of):
    class Shop(Plugin):
        def start(self):
            return "called"

    plugin = Shop(bus)
    (Shop if of == "class" else plugin).role = role
    plugin.subscribe()
    for played in ("site", "worker"):
        bus.roles = {played}
        assert bus.publish("start") == (["called"] if played in called_in else [])


def test_two_objects_of_one_class_are_two_listeners(bus):
    one, two = Recorder(bus, "one"), Recorder(bus, "two")
    one.subscribe()
    two.subscribe()
    assert bus.publish("main") == ["one", "two"]
    one.unsubscribe()
    assert bus.publish("main") == ["two"]


def test_a_subclass_listens_with_what_it_inherits_and_adds(bus):
    class More(Recorder):
        def graceful(self):
            self.calls.append("graceful")

    plugin = More(bus)
    plugin.subscribe()
    bus.graceful()
    assert plugin.calls == ["Bus graceful", "graceful"]
