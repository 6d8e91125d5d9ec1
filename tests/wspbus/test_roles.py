from __future__ import annotations

from functools import partial

import pytest

PROCESSES = {
    "bare": None,
    "none": set(),
    "site": {"site"},
    "worker": {"worker"},
    "both": {"site", "worker"},
    "leader": {"leader"},
}
OF_A_PROCESS = ["start", "stop", "exit", "graceful", "main"]
EVERYWHERE = ["log", "shop.order_paid"]

# The roles of listeners that are called, by the roles that the process plays.
CALLED = {
    "bare": {"site", "worker", "leader", "any"},
    "none": {"any"},
    "site": {"site", "any"},
    "worker": {"worker", "any"},
    "both": {"site", "worker", "any"},
    "leader": {"leader", "any"},
}


@pytest.mark.parametrize("channel", OF_A_PROCESS + EVERYWHERE)
@pytest.mark.parametrize("process", PROCESSES)
def test_a_listener_is_called_where_its_role_is_played(bus, process, channel):
    bus.roles = PROCESSES[process]
    roles = [None, "site", "worker", "leader", "any"]
    for role in roles:
        bus.subscribe(channel, partial(str, role), role=role)
    default = "worker" if channel in OF_A_PROCESS else "any"
    assert bus.publish(channel) == [str(role) for role in roles if (role or default) in CALLED[process]]


@pytest.mark.parametrize("process", PROCESSES)
def test_a_transition_calls_the_listeners_of_the_roles_that_are_played(bus, journal, process):
    for channel in ("start", "graceful", "stop", "exit"):
        for role in ("site", "worker", "leader", "any"):
            journal.listen(channel, f"{channel} {role}", role=role)
    bus.roles = PROCESSES[process]
    bus.start()
    bus.graceful()
    bus.exit()
    assert journal.events == [
        f"{channel} {role}"
        for channel in ("start", "graceful", "stop", "exit")
        for role in ("site", "worker", "leader", "any")
        if role in CALLED[process]
    ]


@pytest.mark.parametrize("role", ["", "Site", "master", "none"])
def test_an_unknown_role_is_a_value_error(bus, role):
    with pytest.raises(ValueError, match="Unknown role"):
        bus.subscribe("start", len, role=role)
    with pytest.raises(ValueError, match="Unknown role"):
        bus.subscribe("start", role=role)(len)
    with pytest.raises(ValueError, match="Unknown role"):
        bus.roles = {"site", role}
    with pytest.raises(ValueError, match="Unknown role"), bus.running(role):
        pytest.fail("ran")
    assert bus.listeners["start"] == set()
    assert bus.roles is None


def test_any_is_no_role_that_a_process_plays(bus):
    with pytest.raises(ValueError, match="Unknown role 'any'"):
        bus.roles = ["any"]


def test_a_change_of_roles_counts_at_once(bus):
    bus.subscribe("start", lambda: "site", role="site")
    bus.roles = {"worker"}
    assert bus.publish("start") == []
    bus.roles = ["site", "worker"]
    assert bus.roles == {"site", "worker"}
    assert bus.publish("start") == ["site"]
    bus.roles = None
    assert bus.publish("start") == ["site"]


def test_the_decorator_takes_a_role(bus):
    @bus.subscribe("start", role="site")
    def listener():
        return "called"

    bus.roles = {"worker"}
    assert bus.publish("start") == []


def test_roles_do_not_change_the_order(bus):
    for role in ("worker", "site", "any"):
        bus.subscribe("start", lambda role=role: role, role=role)
    bus.subscribe("start", lambda: "first", 10, role="site")
    bus.roles = {"site", "worker"}
    assert bus.publish("start") == ["first", "worker", "site", "any"]


def test_two_ways_to_name_the_same_role_are_two_subscriptions_of_one_callback(bus):
    """The last subscription of a callback counts."""
    bus.subscribe("start", len, role="site")
    bus.subscribe("start", len, role="worker")
    bus.roles = {"worker"}
    assert bus.publish("start", "") == [0]
    bus.roles = {"site"}
    assert bus.publish("start", "") == []
