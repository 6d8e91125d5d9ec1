from __future__ import annotations

import pytest

from django_wspbus.wspbus import ChannelFailures, Refusal, states

CHANNELS = ["start", "stop", "exit", "graceful", "log", "main", "shop.order_paid"]
FAILING = [{1}, {0, 1, 2}]


def subscribe_three(bus, channel, failing):
    """Three listeners, of which those of the given numbers fail; return what ran."""
    ran = []

    def subscribe(number):
        @bus.subscribe(channel)
        def listener(*args):
            ran.append(number)
            if number in failing:
                raise ValueError(f"number {number}")
            return number

    for number in range(3):
        subscribe(number)
    return ran


def messages(failures):
    return [str(error) for error in failures.get_instances()]


@pytest.mark.parametrize("failing", FAILING, ids=str)
@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("keywords", [{}, {"level": 20}], ids=["positional", "keyword"])
def test_all_listeners_run_and_their_failures_are_raised_together(bus, channel, failing, keywords):
    ran = []

    def listener(number, level=0):
        ran.append(number)
        if number in failing:
            raise ValueError(f"number {number}")

    for number in range(3):
        bus.subscribe(channel, lambda *args, number=number, **kwargs: listener(number, **kwargs))
    with pytest.raises(ChannelFailures) as caught:
        bus.publish(channel, **keywords)
    assert ran == [0, 1, 2]
    assert messages(caught.value) == [f"number {number}" for number in sorted(failing)]


@pytest.mark.parametrize("failing", FAILING, ids=str)
@pytest.mark.parametrize("channel", [channel for channel in CHANNELS if channel != "log"])
def test_each_failure_is_logged_with_its_listener_and_traceback(bus, journal, channel, failing):
    subscribe_three(bus, channel, failing)
    with pytest.raises(ChannelFailures):
        bus.publish(channel)
    assert len(journal.lines) == len(failing)
    for line, number in zip(journal.lines, sorted(failing), strict=True):
        assert line.startswith(f"Error in {channel!r} listener <function subscribe_three.")
        assert "Traceback (most recent call last):" in line
        assert line.rstrip().endswith(f"ValueError: number {number}")


@pytest.mark.parametrize("failing", FAILING, ids=str)
@pytest.mark.parametrize("method", ["stop", "graceful"])
def test_stop_and_graceful_raise_the_failures_and_end_at_rest(bus, journal, method, failing):
    ran = subscribe_three(bus, method, failing)
    bus.start()
    with pytest.raises(ChannelFailures) as caught:
        getattr(bus, method)()
    assert ran == [0, 1, 2]
    assert messages(caught.value) == [f"number {number}" for number in sorted(failing)]
    assert bus.state is (states.STOPPED if method == "stop" else states.STARTED)


@pytest.mark.parametrize("failing", FAILING, ids=str)
def test_a_start_whose_listeners_fail_runs_them_all_then_exits_and_raises_the_failures(bus, journal, failing):
    ran = subscribe_three(bus, "start", failing)
    journal.listen_to_all()
    with pytest.raises(ChannelFailures) as caught:
        bus.start()
    assert ran == [0, 1, 2]
    assert messages(caught.value) == [f"number {number}" for number in sorted(failing)]
    assert journal.events == ["start", "stop", "exit"]
    assert bus.state is states.EXITING
    headings = [line for line in journal.lines if line.startswith("Shutting down due to error in start")]
    assert len(headings) == 1
    assert all(f"number {number}" in headings[0] for number in failing)


@pytest.mark.parametrize("failing", FAILING, ids=str)
@pytest.mark.parametrize("channel", ["stop", "exit"])
def test_an_exit_whose_listeners_fail_runs_them_all_and_block_leaves_with_70(bus, journal, channel, failing):
    ran = subscribe_three(bus, channel, failing)
    journal.listen("exit", priority=100)
    bus.start()
    bus.exit()
    assert ran == [0, 1, 2]
    assert journal.events == ["exit"]
    assert bus.state is states.EXITING
    with pytest.raises(SystemExit) as left:
        bus.block()
    assert left.value.code == 70


def test_a_start_that_failed_in_a_thread_makes_block_leave_with_70(bus, in_thread):
    @bus.subscribe("start")
    def fail():
        raise ValueError

    def start():
        with pytest.raises(ChannelFailures):
            bus.start()

    in_thread(start)
    with pytest.raises(SystemExit) as left:
        bus.block()
    assert left.value.code == 70


def test_a_failed_round_does_not_spoil_the_next(bus):
    @bus.subscribe("exit")
    def fail():
        bus.unsubscribe("exit", fail)
        raise ValueError

    bus.exit()
    bus.start()
    bus.exit()
    bus.block()


def test_the_failures_of_a_method_that_a_listener_called_do_not_end_the_transition(bus, journal):
    @bus.subscribe("start")
    def call():
        bus.graceful()
        bus.stop()

    subscribe_three(bus, "graceful", {0, 1, 2})
    bus.start()
    assert bus.state is states.STOPPED
    assert len([line for line in journal.lines if "number" in line]) == 3


def test_a_start_that_a_listener_called_and_that_fails_exits_the_bus(bus, capfd):
    bus.subscribe("graceful", bus.start)
    bus.subscribe("start", lambda: 1 / 0)
    bus.graceful()
    assert bus.state is states.EXITING
    assert capfd.readouterr().err.count("ZeroDivisionError") == 1


def test_failures_that_are_raised_to_no_caller_are_written_to_stderr_without_a_log_listener(bus, capfd):
    @bus.subscribe("start")
    def call():
        bus.graceful()

    for channel in ("graceful", "stop"):
        subscribe_three(bus, channel, {1})
    bus.start()
    bus.exit()
    printed = capfd.readouterr().err
    assert "Errors in 'graceful' listeners:\nTraceback" in printed
    assert "Errors in 'stop' listeners:\nTraceback" in printed
    assert printed.count("ValueError: number 1") == 2


def test_a_failing_log_listener_does_not_break_a_transition_and_its_error_is_written_to_stderr(bus, capfd):
    seen = []

    @bus.subscribe("log", priority=10)
    def fail(msg, level):
        raise ValueError("no disk")

    bus.subscribe("log", lambda msg, level: seen.append(msg))
    bus.start()
    bus.exit()
    assert seen == ["Bus STARTING", "Bus STARTED", "Bus STOPPING", "Bus STOPPED", "Bus EXITING", "Bus EXITED"]
    printed = capfd.readouterr().err
    for line in seen:
        assert f"{line}\nA log listener failed:\nTraceback" in printed
    assert printed.count("ValueError: no disk") == 6


def test_a_refusal_is_logged_by_its_message_alone(bus):
    lines = []
    bus.subscribe("log", lambda msg, level: lines.append((msg, level)))

    @bus.subscribe("start")
    def refuse():
        raise Refusal("port 80 is taken", status=3)

    with pytest.raises(ChannelFailures) as caught:
        bus.start()
    assert ("port 80 is taken", 20) in lines
    assert not any("Traceback" in message for message, _ in lines)
    assert max(level for _, level in lines) == 20
    assert caught.value.get_instances()[0].status == 3


def test_failed_and_exit_asked_are_those_since_the_last_start(bus):
    bus.start()
    assert (bus.failed, bus.exit_asked) == (False, False)
    bus.subscribe("exit", lambda: 1 / 0)
    bus.exit()
    assert (bus.failed, bus.exit_asked) == (True, True)
    bus.start()
    assert (bus.failed, bus.exit_asked) == (False, False)
