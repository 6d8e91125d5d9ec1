from __future__ import annotations

import pytest

from django_wspbus.wspbus import Bus, Messenger


def test_a_set_that_replaces_an_entry_counts_at_once(bus):
    """CherryPy assigns empty sets to ``engine.listeners``."""
    bus.subscribe("own", lambda: "old")
    assert bus.publish("own") == ["old"]
    bus.listeners["own"] = set()
    assert bus.publish("own") == []
    bus.subscribe("own", lambda: "new")
    assert bus.publish("own") == ["new"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda listeners: listeners.__delitem__("own"), []),
        (lambda listeners: listeners.pop("own"), []),
        (lambda listeners: listeners.clear(), []),
        (lambda listeners: listeners.popitem(), []),
        (lambda listeners: listeners.update(own={tuple}), [()]),
        (lambda listeners: listeners.__ior__({"own": {tuple}}), [()]),
        (lambda listeners: listeners.setdefault("own", set()), [[]]),
    ],
)
def test_each_way_to_change_an_entry_counts_at_once(bus, change, expected):
    bus.subscribe("own", list)
    assert bus.publish("own") == [[]]
    change(bus.listeners)
    assert bus.publish("own") == expected


def test_callables_that_came_with_an_assigned_set_have_their_own_priority(bus):
    class Listener:
        def __init__(self, priority):
            self.priority = priority

        def __call__(self):
            return self.priority

    bus.listeners["own"] = {Listener(60), Listener(10)}
    bus.subscribe("own", lambda: 50)
    assert bus.publish("own") == [10, 50, 60]


def first():
    return "first"


def second():
    return "second"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda own: own.add(second), ["first", "second"]),
        (lambda own: own.update([second]), ["first", "second"]),
        (lambda own: own.__ior__({second}), ["first", "second"]),
        (lambda own: own.symmetric_difference_update([first, second]), ["second"]),
        (lambda own: own.__ixor__({first, second}), ["second"]),
        (lambda own: own.discard(first), []),
        (lambda own: own.remove(first), []),
        (lambda own: own.pop(), []),
        (lambda own: own.clear(), []),
        (lambda own: own.difference_update([first]), []),
        (lambda own: own.__isub__({first}), []),
        (lambda own: own.intersection_update([second]), []),
        (lambda own: own.__iand__({second}), []),
    ],
)
@pytest.mark.parametrize("origin", ["subscribe", "setdefault", "assigned", "update"])
def test_each_way_to_change_a_set_in_place_counts_at_once(bus, origin, change, expected):
    own = set()
    if origin == "assigned":
        bus.listeners["own"] = own
    elif origin == "update":
        bus.listeners.update(own=own)
    elif origin == "setdefault":
        own = bus.listeners.setdefault("own", own)
    bus.subscribe("own", first)
    assert bus.listeners["own"] is own or origin == "subscribe"
    assert bus.publish("own") == ["first"]
    change(bus.listeners["own"])
    assert sorted(bus.publish("own")) == expected


def test_a_program_may_go_on_changing_the_set_that_it_has_assigned(bus):
    own = set()
    bus.listeners["own"] = own
    assert bus.publish("own") == []
    own.add(first)
    assert bus.publish("own") == ["first"]
    bus.subscribe("own", second)
    assert own == {first, second}
    own.discard(first)
    assert bus.publish("own") == ["second"]
    assert bus.listeners == {**Bus().listeners, "own": {second}}


@pytest.mark.parametrize("operator", ["|=", "-="])
def test_a_set_may_be_changed_by_an_augmented_assignment_of_its_entry(bus, operator):
    bus.subscribe("own", first)
    assert bus.publish("own") == ["first"]
    if operator == "|=":
        bus.listeners["own"] |= {second}
    else:
        bus.listeners["own"] -= {first}
    assert len(bus.publish("own")) == (2 if operator == "|=" else 0)


def test_a_set_that_fails_to_change_counts_as_it_is(bus):
    bus.subscribe("own", first)
    assert bus.publish("own") == ["first"]
    with pytest.raises(TypeError):
        bus.listeners["own"].update([second, []])
    assert set(bus.publish("own")) == {"first", "second"}


def test_a_copy_of_a_set_belongs_to_no_channel(bus):
    bus.subscribe("own", first)
    copy = bus.listeners["own"].copy()
    copy.add(second)
    assert copy == {first, second}
    assert bus.publish("own") == ["first"]


def test_setdefault_keeps_the_listeners_that_are_there(bus):
    bus.subscribe("own", first)
    assert bus.listeners.setdefault("own", {second}) == {first}
    assert bus.listeners.setdefault("new", {second}) == {second}
    assert bus.publish("new") == ["second"]


def test_the_sets_of_a_messenger_without_states_report_their_changes():
    messenger = Messenger()
    assert messenger.publish("start") == []
    messenger.listeners["start"].add(first)
    assert messenger.publish("start") == ["first"]
