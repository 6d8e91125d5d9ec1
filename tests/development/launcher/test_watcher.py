"""The thread of the launcher that watches files."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from pathlib import Path

import pytest

from django_wspbus.development.launcher import watcher as watcher_module
from django_wspbus.development.launcher.watcher import Watcher, remove_bytecode
from django_wspbus.development.watching.files import FileWatch, WatchList
from tests.processes import DEADLINE


@pytest.fixture
def noticed():
    return threading.Event()


@pytest.fixture
def said():
    return []


@pytest.fixture
def watcher(noticed, said):
    with contextlib.closing(Watcher(noticed.set, said.append)) as watcher:
        yield watcher


def test_changes_are_there_to_be_taken_once_it_has_notified(watcher, noticed, said, tmp_path):
    path = tmp_path / "views.py"
    watcher.watch(WatchList([str(path)]), since=0)
    watcher.watch(WatchList([str(path)]))
    path.write_text("")
    assert noticed.wait(DEADLINE)
    assert watcher.take() == [str(path)]
    assert watcher.take() == []
    assert len(said) == 1
    assert said[0].startswith("Watching for file changes ")


def test_what_a_list_brings_to_light_is_noticed_as_a_change(watcher, noticed, tmp_path):
    path = tmp_path / "views.py"
    path.write_text("")
    watcher.watch(WatchList([str(path)]), since=0)
    assert noticed.wait(DEADLINE)
    assert watcher.take() == [str(path)]


def test_an_error_is_said_and_the_next_change_is_noticed(watcher, noticed, said, tmp_path, monkeypatch):
    path = tmp_path / "views.py"
    errors = [OSError("the disk")]
    watch = FileWatch.watch

    def fail_once(self, *arguments):
        if errors:
            raise errors.pop()
        return watch(self, *arguments)

    monkeypatch.setattr(watcher_module, "PAUSE_AFTER_ERROR", 0.01)
    monkeypatch.setattr(FileWatch, "watch", fail_once)
    for _ in range(2):
        watcher.watch(WatchList([str(path)]), str(tmp_path), 0)
    path.write_text("")
    assert noticed.wait(DEADLINE)
    assert [each.splitlines()[-1] for each in said] == ["OSError: the disk"]


def test_bytecode_of_what_has_changed_is_removed_whatever_its_time_is(tmp_path):
    changed, other = tmp_path / "changed.py", tmp_path / "other.py"
    caches = [
        [Path(importlib.util.cache_from_source(str(path), optimization=level)) for level in ("", 1, 2)]
        for path in (changed, other)
    ]
    caches[0][0].parent.mkdir()
    for path in (changed, other, *caches[0], *caches[1]):
        path.touch()
    os.utime(changed, (1, 1))
    remove_bytecode(map(str, (changed, tmp_path / "absent.py", tmp_path / "text.txt")))
    assert [each.exists() for each in (*caches[0], *caches[1])] == [False] * 3 + [True] * 3
