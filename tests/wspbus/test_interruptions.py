"""SystemExit and KeyboardInterrupt pass through, and leave no bus between two states."""

from __future__ import annotations

import pytest

from django_wspbus.wspbus import states

AT_REST = {states.STOPPED, states.STARTED, states.EXITING}
INTERRUPTIONS = [SystemExit, KeyboardInterrupt]


def raising(error):
    def listener(*args):
        raise error

    return listener


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
@pytest.mark.parametrize("channel", ["start", "stop", "exit", "graceful", "log", "main", "own"])
def test_it_passes_through_publish_and_ends_it(bus, interruption, channel):
    ran = []
    error = interruption(3)
    bus.subscribe(channel, raising(error), 20)
    bus.subscribe(channel, lambda: ran.append("later"), 30)
    with pytest.raises(interruption) as caught:
        bus.publish(channel)
    assert caught.value is error
    assert ran == []


@pytest.mark.parametrize(
    ("code", "expected"), [(0, 70), (None, 70), (3, 3), ("gone", "gone")], ids=["0", "None", "3", "text"]
)
@pytest.mark.parametrize("how", ["publish", "start", "stop", "graceful", "exit"])
def test_a_system_exit_of_0_after_an_earlier_failure_becomes_70(bus, how, code, expected):
    channel = "own" if how == "publish" else how
    bus.subscribe(channel, raising(ValueError()), 10)
    bus.subscribe(channel, raising(SystemExit(code)), 20)
    with pytest.raises(SystemExit) as left:
        bus.publish(channel) if how == "publish" else getattr(bus, how)()
    assert left.value.code == expected
    assert bus.state in AT_REST


def test_a_system_exit_of_0_before_a_failure_of_the_same_exit_becomes_70(bus):
    bus.subscribe("stop", raising(SystemExit(0)))
    bus.subscribe("exit", raising(ValueError()))
    with pytest.raises(SystemExit) as left:
        bus.exit()
    assert left.value.code == 70


def test_a_system_exit_of_0_without_a_failure_stays_0(bus):
    bus.subscribe("stop", raising(SystemExit(0)))
    with pytest.raises(SystemExit) as left:
        bus.exit()
    assert left.value.code == 0


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_from_a_start_listener_the_bus_exits(bus, journal, interruption):
    journal.listen_to_all()
    bus.subscribe("start", raising(interruption()), 10)
    with pytest.raises(interruption):
        bus.start()
    assert bus.state is states.EXITING
    assert journal.events == ["stop", "exit"]
    assert any(line.startswith("Shutting down due to error in start listener:") for line in journal.lines)


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_from_a_stop_listener_the_bus_is_stopped(bus, interruption):
    bus.start()
    bus.subscribe("stop", raising(interruption()))
    with pytest.raises(interruption):
        bus.stop()
    assert bus.state is states.STOPPED


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
@pytest.mark.parametrize("channel", ["stop", "exit"])
def test_during_an_exit_all_the_rest_still_runs_before_it_is_raised(bus, journal, interruption, channel):
    error = interruption()
    bus.start()
    bus.subscribe(channel, raising(error), 10)
    bus.subscribe(channel, raising(KeyboardInterrupt()), 20)
    journal.listen_to_all()
    with pytest.raises(interruption) as caught:
        bus.exit()
    assert caught.value is error
    assert bus.state is states.EXITING
    assert journal.events == ["stop", "exit"]
    assert journal.lines[-1] == "Bus EXITED"


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
@pytest.mark.parametrize("method", ["start", "stop", "graceful", "exit", "restart"])
@pytest.mark.parametrize("state", ["STOPPED", "STARTED"])
def test_from_a_log_listener_at_any_line_the_bus_comes_to_rest(bus, journal, interruption, method, state):
    journal.listen("exit")
    if state == "STARTED":
        bus.start()
    bus.subscribe("log", raising(interruption()))
    with pytest.raises(interruption):
        getattr(bus, method)()
    assert bus.state in AT_REST
    assert ("exit" in journal.events) == (bus.state is states.EXITING)


def test_a_log_listener_that_leaves_over_a_failure_does_not_end_an_exit(bus, journal):
    """Logging the failure of one listener must not cost the others their turn."""

    def leave(msg, level):
        if msg.startswith("Error"):
            raise SystemExit(0)

    bus.subscribe("log", leave)
    bus.subscribe("stop", raising(ValueError()), 10)
    journal.listen_to_all()
    with pytest.raises(SystemExit) as left:
        bus.exit()
    assert left.value.code == 70
    assert journal.events == ["stop", "exit"]


def test_a_pending_exit_runs_although_the_transition_is_interrupted(bus, journal):
    journal.listen_to_all()

    @bus.subscribe("graceful")
    def leave():
        bus.exit()
        raise SystemExit(3)

    bus.start()
    with pytest.raises(SystemExit):
        bus.graceful()
    assert bus.state is states.EXITING
    assert journal.events == ["start", "graceful", "stop", "exit"]


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_from_a_main_listener_block_exits(bus, journal, interruption):
    bus.subscribe("main", raising(interruption()))
    journal.listen_to_all()
    bus.start()
    if interruption is SystemExit:
        with pytest.raises(SystemExit):
            bus.block(interval=0.01)
    else:
        bus.block(interval=0.01)
    assert bus.state is states.EXITING
    assert journal.events == ["start", "stop", "exit"]
    heading = {
        SystemExit: "SystemExit raised: shutting down bus",
        KeyboardInterrupt: "Keyboard Interrupt: shutting down bus",
    }
    assert heading[interruption] in journal.lines


def test_a_system_exit_of_0_in_block_becomes_70_if_an_exit_listener_fails(bus):
    bus.subscribe("exit", raising(ValueError()))
    bus.subscribe("main", raising(SystemExit(0)))
    bus.start()
    with pytest.raises(SystemExit) as left:
        bus.block(interval=0.01)
    assert left.value.code == 70


def test_an_interruption_of_one_exit_is_not_raised_by_the_next(bus):
    leave = bus.subscribe("stop", raising(SystemExit(3)))
    with pytest.raises(SystemExit):
        bus.exit()
    bus.unsubscribe("stop", leave)
    bus.stop()
    bus.exit()
    assert bus.state is states.EXITING
