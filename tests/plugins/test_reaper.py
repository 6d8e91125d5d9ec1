"""Reaping orphans: by processes that adopt them, and by one that is PID 1."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from django_wspbus.plugins.reaper import Reaper
from django_wspbus.wspbus import Bus
from tests.processes import DEADLINE, ROOT, Running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has processes that adopt others")

BEGINNING = f"""
import contextlib, ctypes, multiprocessing, os, signal, subprocess, sys, threading, time
from pathlib import Path
from django_wspbus.plugins import reaper
from django_wspbus.plugins.reaper import WAITING_TIME, INTERVAL, Reaper
from django_wspbus.wspbus import Bus

DEADLINE = {DEADLINE}
own = set()
messages = []
bus = Bus()
bus.subscribe("log", lambda message, level: messages.append((level, message)))

def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False

def is_zombie(pid):
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

def expect(condition, pid):
    assert bus.wait_for(lambda: condition(pid), DEADLINE), (condition, pid)

def await_end(pid):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

def pause(seconds):
    bus.wait_for(lambda: False, seconds)

def orphans(count=1):
    \"\"\"Have processes adopted that end soon; return their PIDs.\"\"\"
    loop = f"for each in $(seq {{count}}); do sleep 0.1 > /dev/null & echo $!; done"
    return list(map(int, subprocess.check_output(["sh", "-c", loop]).split()))

def forked(status):
    \"\"\"Fork a process that ends at once; return its PID when it has.\"\"\"
    pid = os.fork()
    if not pid:
        os._exit(status)
    await_end(pid)
    return pid

def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

ADOPTING = (
    BEGINNING
    + """
PR_SET_CHILD_SUBREAPER = 36  # orphans come to such a process as they come to PID 1
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
plugin = Reaper(bus, own=lambda: own, pid=os.getpid())
plugin.subscribe()
bus.start()
"""
)

HURRIED = (
    ADOPTING
    + """
reaper.WAITING_TIME, reaper.INTERVAL = WAITING_TIME, INTERVAL = 0.4, 0.1
"""
)

ENDING = """
bus.exit()
plugin.unsubscribe()
"""


def run(source: str, *command: str) -> list[str]:
    """Run a program to its end, by means of a command if there is one; return the lines that it printed."""
    with Running(*command, sys.executable, "-c", source + ENDING, cwd=ROOT) as program:
        assert program.wait() == 0
        return program.lines


def test_an_orphan_is_reaped_with_no_word_above_debug() -> None:
    source = """
started = time.monotonic()
(pid,) = orphans()
expect(is_gone, pid)
print(time.monotonic() - started > WAITING_TIME, (10, f"Reaped process {pid}.") in messages)
print([message for level, message in messages if level > 10])
"""
    assert run(ADOPTING + source) == ["True True", "['Bus STARTING', 'Bus STARTED']"]


def test_orphans_that_end_together_are_gone_together() -> None:
    source = """
pids = orphans(20)
started = time.monotonic()
for pid in pids:
    expect(is_gone, pid)
print(time.monotonic() - started < 10 * WAITING_TIME)
"""
    assert run(ADOPTING + source) == ["True"]


def test_without_proc_orphans_are_gone_one_after_another() -> None:
    source = """
reaper.PROC = Path("/nowhere")
for pid in orphans(3):
    expect(is_gone, pid)
print("gone")
"""
    assert run(HURRIED + source) == ["gone"]


def test_an_orphan_that_is_older_than_the_plugin_is_reaped() -> None:
    source = """
plugin.unsubscribe()
(pid,) = orphans()
await_end(pid)
bus.stop()
plugin.subscribe()
bus.start()
expect(is_gone, pid)
print("gone")
"""
    assert run(HURRIED + source) == ["gone"]


def test_nothing_runs_while_there_are_no_zombies() -> None:
    source = """
expect(is_gone, *orphans())
pause(2 * INTERVAL)  # the last look
for thread in set(threading.enumerate()) - {threading.main_thread()}:
    thread.join(DEADLINE)
pause(2 * INTERVAL)
print(threading.active_count())
"""
    assert run(HURRIED + source) == ["1"]


# Processes whose status a caller wants


def test_the_owner_of_a_popen_learns_its_status_however_late_it_asks() -> None:
    source = """
popen = subprocess.Popen(["sh", "-c", "exit 3"])
expect(is_gone, popen.pid)
pause(INTERVAL)
print(popen.wait())
"""
    assert run(HURRIED + source) == ["3"]


def test_a_popen_with_a_waiting_caller_is_not_reaped() -> None:
    source = """
popen = subprocess.Popen(["sh", "-c", "exit 3"])
with popen._waitpid_lock:  # as wait() holds it
    await_end(popen.pid)
    pause(2 * WAITING_TIME)
    print(is_zombie(popen.pid))
print(popen.wait())
"""
    assert run(HURRIED + source) == ["True", "3"]


def test_a_popen_that_has_its_status_keeps_it_when_another_process_gets_its_pid() -> None:
    source = """
with contextlib.suppress(FileNotFoundError):
    subprocess.Popen(["/nowhere"])
used = subprocess.Popen(["true"])
used.wait()
(pid,) = orphans()
used.pid = pid  # as if it had been used before
expect(is_gone, pid)
print(used.returncode)
"""
    assert run(HURRIED + source) == ["0"]


def test_popen_is_as_before_once_the_plugin_is_unsubscribed() -> None:
    source = """
watching = subprocess.Popen.__init__
plugin.unsubscribe()
before = subprocess.Popen.__init__
plugin.subscribe()
again = subprocess.Popen.__init__
subprocess.Popen.__init__ = lambda *args, **kwargs: again(*args, **kwargs)  # as of a tracer
wrapper = subprocess.Popen.__init__
plugin.unsubscribe()
print(watching is not before, again is not before, subprocess.Popen.__init__ is wrapper)
print(subprocess.Popen(["true"]).wait())
"""
    assert run(HURRIED + source) == ["True True True", "0"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_multiprocessing_keeps_its_status(method: str) -> None:
    source = f"""
process = multiprocessing.get_context("{method}").Process(target=sys.exit, args=(5,))
process.start()
expect(is_gone, process.pid)
print(process.exitcode)
"""
    assert run(HURRIED + source) == ["5"]


def test_multiprocessing_is_not_imported_for_it() -> None:
    source = """
del sys.modules["multiprocessing"]
expect(is_gone, *orphans())
print("multiprocessing" in sys.modules)
"""
    assert run(HURRIED + source) == ["False"]


def test_a_program_that_forks_has_a_while_to_wait() -> None:
    source = """
reaper.WAITING_TIME = DEADLINE
pid = forked(7)
pause(2 * INTERVAL)
print(status_of(pid), WAITING_TIME >= 1)
"""
    assert run(ADOPTING + source) == ["7 True"]


def test_a_program_that_forks_and_does_not_wait_leaves_nothing_behind() -> None:
    source = """
expect(is_gone, forked(7))
print("gone")
"""
    assert run(HURRIED + source) == ["gone"]


def test_a_process_of_the_sites_own_is_left_to_it_and_hides_no_orphan() -> None:
    source = """
pid = forked(5)
own.add(pid)
expect(is_gone, *orphans())
pause(2 * WAITING_TIME)
print(status_of(pid))
"""
    assert run(HURRIED + source) == ["5"]


def test_without_proc_an_own_process_hides_an_orphan_until_it_is_reaped() -> None:
    source = """
reaper.PROC = Path("/nowhere")
pid = forked(5)
own.add(pid)
(orphan,) = orphans()
await_end(orphan)
pause(3 * WAITING_TIME)
print(is_zombie(orphan), status_of(pid))
expect(is_gone, orphan)
print("gone")
"""
    assert run(HURRIED + source) == ["True 5", "gone"]


def test_a_process_that_is_forked_off_reaps_nothing() -> None:
    source = """
pid = os.fork()
if not pid:
    child = forked(9)
    pause(2 * WAITING_TIME)
    os._exit(status_of(child))
print(status_of(pid))
"""
    assert run(HURRIED + source) == ["9"]


# The signal handler, and its return


def test_the_handler_from_before_is_called_and_restored() -> None:
    source = """
plugin.unsubscribe()
signals = []
before = lambda number, frame: signals.append(number)
signal.signal(signal.SIGCHLD, before)
plugin.subscribe()
plugin.subscribe()  # has no effect
expect(is_gone, forked(0))
plugin.unsubscribe()
print(set(signals) == {signal.SIGCHLD}, signal.getsignal(signal.SIGCHLD) is before)
"""
    assert run(HURRIED + source) == ["True True"]


def test_once_unsubscribed_it_reaps_nothing_and_may_be_subscribed_again() -> None:
    source = """
reaper.WAITING_TIME = DEADLINE
pid = forked(0)
pause(INTERVAL / 2)
plugin.unsubscribe()
plugin.unsubscribe()  # has no effect
reaper.WAITING_TIME = WAITING_TIME
pause(2 * WAITING_TIME)
for thread in set(threading.enumerate()) - {threading.main_thread()}:
    thread.join(DEADLINE)
print(is_zombie(pid), threading.active_count(), signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL)
plugin.subscribe()
plugin.start()
expect(is_gone, pid)
print("gone")
"""
    assert run(HURRIED + source) == ["True 1 True", "gone"]


def test_a_handler_that_python_did_not_install_is_replaced_by_the_default() -> None:
    source = """
plugin._previous = None
plugin.unsubscribe()
print(signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL)
"""
    assert run(HURRIED + source) == ["True"]


def test_any_function_may_call_it_back_and_any_signal_may_follow_one_that_fails() -> None:
    source = """
plugin.unsubscribe()
calls = []

def later(seconds, function):
    calls.append(seconds)
    if len(calls) == 1:
        raise RuntimeError("no more threads")
    time.sleep(seconds)
    function()  # before it returns

plugin = Reaper(bus, later, pid=os.getpid())
plugin.subscribe()
first = forked(0)
pause(0)
print(calls == [INTERVAL], is_zombie(first))
for pid in (first, forked(0)):
    expect(is_gone, pid)
print(set(calls) == {INTERVAL}, "no more threads" in str(messages))
"""
    assert run(HURRIED + source) == ["True True", "True True"]


# PID 1


def test_a_process_that_is_not_pid_1_is_left_as_it_is() -> None:
    before = signal.getsignal(signal.SIGCHLD)
    bus = Bus()
    plugin = Reaper(bus)
    plugin.subscribe()
    assert signal.getsignal(signal.SIGCHLD) is before
    assert not any(bus.listeners.values())
    plugin.reap()
    plugin.unsubscribe()
    assert signal.getsignal(signal.SIGCHLD) is before


@pytest.fixture
def unshare() -> list[str]:
    """The command that runs a program as PID 1, with the /proc of another namespace."""
    command = [shutil.which("unshare") or "", "--pid", "--fork", "--kill-child"]
    if not command[0] or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no unshare, or no right to a PID namespace")
    return command


@pytest.mark.extended
def test_pid_1_reaps_orphans_and_takes_no_status(unshare: list[str]) -> None:
    source = """
plugin = Reaper(bus)
plugin.subscribe()
bus.start()
popen = subprocess.Popen(["sh", "-c", "exit 3"])
child = forked(7)
print(os.getpid(), status_of(child))
started = time.monotonic()
for pid in orphans(20):
    expect(is_gone, pid)
print(popen.wait(), time.monotonic() - started < 10 * WAITING_TIME)
"""
    assert Path("/proc/self").exists()
    assert run(BEGINNING + source, *unshare) == ["1 7", "3 True"]
