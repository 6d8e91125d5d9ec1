"""Files that root makes in a directory of another user, while that user swaps names as fast as it can."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_wspbus.conf.addresses import parse
from django_wspbus.plugins.pidfile import PIDFile
from django_wspbus.plugins.privileges import identity
from django_wspbus.servers.sockets import Sockets
from django_wspbus.system.ownership import NO_OWNER, Owner, is_of_root, unlink_same
from django_wspbus.wspbus import Bus, Refusal

from ..processes import DEADLINE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose")

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder of another user, in a place that this user can reach."""
    with tempfile.TemporaryDirectory(prefix="ws") as folder:
        os.chmod(folder, 0o711)
        shared = Path(folder) / "shared"
        shared.mkdir()
        os.chown(shared, NOBODY.pw_uid, NOBODY.pw_gid)
        yield shared


@pytest.fixture
def precious(shared: Path) -> Path:
    """A file of root, which the other user can reach and not read."""
    path = shared.parent / "precious"
    path.write_text("secret")
    path.chmod(0o600)
    return path


@contextlib.contextmanager
def attacker(*turns: Callable[[], object]) -> Iterator[None]:
    """Run functions over and over in a process of the other user, whatever each of them raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.setgroups([])
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        os.write(writer, b".")
        while os.getppid() != 1:
            for turn in turns:
                with contextlib.suppress(OSError):
                    turn()
        os._exit(0)
    try:
        os.close(writer)
        assert os.read(reader, 1) == b"."
        yield
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def swaps(name: Path, target: Path) -> list[Callable[[], object]]:
    """Return what makes of a name a link, a hard link, a FIFO, a socket, a file and nothing, in turn."""
    other = name.with_name("other")

    def put(make: Callable[[], object]) -> Callable[[], object]:
        def turn() -> None:
            with contextlib.suppress(FileNotFoundError):
                other.unlink()
            make()
            other.rename(name)

        return turn

    return [
        put(lambda: other.symlink_to(target)),
        put(lambda: os.link(target, other)),
        put(lambda: os.mkfifo(other)),
        put(lambda: socket.socket(socket.AF_UNIX).bind(str(other))),
        put(lambda: other.write_text("1\n")),
        name.unlink,
        lambda: name.symlink_to(target),
        name.unlink,
        lambda: None,
        lambda: name.rename(other),
    ]


def untouched(precious: Path) -> bool:
    status = precious.stat()
    return (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), precious.read_text()) == (
        *(0, 0, 0o600),
        "secret",
    )


def bind(path: Path) -> None:
    sockets = Sockets(Bus(), {"shop": ((parse(f"unix:{path}"),), 5)}, owner=identity("nobody", None))
    try:
        sockets.start()
    finally:
        sockets.close()


def write_pid(path: Path) -> None:
    plugin = PIDFile(Bus(), path, owner=identity("nobody", None))
    try:
        plugin.start()
    finally:
        plugin.abort()


def open_output(path: Path) -> None:
    os.close(identity("nobody", None).open(path))


def open_output_as_root(path: Path) -> None:
    descriptor = NO_OWNER.open(path)
    try:
        os.write(descriptor, b"a line\n")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("work", [bind, write_pid, open_output, open_output_as_root])
def test_whatever_a_user_swaps_no_file_of_root_becomes_another(
    shared: Path, precious: Path, work: Callable[[Path], None]
) -> None:
    """As the user the process reaches nothing that the user could not."""
    name = shared / "name"
    done = tried = 0
    deadline = time.monotonic() + DEADLINE
    with attacker(*swaps(name, precious)):
        while not done or tried < 300:  # until one, at least, has come between two swaps
            assert time.monotonic() < deadline
            try:
                work(name)
                done += 1
            except (Refusal, OSError):
                pass
            assert untouched(precious)
            tried += 1


@pytest.mark.parametrize("work", [bind, write_pid, open_output])
def test_where_only_the_user_writes_all_belongs_to_the_user(
    shared: Path, work: Callable[[Path], None]
) -> None:
    owners = set()
    unlink = os.unlink

    def note(path: str, **options: int) -> None:
        owners.add(os.lstat(shared / path).st_uid)
        unlink(path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "unlink", note)
        work(shared / "name")
    owners |= {path.stat().st_uid for path in shared.iterdir()}

    assert owners == {NOBODY.pw_uid}
    assert (os.geteuid(), os.getegid()) == (0, 0)


def test_a_directory_is_of_root_if_no_other_user_can_change_it_or_its_parents(shared: Path) -> None:
    own = shared.parent / "own"
    own.mkdir()
    (own / "below").mkdir()
    (own / "link").symlink_to("below")
    (own / "away").symlink_to(shared)
    (shared / "link").symlink_to(own)
    for path in (own, own / "below", own / "link", own / "link" / ".." / "below", Path("/etc"), Path("/")):
        assert is_of_root(str(path)), path
    for path in (shared, own / "away", shared / "link", Path("/tmp"), own / "missing"):
        assert not is_of_root(str(path)), path
    own.chmod(0o775)
    assert not is_of_root(str(own))
    assert not is_of_root(str(own / "below"))
    (own / "circle").symlink_to("circle")
    assert not is_of_root(str(own / "circle"))


def test_a_file_in_a_directory_of_root_is_made_by_root_and_given(shared: Path) -> None:
    own = shared.parent / "own"
    own.mkdir()
    owner = Owner(NOBODY.pw_uid, NOBODY.pw_gid, (NOBODY.pw_gid,))
    os.close(owner.open(own / "new.log"))
    (own / "old.log").touch()
    os.close(owner.open(own / "old.log"))

    assert (own / "new.log").stat().st_uid == NOBODY.pw_uid
    assert (own / "old.log").stat().st_uid == 0


def test_a_file_is_removed_only_where_it_was_found(shared: Path) -> None:
    (shared / "name").write_text("")
    inode = (shared / "name").stat().st_dev, (shared / "name").stat().st_ino
    unlink_same(str(shared / "name"), (0, 0))
    assert (shared / "name").exists()
    unlink_same(str(shared / "name"), inode)
    assert not (shared / "name").exists()
    with pytest.raises(FileNotFoundError):
        unlink_same(str(shared / "name"), inode)


def test_a_fifo_without_a_reader_is_refused_at_once(shared: Path) -> None:
    os.mkfifo(shared / "name")
    with pytest.raises(OSError, match="No such device"):
        identity(None, None).open(shared / "name")
