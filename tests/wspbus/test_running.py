from __future__ import annotations

import threading

import pytest

from django_wspbus.wspbus import ChannelFailures, states

from .conftest import DEADLINE


def test_the_bus_is_started_around_the_block(bus, journal):
    journal.listen_to_all()
    with bus.running() as running:
        assert running is bus
        assert bus.state is states.STARTED
        assert journal.events == ["start"]
    assert bus.state is states.STOPPED
    assert journal.events == ["start", "stop"]


def test_it_stops_after_an_exception_too(bus, journal):
    journal.listen_to_all()
    with pytest.raises(KeyError), bus.running():
        raise KeyError
    assert journal.events == ["start", "stop"]


def test_a_start_that_fails_keeps_the_block_from_running(bus, journal):
    bus.subscribe("start", lambda: 1 / 0)
    journal.listen_to_all()
    with pytest.raises(ChannelFailures), bus.running():
        pytest.fail("ran")
    assert bus.state is states.EXITING
    assert journal.events == ["start", "stop", "exit"]


def test_an_exit_during_the_start_keeps_the_block_from_running(bus, journal):
    bus.subscribe("start", bus.exit)

    with pytest.raises(RuntimeError, match="exited while it was starting"), bus.running("worker"):
        pytest.fail("the block ran")
    assert bus.state is bus.states.EXITING


def test_a_bus_that_exits_meanwhile_is_not_stopped_again(bus, journal):
    journal.listen_to_all()
    with bus.running():
        bus.exit()
    assert bus.state is states.EXITING
    assert journal.events == ["start", "stop", "exit"]


def test_the_given_roles_are_played_meanwhile(bus):
    bus.roles = {"site"}
    calls = []
    bus.subscribe("start", lambda: calls.append("worker"), role="worker")
    with bus.running("worker"):
        assert bus.roles == {"site", "worker"}
    assert bus.roles == {"site"}
    assert calls == ["worker"]


def test_a_bare_bus_plays_all_roles_anyway(bus):
    calls = []
    bus.subscribe("start", lambda: calls.append("site"), role="site")
    with bus.running("worker"):
        assert bus.roles is None
    assert calls == ["site"]


def test_inside_a_bus_that_runs_it_does_nothing(bus, journal):
    journal.listen_to_all()
    with bus.running("site", "worker"):
        with bus.running("site") as inner:
            assert inner is bus
        with bus.running():
            pass
        assert bus.state is states.STARTED
    assert journal.events == ["start", "stop"]


def test_inside_a_bus_that_runs_without_the_role_it_is_an_error(bus):
    bus.roles = {"worker"}
    bus.start()
    with pytest.raises(RuntimeError, match="without the role 'site'"), bus.running("worker", "site"):
        pytest.fail("ran")
    assert bus.state is states.STARTED


def test_inside_a_start_listener_it_does_nothing(bus, journal):
    @bus.subscribe("start")
    def command():
        with bus.running():
            journal.events.append("ran")

    journal.listen_to_all()
    bus.start()
    assert bus.state is states.STARTED
    assert journal.events == ["ran", "start"]


def test_while_another_thread_starts_the_bus_it_waits_for_the_end_of_that(bus, journal, in_thread):
    inside, go_on = threading.Event(), threading.Event()

    @bus.subscribe("start")
    def hold():
        inside.set()
        assert go_on.wait(DEADLINE)
        journal.events.append("started")

    def use():
        with bus.running():
            journal.events.append("ran")

    in_thread(bus.start)
    assert inside.wait(DEADLINE)
    thread = in_thread(use)
    go_on.set()
    thread.join(DEADLINE)
    assert journal.events == ["started", "ran"]
    assert bus.state is states.STARTED


LEAVES = """
import warnings
from django_wspbus.wspbus import Bus

warnings.simplefilter("error")
bus = Bus()
with bus.running():
    print(bus.state.name)
"""


def test_a_process_may_end_after_it_without_a_warning(run):
    process = run(LEAVES)
    assert process.finish() == ["STARTED"]
    assert process.err.text == ""
