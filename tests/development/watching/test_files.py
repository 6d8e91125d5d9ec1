"""What a change of files is, for those that sleep until there is one and for those that look in turns."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import shutil
import threading
import time
from contextlib import closing

import pytest

from django_wspbus.development.watching import events
from django_wspbus.development.watching import files as watch_module
from django_wspbus.development.watching.files import FileWatch, compile_glob
from tests.processes import DEADLINE


@pytest.fixture(params=["inotify", "polling"])
def kind(request, monkeypatch):
    if request.param == "polling":
        monkeypatch.setattr(events, "inotify_simple", None)
        monkeypatch.setattr(events, "POLLED", 0.02)
    else:
        pytest.importorskip("inotify_simple")
    return request.param


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "project"
    (folder / "shop").mkdir(parents=True)
    for name in ("settings.py", "shop/views.py", "shop/models.py", "shop/notes.txt"):
        (folder / name).write_text(f"# {name}\n")
    return folder


@pytest.fixture
def watching():
    """Make a watch that is closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(closing(FileWatch(*arguments, **options)))


@contextlib.contextmanager
def waiting(watch):
    """What the watch tells, in another thread, of what happens in the block; a queue of lists of paths."""
    told = queue.Queue()
    thread = threading.Thread(target=lambda: told.put(watch.settle(watch.wait())), daemon=True)
    thread.start()
    yield told
    thread.join(DEADLINE)
    assert not thread.is_alive()


def told_of(watch, change):
    with waiting(watch) as told:
        change()
        return told.get(timeout=DEADLINE)


def edit(path, text="edited = True\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def replace(path):
    other = path.with_name(".new")
    other.write_text(path.read_text())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


CHANGES = {
    "edited": ("shop/views.py", edit, {"shop/views.py"}),
    "new": ("shop/urls.py", edit, {"shop/urls.py"}),
    "removed": ("shop/views.py", os.remove, {"shop/views.py"}),
    "moved into place": ("shop/views.py", replace, {"shop/views.py"}),
    "renamed": (
        "shop/views.py",
        lambda path: path.rename(path.with_name("v.py")),
        {"shop/views.py", "shop/v.py"},
    ),
    "made readable": ("shop/views.py", lambda path: path.chmod(0o640), {"shop/views.py"}),
    "a new folder": ("blog", os.mkdir, {"blog"}),
    "a file in a new folder": ("blog/views.py", edit, {"blog", "blog/views.py"}),
    "a folder that is gone": ("shop", shutil.rmtree, {"shop", "shop/views.py", "shop/models.py"}),
    "a folder with another name": (
        "shop",
        lambda path: path.rename(path.with_name("store")),
        {"shop", "shop/views.py", "shop/models.py", "store", "store/views.py", "store/models.py"},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_the_tree_is_told(name, kind, tree, watching):
    path, change, changed = CHANGES[name]
    watch = watching([], tree=str(tree))
    assert told_of(watch, lambda: change(tree / path)) == sorted(str(tree / each) for each in changed)


@pytest.mark.parametrize(
    "other",
    ["shop/notes.txt", ".git/hook.py", "node_modules/x/a.py", "shop/__pycache__/a.py", "venv/lib/a.py"],
)
def test_what_is_not_of_the_project_is_not_told(other, kind, tree, watching):
    edit(tree / "venv" / "pyvenv.cfg")
    edit(tree / other)
    watch = watching([], tree=str(tree))

    def change():
        edit(tree / other, "changed\n")
        edit(tree / "settings.py")

    assert told_of(watch, change) == [str(tree / "settings.py")]


def test_what_matches_a_glob_is_told_however_deep(kind, tree, watching):
    edit(tree / "templates" / "shop" / "index.html")
    watch = watching([], [(str(tree / "templates"), "**/*.html"), (str(tree), "*.json")])

    def change():
        edit(tree / "templates" / "shop" / "index.html", "<p>")
        edit(tree / "templates" / "new" / "deep" / "a.html")
        edit(tree / "data.json")
        edit(tree / "shop" / "data.json")

    changed = ["data.json", "templates/new", "templates/new/deep", "templates/new/deep/a.html"]
    changed.append("templates/shop/index.html")
    assert told_of(watch, change) == [str(tree / each) for each in changed]


def test_a_file_that_is_to_come_is_told_with_its_folders(kind, tree, watching):
    path = tree / "lib" / "deep" / "module.py"
    watch = watching([str(path)])
    assert told_of(watch, lambda: edit(path)) == [str(path)]


def test_a_folder_outside_the_tree_that_gets_another_name_is_told(kind, tree, watching):
    path = tree / "shop" / "views.py"
    watch = watching([str(path)])
    assert told_of(watch, lambda: path.parent.rename(tree / "store")) == [str(path)]


def test_a_package_that_comes_back_as_a_link_is_told(kind, tree, watching):
    path = tree / "lib" / "shop" / "views.py"
    (tree / "lib").mkdir()
    watch = watching([str(path)])
    assert told_of(watch, lambda: path.parent.symlink_to(tree / "shop")) == [str(path)]


def test_a_file_behind_a_link_is_told(kind, tree, tmp_path, watching):
    path = tmp_path / "link.py"
    path.symlink_to(tree / "shop" / "views.py")
    watch = watching([str(path)])
    assert told_of(watch, lambda: edit(tree / "shop" / "views.py")) == [str(path)]


def test_a_folder_that_was_put_in_anothers_place_is_watched(kind, tree, watching):
    watch = watching([], tree=str(tree))

    def swap():
        shutil.copytree(tree / "shop", tree / ".shop")
        (tree / "shop").rename(tree / ".old")
        (tree / ".shop").rename(tree / "shop")

    changed = told_of(watch, swap)
    assert set(changed) - {str(tree / "shop")} == {str(tree / "shop/models.py"), str(tree / "shop/views.py")}
    assert told_of(watch, lambda: edit(tree / "shop" / "views.py")) == [str(tree / "shop" / "views.py")]


def test_many_changes_are_told_at_once(kind, tree, monkeypatch, watching):
    for name in ("QUIET", "QUIET_FOR_MANY"):
        monkeypatch.setattr(watch_module, name, 0.5)  # longer than a busy machine holds up the writer
    watch = watching([], tree=str(tree))
    paths = [tree / "shop" / f"module{number}.py" for number in range(40)]

    def change():
        for path in paths:
            edit(path)
            time.sleep(0.005)

    assert told_of(watch, change) == sorted(map(str, paths))


def test_changes_without_end_are_told_after_a_time(kind, tree, monkeypatch, watching):
    monkeypatch.setattr(watch_module, "LONGEST", 0.3)
    watch = watching([], tree=str(tree))
    stop = threading.Event()

    def change():
        for number in range(100_000):
            edit(tree / "settings.py", "#" * number)
            if stop.wait(0.01):
                break

    editing = threading.Thread(target=change)
    with waiting(watch) as told:
        editing.start()
        assert told.get(timeout=DEADLINE) == [str(tree / "settings.py")]
        assert editing.is_alive()
        stop.set()
        editing.join()


def test_what_was_there_and_is_again_wakes_nobody_for_good(kind, tree, watching):
    path = tree / "settings.py"
    watch = watching([str(path)])
    os.utime(path, ns=(0, path.stat().st_mtime_ns))  # the kernel tells of it, and nothing has changed
    assert told_of(watch, lambda: edit(path)) == [str(path)]


# Since a moment


def test_what_changed_since_a_moment_is_found(tree, watching):
    before = time.time_ns()
    for path in tree.rglob("*"):
        os.utime(path, ns=(0, 0))
    path = str(tree / "settings.py")
    watch = watching([str(tree / "absent.py")], tree=str(tree))
    assert path in watch.since(before - 10**9, {})[0]  # by the ctime
    changed, digests = watch.since(time.time_ns() + 10**9, {})
    assert (changed, digests) == ([], {})


def test_what_was_seen_with_its_contents_has_not_changed_though_its_time_is_of_the_future(tree, watching):
    path = tree / "settings.py"
    moment = time.time_ns() + 10**11
    os.utime(path, ns=(2 * moment, 2 * moment))
    changed, seen = watching([], tree=str(tree)).since(moment, {})
    assert changed == [str(path)]
    assert watching([], tree=str(tree)).since(moment, seen) == ([], seen)
    edit(path)
    os.utime(path, ns=(2 * moment, 2 * moment))
    assert watching([], tree=str(tree)).since(moment, seen)[0] == [str(path)]


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path):
    assert watch_module.digest(str(tmp_path / "absent")) == ""


def test_what_is_no_file_is_none(tmp_path, watching):
    os.mkfifo(tmp_path / "pipe.py")
    watch = watching([str(tmp_path / "pipe.py"), str(tmp_path), "a\0b"], [("a\0b", "*")], str(tmp_path))
    assert watch.since(0, {}) == ([], {})


# Patterns


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.py", "a.py", True),
        ("*.py", "b/a.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "b/c/a.py", True),
        ("**/*.py", "b/c/a.pyc", False),
        ("**", "b/c/a", True),
        ("b/**/a?.[!ch]", "b/a1.d", True),
        ("b/**/a?.[!ch]", "b/x/a1.c", False),
        ("[ch]", "h", True),
        ("[", "[", True),
        ("a.c", "abc", False),
    ],
)
def test_a_pattern_matches_as_those_of_a_path_do(pattern, path, matches):
    assert bool(compile_glob(pattern).fullmatch(path)) is matches


# Limits of the system


def test_without_inotify_to_be_had_it_looks_in_turns(monkeypatch, tree, watching):
    inotify_simple = pytest.importorskip("inotify_simple")

    def refuse():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(inotify_simple, "INotify", refuse)
    watch = watching([], tree=str(tree))
    assert told_of(watch, lambda: edit(tree / "settings.py")) == [str(tree / "settings.py")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_without_watches_to_be_had_it_looks_in_turns_and_what_is_closed_to_it_is_left_out(
    number, monkeypatch, tree, watching
):
    inotify_simple = pytest.importorskip("inotify_simple")

    class Few(inotify_simple.INotify):
        def add_watch(self, path, mask):
            if path.endswith("shop"):
                raise OSError(number, os.strerror(number))
            return super().add_watch(path, mask)

    monkeypatch.setattr(inotify_simple, "INotify", Few)
    watch = watching([], tree=str(tree))
    path = tree / ("shop/views.py" if number == errno.ENOSPC else "settings.py")
    assert told_of(watch, lambda: edit(path)) == [str(path)]


def test_looking_in_turns_takes_a_fifth_of_the_time_at_most(monkeypatch):
    monkeypatch.setattr(events, "POLLED", 0.01)
    polling = events.Polling()
    polling.wait(None)
    time.sleep(0.05)  # what looking took
    begin = time.monotonic()
    polling.wait(None)
    assert time.monotonic() - begin >= 0.2
