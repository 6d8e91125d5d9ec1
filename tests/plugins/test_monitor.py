from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from django.db import connections

from django_wspbus import Bus, every
from django_wspbus.plugins.monitor import BackgroundTask, Monitor
from django_wspbus.wspbus import states
from tests.processes import DEADLINE, run

SOON = 0.01


@pytest.fixture
def bus():
    bus = Bus()
    bus.lines = []
    bus.subscribe("log", lambda message, level: bus.lines.append((level, message)))
    yield bus
    if bus.state is not states.EXITING:
        bus.exit()


@pytest.fixture
def process_bus(bus, monkeypatch):
    """Make ``every`` subscribe to a bus of this test."""
    monkeypatch.setattr("django_wspbus.process.bus.bus", bus)
    return bus


class Calls:
    """A callback that remembers when it was called, and may do something else first."""

    def __init__(self, first=lambda: None):
        self.first = first
        self.times = []
        self.changed = threading.Condition()

    def __call__(self):
        try:
            self.first()
        finally:
            with self.changed:
                self.times.append(time.monotonic())
                self.changed.notify_all()

    def expect(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.times) >= count, DEADLINE), self.times


def fail():
    raise RuntimeError("this call")


# When it is called


def test_it_is_called_every_period_from_one_period_after_the_start(bus):
    calls = Calls()
    Monitor(bus, calls, 0.05).subscribe()
    before = time.monotonic()
    bus.start()
    calls.expect(3)
    bus.stop()
    assert calls.times[0] - before >= 0.05
    assert calls.times[2] - before >= 0.15


def test_it_is_not_called_before_the_start_nor_after_the_stop(bus):
    calls = Calls()
    monitor = Monitor(bus, calls, SOON)
    monitor.subscribe()
    assert monitor.thread is None
    bus.start()
    calls.expect(1)
    bus.stop()
    count = len(calls.times)
    assert monitor.thread is None
    time.sleep(5 * SOON)
    assert len(calls.times) == count


def test_a_stop_without_a_start_is_none(bus):
    monitor = Monitor(bus, print, SOON)
    monitor.stop()
    assert monitor.thread is None


def test_a_second_start_makes_no_second_thread(bus):
    monitor = Monitor(bus, print, 3600)
    monitor.start()
    thread = monitor.thread
    monitor.start()
    assert monitor.thread is thread
    monitor.stop()


def test_it_is_called_again_after_another_start(bus):
    calls = Calls()
    Monitor(bus, calls, SOON).subscribe()
    for _ in range(3):
        bus.start()
        calls.expect(len(calls.times) + 2)
        bus.stop()


def test_one_that_takes_longer_than_the_period_delays_the_next_and_none_is_made_up_for(bus):
    calls = Calls(lambda: time.sleep(0.1))
    Monitor(bus, calls, 0.02).subscribe()
    bus.start()
    calls.expect(4)
    bus.stop()
    gaps = [after - before for before, after in zip(calls.times, calls.times[1:], strict=False)]
    assert len(gaps) >= 3
    assert min(gaps) >= 0.1


@pytest.mark.parametrize("period", [0, -1, float("nan"), float("inf"), 1e20, "60", True, print])
def test_a_period_that_is_no_number_of_seconds_is_a_value_error(process_bus, period):
    with pytest.raises(ValueError, match="A period must be a number of seconds above 0"):
        Monitor(process_bus, print, period)
    with pytest.raises(ValueError, match="A period"):
        BackgroundTask(process_bus, period, print)
    with pytest.raises(ValueError, match="A period"):
        every(period)
    assert process_bus.listeners["start"] == set()


async def wait_for_it(): ...


def take(argument): ...


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (7, "@every takes a function, and 7 is none"),
        (wait_for_it, r"@every: wait_for_it \(.*test_monitor.py:\d+\) is async or a generator"),
        (take, "@every calls without arguments; take .*: missing a required argument: 'argument'"),
    ],
)
def test_a_function_that_cannot_be_called_at_intervals_is_a_type_error(process_bus, function, sentence):
    with pytest.raises(TypeError, match=sentence):
        every(60)(function)
    assert process_bus.listeners["start"] == set()


# What fails


def test_one_that_fails_is_logged_by_name_and_the_next_comes(bus):
    calls = Calls(fail)
    Monitor(bus, calls, SOON, name="Cleaner").subscribe()
    bus.start()
    calls.expect(3)
    bus.stop()
    errors = [message for level, message in bus.lines if level == 40]
    assert len(errors) == len(calls.times)
    assert errors[0].startswith("Error in Cleaner\nTraceback")
    assert errors[0].rstrip().endswith("RuntimeError: this call")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException()])
def test_one_that_would_end_its_thread_is_logged_and_the_next_comes(bus, error):
    def end():
        raise error

    calls = Calls(end)
    Monitor(bus, calls, SOON, name="Cleaner").subscribe()
    bus.start()
    calls.expect(2)
    bus.stop()
    errors = [message for level, message in bus.lines if level == 40]
    assert len(errors) == len(calls.times)
    assert f"\n{type(error).__name__}" in errors[0]


def test_a_log_listener_that_fails_in_this_way_does_not_end_the_calls_either(bus):
    calls = Calls(fail)
    bus.subscribe("log", lambda message, level: sys.exit(3) if level == 40 else None)
    Monitor(bus, calls, SOON).subscribe()
    bus.start()
    calls.expect(3)
    bus.stop()


# The stop


def test_a_stop_does_not_wait_for_the_period_to_end(bus):
    Monitor(bus, print, 3600).subscribe()
    bus.start()
    before = time.monotonic()
    bus.stop()
    assert time.monotonic() - before < DEADLINE


def test_a_call_that_is_under_way_is_waited_for(bus):
    under_way, events = threading.Event(), []

    def callback():
        under_way.set()
        time.sleep(0.2)
        events.append("done")

    Monitor(bus, callback, SOON).subscribe()
    bus.subscribe("stop", lambda: events.append("stop"), 50)
    bus.start()
    assert under_way.wait(DEADLINE)
    bus.stop()
    assert events == ["done", "stop"]  # the call was complete before the listener closed its resources


def test_a_call_that_exits_the_bus_is_not_waited_for_by_itself(bus):
    started = threading.Event()

    def leave():
        assert started.wait(DEADLINE)
        bus.exit()

    calls = Calls(leave)
    monitor = Monitor(bus, calls, SOON)
    monitor.subscribe()
    bus.start()
    thread = monitor.thread
    started.set()
    bus.block()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert bus.state is states.EXITING
    assert len(calls.times) == 1


def test_a_task_that_exits_the_bus_while_the_main_thread_stops_delays_no_thread(bus):
    stopping = threading.Event()

    def callback():
        assert stopping.wait(DEADLINE)
        bus.exit()

    Monitor(bus, callback, SOON).subscribe()
    bus.subscribe("stop", stopping.set, 0)
    bus.start()
    bus.exit()
    bus.block()
    assert bus.state is states.EXITING


def test_it_keeps_no_process_alive(bus):
    monitor = Monitor(bus, print, 3600)
    monitor.start()
    assert monitor.thread.daemon
    monitor.stop()


def test_a_forked_child_that_starts_its_bus_has_a_thread_of_its_own(project):
    project.write(
        "fork.py",
        """
import os
import threading

from django_wspbus import Bus
from django_wspbus.plugins.monitor import Monitor

bus = Bus()
called = threading.Event()
Monitor(bus, called.set, 0.05).subscribe()
bus.start()
child = os.fork()
if child == 0:
    called.clear()
    bus.start()
    status = 0 if called.wait(10) else 1
    bus.exit()
    os._exit(status)
_, status = os.waitpid(child, 0)
bus.exit()
raise SystemExit(os.waitstatus_to_exitcode(status))
""",
    )
    with project.start("fork.py", PYTHONWARNINGS="default") as program:
        assert program.wait() == 0


# Database connections


def test_old_database_connections_are_closed_around_each_call(project):
    project.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}})
    project.write(
        "database.py",
        """
import threading

import django
from django.db import connection

from django_wspbus import Bus
from django_wspbus.plugins.monitor import Monitor

django.setup()
used = []
enough = threading.Event()


def query():
    assert connection.connection is None  # that of the last call is closed
    connection.ensure_connection()
    used.append(connection.connection)
    if len(used) == 3:
        enough.set()


bus = Bus()
bus.subscribe("log", lambda message, level: print(level, message))
Monitor(bus, query, 0.01).subscribe()
with bus.running():
    assert enough.wait(10)
""",
    )
    ended = run([sys.executable, "database.py"], env=os.environ | project.environment, cwd=project.root)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Bus STOPPED" in ended.stdout
    assert "Error in" not in ended.stdout


def test_a_connection_that_fails_to_close_does_not_end_the_calls(bus, monkeypatch):
    calls = Calls()
    monkeypatch.setattr(type(connections), "all", lambda *args, **kwargs: fail())
    Monitor(bus, calls, SOON).subscribe()
    logged = Calls()
    bus.subscribe("log", lambda message, level: logged() if level == 40 else None)
    bus.start()
    logged.expect(2)
    bus.stop()
    assert all("RuntimeError: this call" in message for level, message in bus.lines if level == 40)


# Names, roles, and every


def test_its_thread_is_named_after_the_callback(bus):
    def clean_up():
        pass

    name = f"every {clean_up.__qualname__}"
    assert Monitor(bus, clean_up).name == name
    assert BackgroundTask(bus, 60, clean_up).name == name
    assert BackgroundTask(bus, 60, clean_up, "Cleaner").name == "Cleaner"
    assert Monitor(bus, Calls()).name.startswith("every <")


def test_every_returns_the_function_and_calls_it_while_the_bus_runs(process_bus):
    calls = Calls()
    assert every(SOON)(calls) is calls
    process_bus.start()
    calls.expect(2)
    process_bus.stop()


@pytest.mark.parametrize(
    ("role", "called_in"), [(None, {"worker"}), ("worker", {"worker"}), ("site", {"site"})]
)
def test_every_has_the_role_it_is_given_and_that_of_workers_otherwise(process_bus, role, called_in):
    every(3600, role=role, name="the one of this test")(print)
    for played in ("site", "worker"):
        process_bus.roles = {played}
        process_bus.start()
        running = any(thread.name == "the one of this test" for thread in threading.enumerate())
        process_bus.stop()
        assert running is (played in called_in)


def test_monitors_start_after_other_listeners_and_stop_before_them(bus):
    seen = []
    monitor = Monitor(bus, print, 3600)
    for channel in ("start", "stop"):
        bus.subscribe(channel, lambda channel=channel: seen.append((channel, monitor.thread is not None)))
    monitor.subscribe()
    bus.start()
    bus.stop()
    assert seen == [("start", False), ("stop", False)]


BARE = """
import threading
from django_wspbus import Bus
from django_wspbus.plugins.monitor import Monitor

bus, called = Bus(), threading.Event()
Monitor(bus, called.set, 0.01).subscribe()
bus.start()
print(called.wait(20))
bus.exit()
"""


def test_on_a_bare_bus_in_a_process_without_settings_it_is_called_too():
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    ended = subprocess.run(
        [sys.executable, "-c", BARE], env=environment, capture_output=True, text=True, timeout=60, check=True
    )

    assert ended.stdout == "True\n"
