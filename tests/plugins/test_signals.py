"""Signals as calls of the bus."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_wspbus.plugins import signals
from django_wspbus.plugins.signals import SignalHandler
from django_wspbus.wspbus import Bus
from tests.processes import DEADLINE, ROOT

NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


class Recorder(Bus):
    """A bus that records the channels on which something is published."""

    def __init__(self) -> None:
        super().__init__()
        self.channels: list[str] = []
        self.lines: list[str] = []
        self.subscribe("log", lambda message, level: self.lines.append(message))
        for channel in ("start", "stop", "graceful", "exit", "shop.dump"):
            self.subscribe(channel, lambda channel=channel: self.channels.append(channel))

    def send(self, number: int) -> list[str]:
        """Send a signal to this process; wait until it causes a message; return the channels."""
        del self.channels[:]
        os.kill(os.getpid(), number)
        self.wait_for(lambda: self.channels, timeout=DEADLINE)
        return self.channels


@pytest.fixture
def handle() -> Iterator[Callable[..., Recorder]]:
    """Start a bus with a signal handler; the handlers from before must stand again in the end."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    plugins = []

    def start(handlers: dict[str, str | None] | None = None, **options: Any) -> Recorder:
        bus = Recorder()
        plugins.append(SignalHandler(bus, handlers, **options))
        plugins[-1].subscribe()
        bus.start()
        return bus

    yield start
    for plugin in plugins:
        plugin.unsubscribe()
        plugin.bus.exit()
    assert {number: signal.getsignal(number) for number in NUMBERS} == before


def test_each_signal_calls_a_method_of_the_bus(handle: Callable[..., Recorder]) -> None:
    bus = handle()

    assert bus.send(signal.SIGUSR1) == ["graceful"]
    assert bus.send(signal.SIGTERM) == ["stop", "exit"]
    assert not bus.execv
    assert "Caught signal SIGTERM: exit." in bus.lines


@pytest.mark.parametrize("daemonized", [True, False])
def test_a_hangup_is_a_restart_without_a_terminal(handle: Callable[..., Recorder], daemonized: bool) -> None:
    bus = handle(daemonized=daemonized)

    assert bus.send(signal.SIGHUP) == ["stop", "exit"]
    assert bus.execv is (daemonized or not os.isatty(0))


@pytest.mark.parametrize(("number", "execv"), [(signal.SIGUSR2, True), (signal.SIGINT, False)])
def test_a_restart_and_a_ctrl_c(handle: Callable[..., Recorder], number: int, execv: bool) -> None:
    bus = handle()

    assert bus.send(number) == ["stop", "exit"]
    assert bus.execv is execv


def test_settings_are_merged_by_key_name_channels_and_leave_alone(handle: Callable[..., Recorder]) -> None:
    received = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
    try:
        bus = handle({"SIGUSR1": "shop.dump", "SIGUSR2": None, "SIGHUP": "graceful"})
        assert bus.send(signal.SIGUSR1) == ["shop.dump"]
        assert bus.send(signal.SIGHUP) == ["graceful"]
        os.kill(os.getpid(), signal.SIGUSR2)
        assert bus.wait_for(lambda: received, timeout=DEADLINE)
        assert bus.channels == ["graceful"]  # as before
        assert bus.send(signal.SIGTERM) == ["stop", "exit"]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_an_error_in_a_channel_is_logged_and_ends_nothing(handle: Callable[..., Recorder]) -> None:
    bus = handle({"SIGUSR1": "shop.fail"})
    bus.subscribe("shop.fail", lambda: bus.channels.append("failed") or 1 / 0)

    assert bus.send(signal.SIGUSR1) == ["failed"]
    assert bus.state is bus.states.STARTED
    assert "ZeroDivisionError" in "".join(bus.lines)


def test_a_signal_that_comes_twice_within_a_moment_is_one_request(
    handle: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "SAME_REQUEST", DEADLINE)  # a second request would end the tests
    bus = handle()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)

    assert bus.send(signal.SIGTERM) == ["stop", "exit"]


def test_a_handler_that_python_did_not_install_is_replaced_by_the_default() -> None:
    plugin = SignalHandler(Bus())
    plugin._previous[signal.SIGUSR1] = None
    before = signal.getsignal(signal.SIGUSR1)
    plugin.unsubscribe()

    assert signal.signal(signal.SIGUSR1, before) is signal.SIG_DFL


PROGRAM = """
import os, signal, sys, time
from django_wspbus.plugins.signals import SAME_REQUEST, SignalHandler
from django_wspbus.wspbus import Bus

bus = Bus()
SignalHandler(bus).subscribe()
"""

IGNORED = """
handlers = {"SIGTERM": "shop"} if sys.argv[1] == "named" else None
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
bus.exit()
bus = Bus()
bus.listeners["shop"] = {lambda: print("acted on", flush=True)}
plugin = SignalHandler(bus, handlers)
plugin.subscribe()
bus.start()
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGTERM)
bus.wait_for(lambda: False, 0.1)
plugin.unsubscribe()
print(bus.state.name, signal.getsignal(signal.SIGTERM).name, flush=True)
bus.exit()
"""


@pytest.mark.parametrize(("how", "acted_on"), [("left out", []), ("named", ["acted on"])])
def test_a_signal_that_is_ignored_from_the_start_stays_so_unless_it_is_named(
    how: str, acted_on: list[str]
) -> None:
    assert run(IGNORED, how).stdout.splitlines() == [*acted_on, "STARTED SIG_IGN"]


BLOCKED = """
import threading

bus.exit()
bus = Bus(stop_timeout=0.5)
SignalHandler(bus).subscribe()

def block():
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(60)

channel = sys.argv[1]
bus.listeners["abort"] = {lambda: os.write(1, b"aborted")}
bus.subscribe(channel, block)
bus.start()
bus.graceful()
"""


@pytest.mark.parametrize("channel", ["start", "graceful"])
def test_a_listener_that_keeps_the_bus_from_an_exit_is_named_and_ended(channel: str) -> None:
    ended = run(BLOCKED, channel)

    assert (ended.returncode, ended.stdout) == (70, "aborted")
    assert ended.stderr.startswith("The bus did not exit within 0.5 seconds.\n")
    assert f"The '{channel}' listener <function block at 0x" in ended.stderr
    assert ended.stderr.count("in block") == 1


FORCED = """
def hang():
    time.sleep(2 * SAME_REQUEST)
    if sys.argv[1] == "closed":
        os.close(2)
    os.kill(os.getpid(), signal.SIGINT)
    while True:  # a signal that comes just before the system call does not end a sleep
        time.sleep(0.05)

bus.subscribe("stop", hang)
bus.listeners["abort"] = {lambda: os.write(1, b"aborted")}
if sys.argv[1] == "failing":
    bus.listeners["abort"] = {lambda: 1 / 0}
bus.start()
os.kill(os.getpid(), signal.SIGTERM)
bus.block()
"""


@pytest.mark.parametrize("how", ["open", "closed", "failing"])
def test_a_second_request_ends_the_process_at_once_whatever_fails(how: str) -> None:
    ended = run(FORCED, how)

    assert ended.returncode == 128 + signal.SIGINT
    assert ended.stdout == ("" if how == "failing" else "aborted")
    assert ended.stderr == ("" if how == "closed" else "Caught SIGINT again: ending at once.\n")


FORKED = """
bus.start()
reader, writer = os.pipe()
child = os.fork()
if not child:
    os.write(writer, b".")
    time.sleep(60)
os.read(reader, 1)
os.kill(child, signal.SIGTERM)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(status, bus.state.name)
bus.exit()
"""


def test_a_process_that_is_forked_off_has_the_default_handlers() -> None:
    ended = run(FORKED)

    assert ended.stdout == f"{-signal.SIGTERM} STARTED\n"
    assert ended.returncode == 0


NO_STDIN = """
os.close(0)
print(SignalHandler(bus).handlers["SIGHUP"])
"""


def test_without_any_standard_input_there_is_no_terminal() -> None:
    assert run(NO_STDIN).stdout == "restart\n"


LEAVING = """
import json

if "LEFT" not in os.environ:
    bus.exit()
    bus = Bus()
    plugin = SignalHandler(bus, {"SIGHUP": "shop", "SIGUSR1": "shop"})
    plugin.subscribe()
    bus.listeners["shop"] = {lambda: print("acted on in the first program", flush=True)}
    bus.start()
    os.kill(os.getpid(), signal.SIGHUP)  # noted, and not acted on: no thread is in block()
    reader, blocked = plugin.hand_over()
    if sys.argv[1] == "another thread":
        import threading

        def take():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    else:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
    os.set_inheritable(reader, True)
    os.environ["LEFT"] = json.dumps([reader, blocked])
    os.execv(sys.executable, sys.orig_argv)

bus.exit()
bus = Bus()
bus.subscribe("log", lambda message, level: print(message, flush=True))
handlers = {"SIGHUP": "shop", "SIGUSR1": "shop"}
SignalHandler(bus, handlers, handed_over=json.loads(os.environ["LEFT"])).subscribe()
bus.listeners["shop"] = {lambda: None}
print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), flush=True)
bus.start()
if sys.argv[1] == "another thread":
    os.kill(os.getpid(), signal.SIGTERM)
bus.block()
"""


@pytest.mark.parametrize("how", ["this thread", "another thread"])
def test_signals_that_come_before_and_during_an_exec_are_acted_on_by_the_next_program(how: str) -> None:
    ended = run(LEAVING, how)

    assert ended.stderr == ""
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert lines[0] == "[]"  # none is blocked any more
    caught = [line for line in lines if line.startswith("Caught")]
    assert sorted(caught) == [
        "Caught signal SIGHUP: shop.",
        "Caught signal SIGTERM: exit.",
        "Caught signal SIGUSR1: shop.",
    ]


UNSERVED = """
bus.exit()
bus = Bus()
plugin = SignalHandler(bus, {"SIGHUP": "shop"})
plugin.subscribe()
bus.listeners["shop"] = {lambda: 1 / 0}
bus.start()
os.kill(os.getpid(), signal.SIGHUP)
bus.wait_for(lambda: False, 0.1)
reader, blocked = plugin.hand_over()
print(os.read(reader, 100), sorted(blocked) == sorted(plugin._previous), flush=True)
os._exit(0)
"""


def test_signals_that_were_acted_on_are_not_left_even_if_that_failed() -> None:
    ended = run(UNSERVED)

    assert ended.stdout.splitlines()[-1] == f"{bytes([0])} True"


def run(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + source, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_a_moment_is_shorter_than_anybody_types() -> None:
    assert signals.SAME_REQUEST <= 0.2
