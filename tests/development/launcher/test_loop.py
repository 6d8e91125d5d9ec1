"""The launcher's loop in the process of the tests, with children that are scripts of a few lines."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from django_wspbus.development.launcher import child, program
from django_wspbus.development.launcher.program import Launcher
from django_wspbus.development.launcher.start import LauncherStart
from django_wspbus.development.watching.files import TICK, WatchList
from django_wspbus.process.messages import Link
from django_wspbus.successor.invocation import Invocation
from django_wspbus.successor.state import SocketState
from django_wspbus.system.terminal import Terminal
from tests.processes import DEADLINE, ROOT
from tests.servers.load import await_that

HEAD = f"""\
import fcntl, os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from django_wspbus.development.launch import Launch

launch = Launch.take()


def note(text):
    with open("journal.txt", "a") as file:
        file.write(f"{{os.getpid()}} {{text}}\\n")


def serve(library=None):
    signal.signal(signal.SIGTERM, leave)
    fcntl.fcntl(launch.link.fileno(), fcntl.F_SETFL, os.O_NONBLOCK)  # else a message ends it
    launch.link.send({{"sockets": []}})
    launch.link.send({{"started": True}})
    launch.link.send({{"watch": {{"files": [os.path.abspath("script.py")], "globs": [], "poll": None}}}})
    launch.link.send({{"library": library}})


def leave(*_):
    launch.link.send({{"exiting": True}})
    sys.exit(0)


note("runs")
"""
FOREVER = "\nwhile True: time.sleep(0.01)\n"


class Drive:
    """A launcher that is run by the test, and the script that it runs."""

    def __init__(self, folder):
        self.folder = folder
        self.script = folder / "script.py"
        listener = socket.create_server(("127.0.0.1", 0))
        one = SocketState("a", "127.0.0.1:0", None, listener.detach())
        invocation = Invocation(sys.executable, ["-B"], ["script.py"], str(folder), dict(os.environ))
        self.launcher = Launcher(LauncherStart(invocation, [one]))
        self.failures = []

    def write(self, source):
        new = self.folder / "script.new"
        new.write_text(HEAD + source)
        new.rename(self.script)

    def notes(self, text):
        """Return the PIDs of those that have noted this."""
        lines = (self.folder / "journal.txt").read_text().splitlines() if self.has_notes else []
        return [int(pid) for pid, rest in (line.split(" ", 1) for line in lines) if rest == text]

    @property
    def has_notes(self):
        return (self.folder / "journal.txt").exists()

    def await_note(self, text, count=1):
        await_that(lambda: len(self.notes(text)) >= count)
        return self.notes(text)[count - 1]

    @property
    def page_pid(self):
        each = self.launcher.child
        return None if each is None or each.kind != "page" else each.process.pid

    def is_slow(self):
        return (child := self.launcher.child) is not None and child.boot_ends is None

    def has_reported_files(self):
        return (child := self.launcher.child) is not None and child.has_reported_files

    def run(self, act):
        """Run the launcher, and meanwhile ``act``, and a SIGTERM after it; return its status."""

        def do():
            try:
                act()
            except BaseException as error:
                self.failures.append(error)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        written = self.script.stat().st_ctime_ns + 2 * TICK  # else it has been saved during the first boot
        await_that(lambda: time.time_ns() > written)
        thread = threading.Thread(target=do)
        thread.start()
        status = self.launcher.run()
        thread.join(DEADLINE)
        assert self.failures == []
        return status


@pytest.fixture
def drive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "PAUSE_AFTER_FAILURE", 0.01)
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    wakeup = signal.set_wakeup_fd(-1)
    drive = Drive(tmp_path)
    yield drive
    drive.launcher.close()
    drive.launcher.signals.close()
    signal.set_wakeup_fd(wakeup)
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def test_one_that_fails_in_its_exit_leaves_with_its_own_status(drive):
    drive.write("serve()\nlaunch.link.send({'exiting': True})\nsys.exit(70)")
    assert drive.launcher.run() == 70


def test_one_that_says_so_is_started_again(drive):
    drive.write(
        """
assert launch.launches in (1, 2)
serve()
if launch.launches == 1:
    launch.link.send({"relaunching": True})
    sys.exit(3)
note("again")
while True: time.sleep(0.01)
"""
    )
    assert drive.run(lambda: drive.await_note("again")) == 0


ASKED = """
serve()
note("serves")
while True:
    for message, _ in launch.link.receive(None):
        note(f"changed {message['changed']}")
"""


def test_one_that_serves_is_asked_about_changed_files(drive):
    drive.write(ASKED)

    def act():
        drive.await_note("serves")
        await_that(drive.has_reported_files)
        drive.write(ASKED)
        drive.await_note(f"changed {[str(drive.script)]}")

    assert drive.run(act) == 0
    assert len(drive.notes("serves")) == 1


def test_one_is_asked_once_it_serves_about_what_changed_during_its_boot(drive, monkeypatch):
    monkeypatch.setattr(program, "SHORT_LIFETIME", 0)
    monkeypatch.setattr(child, "TIME_TO_BOOT", DEADLINE)  # a slow boot would be given up for the save
    drive.write(ASKED)

    def act():
        drive.await_note("serves")
        await_that(drive.has_reported_files)
        wait = "note('boots')\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
        drive.write(wait + ASKED)
        drive.await_note(f"changed {[str(drive.script)]}")
        os.kill(drive.launcher.child.process.pid, signal.SIGKILL)
        drive.await_note("boots")
        drive.write(ASKED)
        await_that(lambda: drive.launcher.files.pending)
        (drive.folder / "go").touch()
        drive.await_note(f"changed {[str(drive.script)]}", 2)

    assert drive.run(act) == 0


def test_a_boot_that_fails_after_a_save_is_made_again_at_once(drive):
    drive.write("note('boots')\nwhile not os.path.exists('go'): time.sleep(0.01)\nraise ValueError")

    def act():
        drive.await_note("boots")
        drive.launcher.files._watcher.watch(WatchList([str(drive.script)]), since=time.time_ns())
        drive.write("serve()\nnote('serves')" + FOREVER)
        await_that(lambda: drive.launcher.files.pending)
        (drive.folder / "go").touch()
        drive.await_note("serves")
        assert drive.launcher.start.launches == 2

    assert drive.run(act) == 0


def test_one_that_is_killed_at_once_is_shown_until_a_save(drive, monkeypatch, capfd):
    monkeypatch.setattr(program, "SHORT_LIFETIME", DEADLINE)
    drive.write("serve()\nos.kill(os.getpid(), signal.SIGKILL)")

    def act():
        await_that(lambda: drive.page_pid is not None)
        drive.write("serve()\nnote('mended')" + FOREVER)
        drive.await_note("mended")

    assert drive.run(act) == 0
    assert "The site was killed by SIGKILL shortly after it started" in capfd.readouterr().err


@pytest.mark.parametrize("is_deaf", [False, True])
def test_a_boot_that_does_not_end_is_given_up_for_a_save(drive, monkeypatch, is_deaf):
    monkeypatch.setattr(child, "TIME_TO_BOOT", 0.1)
    monkeypatch.setattr(child, "ABANDONED_BOOT_TIMEOUT", 0.1)
    drive.write("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" * is_deaf + "note('hangs')" + FOREVER)

    def act():
        drive.await_note("hangs")
        await_that(drive.is_slow)
        drive.write("serve()\nnote('serves')" + FOREVER)
        drive.await_note("serves")

    assert drive.run(act) == 0


def test_a_boot_that_may_serve_by_now_is_given_up_without_a_signal(drive, monkeypatch):
    monkeypatch.setattr(child, "TIME_TO_BOOT", 0.1)
    drive.write("""
signal.signal(signal.SIGTERM, lambda *_: note("signal"))
fcntl.fcntl(launch.link.fileno(), fcntl.F_SETFL, os.O_NONBLOCK)
launch.link.send({"sockets": []})
note("starts")
((message, _),) = launch.link.receive(None)
note(*message)
""")

    def act():
        drive.await_note("starts")
        await_that(drive.is_slow)
        drive.write("serve()\nnote('serves')" + FOREVER)
        drive.await_note("serves")
        assert len(drive.notes("again")) == 1
        assert drive.notes("signal") == []

    assert drive.run(act) == 0


def test_a_boot_that_takes_long_is_not_given_up_if_no_file_changes(drive, monkeypatch):
    monkeypatch.setattr(child, "TIME_TO_BOOT", 0.1)
    wait = "while not os.path.exists('go'):\n    time.sleep(0.01)\n"
    drive.write(f"note('boots')\n{wait}serve()\nnote('serves'){FOREVER}")

    def act():
        await_that(drive.is_slow)
        (drive.folder / "go").touch()
        drive.await_note("serves")

    assert drive.run(act) == 0
    assert len(drive.notes("boots")) == 1


def test_a_socket_that_systemd_has_passed_keeps_its_number(drive, monkeypatch):
    drive.launcher.sockets.passed = [os.dup(0)]
    drive.write(f"os.fstat({drive.launcher.sockets.passed[0]})\nserve()\nnote('serves')" + FOREVER)
    assert drive.run(lambda: drive.await_note("serves")) == 0
    os.close(drive.launcher.sockets.passed[0])


# One decision each


@pytest.fixture
def site(drive):
    """A child that has ended without a message."""
    ours, theirs = socket.socketpair()
    site = child.Child("site", None, Link(ours), time.time_ns())
    drive.launcher.child = site
    yield site
    drive.launcher.child = None
    site.link.close()
    theirs.close()


@pytest.mark.parametrize(
    ("message", "signals", "status", "exit_status"),
    [
        ({"exiting": True}, 2, 70, 70),
        ({}, 1, program.INTERRUPTED, 0),
        ({}, 2, program.INTERRUPTED, program.INTERRUPTED),
        ({"relaunching": True}, 1, 3, 0),
        ({"failed": {"title": "", "text": "", "debug": None, "is_shown": True}}, 1, 1, 0),
        ({"ended": 5}, 1, 120, 5),
    ],
)
def test_the_status_after_a_signal_to_end(drive, site, message, signals, status, exit_status):
    drive.launcher.exit_requests = signals
    drive.launcher.heed(site, [(message, [])])
    assert drive.launcher.follow(site, status) == exit_status


def test_a_boot_whose_last_message_waits_to_be_read_is_not_given_up(drive):
    launcher = drive.launcher
    ours, theirs = socket.socketpair()
    launcher.child = child.Child("site", None, Link(ours), time.time_ns(), boot_ends=time.monotonic())
    launcher.files.pending.add("views.py")
    link = Link(theirs)
    link.send({"started": True})
    launcher.attend_boot()  # it would end the process, and there is none
    assert launcher.child.serves
    assert link.receive(DEADLINE)[0][0] == {"changed": ["views.py"]}
    launcher.child.link.close()
    launcher.child = None
    link.close()


def watched(*files, **more):
    return asdict(WatchList(list(files), **more))


def test_the_files_that_all_workers_report_are_watched_and_those_of_the_site_before_are_not(drive, site):
    launcher = drive.launcher
    launcher.files.known = WatchList(["before"])
    for message in (
        {"watch": watched("a", poll=False)},
        {"started": True},
        {"watch": watched("b", poll=False)},
        {"watch": watched("c", poll=False), "since": 1},
    ):
        launcher.heed(site, [(message, [])])
    assert launcher.files.known == WatchList(["a", "b", "c"], poll=False)


def test_a_failed_boot_is_watched_for_what_the_one_before_knew_as_well(drive, site):
    launcher = drive.launcher
    launcher.files.known = WatchList(["a"], [["b", "*"]])
    failed = {"title": "", "text": "", "debug": False, "is_shown": True}
    launcher.heed(site, [({"failed": failed, "watch": watched("c")}, [])])
    assert launcher.files.known == WatchList(["a", "c"], [["b", "*"]])
    assert launcher.shows_reasons is False


def test_a_site_that_was_a_spare_and_meets_an_obstacle_starts_again(drive, site, monkeypatch, capfd):
    sent = []
    monkeypatch.setattr(Link, "post", lambda self, message, descriptors=(): sent.append(message))
    obstacle = {"library": {"modules": {}, "preload": [], "obstacle": "gevent has patched it"}}
    drive.launcher.heed(site, [(obstacle, []), ({"library": None}, [])])
    assert sent == []
    site.is_warm = True
    drive.launcher.heed(site, [({"library": None}, []), (obstacle, [])])
    assert sent == [{"again": True}]
    assert capfd.readouterr().err == "Warm spare disabled: gevent has patched it.\n"


def test_a_spare_that_is_stale_gives_way_to_a_new_interpreter(drive, site):
    drive.launcher.heed(site, [({"stale": True}, [])])
    assert site.relaunching


def test_a_hangup_of_the_terminal_is_to_leave_and_without_one_it_is_the_sites(drive, site, monkeypatch):
    sent = []
    site.process = SimpleNamespace(send_signal=sent.append, kill=lambda: None)
    drive.launcher.forward(bytes([signal.SIGHUP]))
    assert sent == []  # it would die of it
    site.handles_signals = True
    drive.launcher.forward(bytes([signal.SIGHUP, signal.SIGCHLD]))
    assert (sent, drive.launcher.exit_requests) == ([signal.SIGHUP], 0)
    monkeypatch.setattr(Terminal, "is_there", True)
    drive.launcher.forward(bytes([signal.SIGHUP]))
    assert (sent, drive.launcher.exit_requests) == ([signal.SIGHUP] * 2, 1)


def test_control_c_reaches_a_site_once_however_late_the_launcher_forwards_it(drive, site, monkeypatch):
    sent, posted = [], []
    site.process = SimpleNamespace(send_signal=sent.append, kill=lambda: None)
    monkeypatch.setattr(drive.launcher, "post", lambda child, message: posted.append(message))
    site.handles_signals = True
    drive.launcher.forward(bytes([signal.SIGINT]))
    assert (sent, posted) == ([], [{"interrupted": True}])
    drive.launcher.forward(bytes([signal.SIGINT]))
    assert (sent, posted) == ([signal.SIGINT], [{"interrupted": True}])


def test_an_error_in_a_turn_is_written_and_does_not_end_the_loop(drive, monkeypatch, capfd):
    results = iter([OSError("no descriptors"), None, 7])

    def turn():
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(drive.launcher, "turn", turn)
    monkeypatch.setattr(drive.launcher, "launch_site", lambda: None)
    assert drive.launcher.run() == 7
    assert capfd.readouterr().err.endswith("OSError: no descriptors\n")


def test_a_start_that_has_failed_is_tried_again(drive, monkeypatch):
    def launch_site():
        raise OSError("no process to be had")

    monkeypatch.setattr(drive.launcher, "launch_site", launch_site)
    with pytest.raises(OSError, match="no process"):
        drive.launcher.turn()
