"""The PID file: it appears whole, follows no link, and belongs to one process."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from django_wspbus.plugins.pidfile import PIDFile, is_alive
from django_wspbus.wspbus import Bus, ChannelFailures, Refusal
from tests.processes import DEADLINE, ROOT, fetch
from tests.projects import GUNICORN, THREADED, Project, reason_of
from tests.servers.load import await_that


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.pid"


@pytest.fixture
def write(path: Path) -> Iterator[Callable[[], Bus]]:
    """Start a bus with a PID file; ``descriptor``: that of the bus before, over a restart."""
    buses = []

    def start(descriptor: int | None = None) -> Bus:
        bus = Bus()
        buses.append(bus)
        bus.lines = []  # type: ignore[attr-defined]
        bus.subscribe("log", lambda message, level: bus.lines.append((level, message)))  # type: ignore[attr-defined]
        bus.pidfile = PIDFile(bus, path, descriptor=descriptor)  # type: ignore[attr-defined]
        bus.pidfile.subscribe()  # type: ignore[attr-defined]
        bus.start()
        return bus

    yield start
    for bus in buses:
        bus.exit()


@pytest.fixture
def dead() -> int:
    """The PID of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


HOLDER = """
import fcntl, os, sys

file = open(sys.argv[1], "w+")
fcntl.flock(file, fcntl.LOCK_EX)
print(os.getpid(), file=file, flush=True)
input()
"""


@pytest.fixture
def live(path: Path) -> Iterator[int]:
    """The PID of another process, which has the file with its PID locked."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        await_that(lambda: path.exists() and path.read_text().endswith("\n"))
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


def pid_in(path: Path) -> int:
    return int(path.read_text())


def refusal(write: Callable[[], Bus]) -> str:
    with pytest.raises(ChannelFailures) as caught:
        write()
    (error,) = caught.value.get_instances()
    assert isinstance(error, Refusal)
    assert error.status == 1
    return str(error)


def test_it_holds_the_pid_from_start_to_exit_over_a_stop(path: Path, write: Callable[[], Bus]) -> None:
    bus = write()
    inode = path.stat().st_ino
    bus.stop()
    bus.start()
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_ino == inode
    bus.exit()

    assert list(path.parent.iterdir()) == []


def test_over_a_restart_it_stays_and_the_next_program_takes_it_as_its_own(
    path: Path, write: Callable[[], Bus]
) -> None:
    bus = write()
    inode = path.stat().st_ino
    bus.restart()
    bus.wait_for(lambda: bus.state is bus.states.EXITING, DEADLINE)
    assert bus.execv
    assert path.stat().st_ino == inode
    assert pid_in(path) == os.getpid()
    after = write(bus.pidfile.descriptor)  # which is another program, but the same process
    assert path.stat().st_ino == inode
    assert not any("written" in message for _, message in after.lines)  # type: ignore[attr-defined]
    after.exit()

    assert list(path.parent.iterdir()) == []


def test_others_may_read_it_and_not_write_it(path: Path, write: Callable[[], Bus]) -> None:
    before = os.umask(0)
    try:
        write()
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "text",
    ["{dead}\n", "  {dead}  ", "", f"{os.getpid()}\n", "1\n", "9" * 20],
    ids=["dead", "dead, in spaces", "empty", "own", "used again by a live process", "too large"],
)
def test_a_file_without_a_lock_is_replaced(
    path: Path, write: Callable[[], Bus], dead: int, text: str
) -> None:
    path.write_text(text.format(dead=dead))
    write()

    assert pid_in(path) == os.getpid()
    assert [each.name for each in path.parent.iterdir()] == ["site.pid"]


def test_that_of_a_live_process_is_refused_by_its_name(
    path: Path, write: Callable[[], Bus], live: int
) -> None:
    reason = refusal(write)
    assert reason.startswith(f"The site is running already: PID {live} (python")
    assert reason.endswith(f"according to {path}.")
    assert path.read_text() == f"{live}\n"
    assert [each.name for each in path.parent.iterdir()] == ["site.pid"]


@pytest.mark.parametrize("text", ["no number", "-1", "0", "1 2", "\0"])
def test_a_file_that_holds_no_pid_is_refused_and_stays(
    path: Path, write: Callable[[], Bus], text: str
) -> None:
    path.write_text(text)

    assert refusal(write) == f"The PID file {path} cannot be replaced: it holds no PID."
    assert path.read_text() == text


@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "folder", "fifo"])
def test_no_link_is_followed_and_nothing_but_a_file_replaced(
    path: Path, write: Callable[[], Bus], dead: int, kind: str
) -> None:
    target = path.parent / "target"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
        if kind == "link to a file":
            target.write_text(f"{dead}\n")

    assert refusal(write) == f"The PID file {path} cannot be replaced: it is not a regular file."
    assert not target.exists() or target.read_text() == f"{dead}\n"


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(
    path: Path, write: Callable[[], Bus]
) -> None:
    target = path.parent / "target"
    target.write_text("precious")
    path.with_name(f".site.pid.{os.getpid()}").symlink_to(target)
    write()

    assert pid_in(path) == os.getpid()
    assert target.read_text() == "precious"


def test_a_missing_folder_is_reported(path: Path) -> None:
    bus = Bus()
    PIDFile(bus, path.parent / "no" / "site.pid").subscribe()

    assert "cannot be written: No such file or directory." in refusal(lambda: bus.start() or bus)


@pytest.mark.parametrize("how", ["removed", "another process's", "rewritten", "a link"])
def test_at_exit_it_is_removed_only_if_it_is_still_ours(
    path: Path, write: Callable[[], Bus], how: str
) -> None:
    bus = write()
    if how == "rewritten":
        path.write_text("another program's")
    else:
        path.unlink()
    if how == "another process's":
        path.write_text("1\n")
    elif how == "a link":
        path.symlink_to(path.parent / "target")
    bus.exit()

    assert os.path.lexists(path) is (how != "removed")
    assert not bus.failed
    if how == "rewritten":
        assert any(level == 30 and "was not removed" in message for level, message in bus.lines)  # type: ignore[attr-defined]


def test_ended_at_once_it_leaves_no_file(path: Path, write: Callable[[], Bus]) -> None:
    bus = Bus()
    plugin = PIDFile(bus, path)
    plugin.abort()
    plugin.start()
    plugin.abort()

    assert not path.exists()


RACE = """
import sys
from django_wspbus.plugins.pidfile import PIDFile
from django_wspbus.wspbus import Bus

plugin = PIDFile(Bus(), sys.argv[1])
print("ready", flush=True)
input()
try:
    plugin.start()
except Exception as error:
    print("refused:", error, flush=True)
else:
    print("started", flush=True)
input()
"""


def test_of_many_processes_that_start_at_once_over_a_stale_file_one_gets_it(path: Path, dead: int) -> None:
    path.write_text(f"{dead}\n")
    command = [sys.executable, "-c", RACE, str(path)]
    options = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **options) for _ in range(6)]  # type: ignore[call-overload]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 6
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.stdout.readline() for process in processes]
        assert said.count("started\n") == 1
        assert sum(line.startswith("refused: The site is running already") for line in said) == 5
        assert pid_in(path) == processes[said.index("started\n")].pid
    finally:
        for process in processes:
            process.communicate("\n", timeout=DEADLINE)


def test_a_reader_never_sees_a_part_of_it(path: Path) -> None:
    bus = Bus()
    plugin = PIDFile(bus, path)
    seen = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                seen.add(path.read_text())
            except FileNotFoundError:
                continue

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.monotonic() + DEADLINE
    while len(seen) < 1 or plugin.path.exists():
        plugin.start()
        plugin.exit()
        assert time.monotonic() < deadline
    for _ in range(200):
        plugin.start()
        plugin.exit()
    done.set()
    reader.join()

    assert seen == {f"{os.getpid()}\n"}


@pytest.mark.extended
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_the_process_of_another_user_is_alive() -> None:
    child = os.fork()
    if not child:
        os.setuid(65534)
        os._exit(0 if is_alive(os.getppid()) else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_where_there_is_no_proc_a_live_process_has_no_name(
    path: Path, write: Callable[[], Bus], live: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def refuse(self: Path, *args: object) -> str:
        if str(self).startswith("/proc"):
            raise FileNotFoundError(str(self))
        return read_text(self)

    monkeypatch.setattr(Path, "read_text", refuse)  # as on macOS
    assert f"PID {live}, according to" in refusal(write)


def test_a_place_that_others_keep_claiming_is_given_up(
    path: Path, write: Callable[[], Bus], dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim(*args: object, **options: object) -> None:
        raise FileExistsError

    monkeypatch.setattr(os, "link", claim)  # no race can be relied on to be lost so often
    assert refusal(write) == f"The PID file {path} cannot be written: other processes keep claiming it."


# Its lock


FORK = """
import os, signal, sys
from django_wspbus.plugins.pidfile import PIDFile
from django_wspbus.wspbus import Bus

plugin = PIDFile(Bus(), sys.argv[1])
plugin.start()
reader, writer = os.pipe()
child = os.fork()
if not child:
    plugin.abort()  # which is not its file
    os.write(writer, b".")
    signal.pause()
os.read(reader, 1)
print(child, flush=True)
signal.pause()
"""


def test_a_forked_child_neither_keeps_the_lock_of_a_killed_site_nor_releases_that_of_a_live_one(
    path: Path, write: Callable[[], Bus]
) -> None:
    command = [sys.executable, "-c", FORK, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert refusal(write).startswith(f"The site is running already: PID {process.pid} ")
            process.kill()
            process.wait()
            write()
            assert pid_in(path) == os.getpid()
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


def test_reading_or_closing_the_file_does_not_release_the_lock(path: Path, write: Callable[[], Bus]) -> None:
    write()
    assert path.read_text()
    os.close(os.open(path, os.O_RDWR))

    assert refusal(write).startswith(f"The site is running already: PID {os.getpid()} ")


def test_after_a_restart_that_finds_its_file_removed_there_is_a_new_one(
    path: Path, write: Callable[..., Bus]
) -> None:
    bus = write()
    path.unlink()
    write(os.dup(bus.pidfile.descriptor))  # type: ignore[attr-defined]

    assert pid_in(path) == os.getpid()


def test_a_lock_that_is_let_go_meanwhile_is_waited_for(
    path: Path, write: Callable[[], Bus], dead: int
) -> None:
    path.write_text(f"{dead}\n")
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        timer = threading.Timer(0.1, lambda: fcntl.flock(other, fcntl.LOCK_UN))
        timer.start()
        write()
        timer.join()

    assert pid_in(path) == os.getpid()


def test_a_lock_of_a_process_in_another_namespace_counts_though_its_pid_is_unknown(
    path: Path, write: Callable[[], Bus], dead: int
) -> None:
    path.write_text(f"{dead}\n")
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert refusal(write) == f"The site is running already: PID {dead}, according to {path}."


@pytest.mark.parametrize("name", ["write", "link"])
def test_a_full_disk_leaves_no_file_and_is_reported_in_one_sentence(
    path: Path, write: Callable[[], Bus], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse)  # see below for a disk that is really full
        assert refusal(write) == f"The PID file {path} cannot be written: No space left on device."

    assert list(path.parent.iterdir()) == []
    write()


@pytest.mark.extended
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
@pytest.mark.parametrize("left", [0, 1, 2])
def test_on_a_disk_that_is_really_full_likewise(tmp_path: Path, left: int) -> None:
    """``left``: how many files more it takes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=4k,nr_inodes={2 + left}", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        if left:
            (folder / "filling").write_bytes(b"x" * 4096)
        bus = Bus()
        PIDFile(bus, folder / "site.pid").subscribe()
        with pytest.raises(ChannelFailures, match="cannot be written: No space left on device"):
            bus.start()
        assert [each.name for each in folder.iterdir()] == (["filling"] if left else [])
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# Whole sites


@pytest.fixture
def shop(project: Project) -> Project:
    project.serves(GUNICORN, PIDFILE="site.pid")
    return project


VIEW = """
import os
import signal
import time

from django.http import HttpResponse
from django.urls import path


def fork(request):
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(600)
        os._exit(0)
    return HttpResponse(str(pid))


urlpatterns = [path("", fork)]
"""


@pytest.mark.extended
@pytest.mark.parametrize("kind", [GUNICORN, THREADED], ids=["gunicorn", "threaded"])
def test_a_site_is_refused_a_second_time_over_restarts_and_not_once_it_was_killed(
    shop: Project, kind: dict[str, str]
) -> None:
    shop.serves(kind, PIDFILE="site.pid")
    shop.write("shop/urls.py", VIEW)
    path = shop.root / "site.pid"
    with shop.serve("-v2") as site:
        url = site.wait_until_started()["default"]
        inode = path.stat().st_ino
        for count in (2, 3):
            site.send(signal.SIGUSR2)
            site.wait_for_line("^Quit with", count=count)
            assert reason_of(shop.run("runbus")).startswith(
                f"CommandError: The site is running already: PID {site.pid} "
            )
            assert (pid_in(path), path.stat().st_ino) == (site.pid, inode)
        forked = int(fetch(url))
        site.send(signal.SIGUSR1)
        site.wait_for_line("Reloaded|Nothing reloaded")
        site.send(signal.SIGKILL)
        site.wait()
        assert psutil.pid_exists(forked)
        with shop.serve() as other:
            other.wait_until_started()
            assert pid_in(path) == other.pid
            assert other.stop() == 0
        assert not path.exists()


@pytest.mark.extended
def test_a_restart_to_another_path_or_to_none_moves_the_file(shop: Project) -> None:
    with shop.serve() as site:
        site.wait_until_started()
        for count, name in enumerate(("other.pid", None, "site.pid"), 2):
            shop.serves(GUNICORN, PIDFILE=name)
            site.send(signal.SIGUSR2)
            site.wait_for_line("^Quit with", count=count)
            assert [each.name for each in shop.root.glob("*.pid")] == ([name] if name else [])
            if name:
                assert "running already" in reason_of(shop.run("runbus"))
        assert site.stop() == 0
    assert list(shop.root.glob("*.pid")) == []
