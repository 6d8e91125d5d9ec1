from __future__ import annotations

import errno
import mmap
import os
import shutil
import threading

import pytest

from django_wspbus.development.reloading.reloaders import TooManyWatches
from tests.processes import DEADLINE

pytest.importorskip("inotify_simple")

from django_wspbus.development.reloading import inotify
from django_wspbus.development.reloading.inotify import InotifyReloader
from django_wspbus.development.watching import mounts


class Watching(InotifyReloader):
    """A reloader that remembers what it is told of, and watches what a test says."""

    def __init__(self, *files):
        super().__init__()
        self.extra_files = set(files)
        self.told = []
        self.news = threading.Condition()
        self.is_armed = threading.Event()
        self.armed = self.is_armed.set

    def watched_files(self, include_globs=True):
        return iter(self.extra_files)

    def notify_file_changed(self, path):
        with self.news:
            self.told.append(path)
            self.news.notify_all()

    def expect(self, *paths):
        with self.news:
            assert self.news.wait_for(lambda: set(paths) <= set(self.told), DEADLINE), self.told
            self.told.clear()


@pytest.fixture
def watching():
    """Run reloaders that end with the test."""
    running = []

    def start(reloader):
        thread = threading.Thread(target=reloader.run_loop)
        running.append((reloader, thread))
        thread.start()
        assert reloader.is_armed.wait(DEADLINE)
        return reloader

    yield start
    for reloader, thread in running:
        reloader.stop()
        thread.join(DEADLINE)
        assert not thread.is_alive()
        reloader.stop()  # once more is no error


def test_a_folder_with_two_names_is_watched_under_both(watching, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    one, two = folder / "one.py", tmp_path / "link" / "two.py"
    reloader = watching(Watching(one, two))
    for _ in range(2):
        for path in (one, two):
            path.write_text(str(os.urandom(8)))
            reloader.expect(path)


def test_a_folder_that_comes_goes_and_comes_again_is_watched(watching, tmp_path):
    path = tmp_path / "deep" / "deeper" / "file.ini"
    reloader = watching(Watching(path))
    for _ in range(2):
        path.parent.mkdir(parents=True)
        path.write_text("new")
        reloader.expect(path)
        shutil.rmtree(tmp_path / "deep")
        reloader.expect(path)


def test_a_folder_that_is_watched_itself_may_be_replaced(watching, tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    path = top / "file.ini"
    path.touch()
    reloader = watching(Watching(path))
    top.rename(tmp_path / "away")
    reloader.expect(path)
    top.mkdir()
    path.write_text("another")
    # Its parent is watched only since it has gone: it is found, at the latest, with the next event.
    reloader.expect(path)


def test_a_lost_event_has_all_files_looked_at(watching, tmp_path, monkeypatch):
    path = tmp_path / "file.ini"
    path.touch()
    reloader = Watching(path)
    read = reloader._inotify.read

    def overflowing(**options):
        return [each._replace(wd=-1, mask=inotify.flags.Q_OVERFLOW) for each in read(**options)]

    monkeypatch.setattr(reloader._inotify, "read", overflowing)
    watching(reloader)
    path.write_text("changed")
    reloader.expect(path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_without_watches_to_be_had_it_says_so_and_a_folder_that_may_not_be_read_is_none(
    number, tmp_path, monkeypatch
):
    reloader = Watching(tmp_path / "closed" / "file.ini")
    add = reloader._inotify.add_watch

    def refuse(path, mask):
        if path.name == "closed":
            raise OSError(number, os.strerror(number))
        return add(path, mask)

    monkeypatch.setattr(reloader._inotify, "add_watch", refuse)
    ticker = reloader.tick()
    reloader.stop()
    if number == errno.ENOSPC:
        with pytest.raises(TooManyWatches):
            next(ticker)
    else:
        assert next(ticker, "ended") == "ended"
        assert reloader.is_armed.is_set()


def write_silently(path, text):
    """Change a file, and raise no event: the kernel reports nothing of memory that is mapped."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[: len(text)] = text
        memory.flush()


def test_what_raises_no_events_is_looked_at_in_turns_and_the_rest_is_not(tmp_path, watching, monkeypatch):
    for name in ("silent", "loud"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "views.py").write_text("one")
    table = tmp_path / "mountinfo"
    table.write_text(f"36 35 0:41 / {tmp_path}/silent rw - nfs4 host:/ rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    monkeypatch.setattr(inotify, "POLLED", 0.02)
    silent, loud = (tmp_path / name / "views.py" for name in ("silent", "loud"))
    reloader = watching(Watching(silent, loud))
    reloader.watch_dir(silent.parent, "*.html")
    write_silently(loud, b"two")
    write_silently(silent, b"two")
    reloader.expect(silent)
    assert loud not in reloader.told
    (silent.parent / "new.html").write_text("")
    reloader.expect(silent.parent / "new.html")
    loud.write_text("three")
    reloader.expect(loud)
