from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

import pytest
from django.utils.autoreload import BaseReloader

from django_wspbus.development.reloading import reloaders
from django_wspbus.development.reloading.reloaders import PollingReloader, Snapshot, changed_since
from tests.processes import DEADLINE


class Few(BaseReloader):
    """A reloader that watches some files, and folders."""

    def __init__(self, *files):
        super().__init__()
        self.files = files

    def watched_files(self, include_globs=True):
        yield from self.files


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "views.py"
    path.write_text("VERSION = 1\n")
    return path


def test_what_changed_is_told_once_and_what_is_gone_is_a_change(file):
    snapshot = Snapshot(Few(file, file.with_name("absent.py")))
    snapshot.take()
    assert list(snapshot.changes()) == []
    file.write_text("VERSION = 10\n")
    assert list(snapshot.changes()) == [file]
    assert list(snapshot.changes([file])) == []
    file.unlink()
    file.with_name("absent.py").touch()
    assert set(snapshot.changes()) == {file, file.with_name("absent.py")}


def test_what_is_new_in_a_folder_is_told_once_and_folders_are_not(file):
    reloader = Few()
    reloader.watch_dir(file.parent, "**/*")
    snapshot = Snapshot(reloader)
    (file.parent / "deep").mkdir()
    (file.parent / "deep" / "new.txt").touch()
    assert set(snapshot.additions()) == {file, file.parent / "deep" / "new.txt"}
    assert list(snapshot.additions()) == []
    gone = file.parent / "gone.txt"
    assert list(snapshot.passers([gone, file.parent / "deep", Path("/elsewhere.txt")])) == [gone]


def test_a_change_since_a_moment_is_one_by_either_of_its_times(file):
    os.utime(file, (1, 1))
    reloader = Few(file, file.with_name("absent.py"), file.parent)
    now = time.time_ns()
    assert list(reloaders.changed_since(reloader, now - 10**9)) == [file]
    os.utime(file, (now / 1e9 + 10**6, now / 1e9 + 10**6))
    assert reloaders.changed_since(reloader, now - 10**9) == {file: reloaders.digest(file)}
    assert reloaders.changed_since(reloader, now + 10**9) == {}


def test_a_save_in_the_same_tick_of_the_kernels_clock_is_one_since(file):
    changed = file.stat().st_ctime_ns
    assert list(reloaders.changed_since(Few(file), changed + 4_000_000)) == [file]


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path):
    assert reloaders.digest(tmp_path / "absent.py") == ""


def test_bytecode_of_what_changed_of_late_is_forgotten(file):
    old = file.with_name("old.py")
    old.touch()
    os.utime(old, (1, 1))
    caches = [Path(reloaders.importlib.util.cache_from_source(str(path))) for path in (file, old)]
    caches[0].parent.mkdir()
    for cache in caches:
        cache.touch()
    reloaders.forget_bytecode(Few(file, old, file.with_name("absent.py"), file.with_name("text.txt")))
    assert [cache.exists() for cache in caches] == [False, True]


def test_unrest_is_counted_and_what_lies_ahead_is_none(file):
    other = file.with_name("other.py")
    other.touch()
    count, last = reloaders.newest_change(Few(file, other, file.with_name("absent.py")))
    assert (count, last) == (2, max(path.stat().st_ctime_ns for path in (file, other)))
    assert reloaders.newest_change(Few()) == (0, 0)


def test_a_module_that_is_gone_is_unrest(tmp_path, monkeypatch):
    file = tmp_path / "becomes_a_package.py"
    file.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("becomes_a_package")
    try:
        file.unlink()
        assert reloaders.newest_change(Few())[0] == 2
    finally:
        del sys.modules["becomes_a_package"]


def test_a_polling_reloader_stops_at_once(file):
    reloader = PollingReloader()
    reloader.SLEEP_TIME = 2 * DEADLINE
    ticker = reloader.tick()
    reloader.stop()
    began = time.monotonic()
    assert next(ticker, "ended") == "ended"
    assert time.monotonic() - began < DEADLINE


def test_a_module_whose_file_was_away_for_a_moment_is_watched(tmp_path, monkeypatch):
    file = tmp_path / "moved_away_once.py"
    file.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("moved_away_once")
    try:
        file.rename(tmp_path / "away")
        reloader = PollingReloader()
        snapshot = Snapshot(reloader)
        snapshot.take()
        (tmp_path / "away").rename(file)
        assert file in snapshot.changes()
        assert file in changed_since(reloader, time.time_ns() - 10**9)
    finally:
        del sys.modules["moved_away_once"]
