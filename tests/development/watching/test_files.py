"""What a change of files is, for those that sleep until there is one and for those that look in turns."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import queue
import shutil
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from django_wspbus.development.watching import events, mounts
from django_wspbus.development.watching import files as watch_module
from django_wspbus.development.watching.files import FileWatch, WatchList
from tests.processes import DEADLINE

needs_inotify = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


def refuse():
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.fixture(params=[pytest.param("inotify", marks=needs_inotify), "polling"])
def kind(request, monkeypatch):
    if request.param == "polling":
        monkeypatch.setattr(events, "INotify", refuse)
        monkeypatch.setattr(events, "POLLED", 0.02)
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

        def start(files, globs=(), tree=None, poll=None):
            watch = stack.enter_context(closing(FileWatch()))
            assert watch.watch(listed(files, globs, poll), tree) == set()
            return watch

        yield start


def listed(files, globs=(), poll=None):
    return WatchList(list(files), [list(pair) for pair in globs], poll)


def await_change(watch):
    """Return what has changed, once it is complete."""
    while not (changed := watch.wait()):
        pass
    return watch.settle(changed)


@contextlib.contextmanager
def waiting(watch):
    """Yield a queue, in which another thread puts the list of the paths that the watch reports first."""
    reports = queue.Queue()
    thread = threading.Thread(target=lambda: reports.put(await_change(watch)), daemon=True)
    thread.start()
    yield reports
    thread.join(DEADLINE)
    assert not thread.is_alive()


def changes_after(watch, change):
    change()  # all of it before the watch looks, which may take a pause between two steps for the end
    with waiting(watch) as reports:
        return reports.get(timeout=DEADLINE)


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
def test_a_change_in_the_tree_is_reported(name, kind, tree, watching):
    path, change, changed = CHANGES[name]
    watch = watching([], tree=str(tree))
    assert changes_after(watch, lambda: change(tree / path)) == sorted(str(tree / each) for each in changed)


@pytest.mark.parametrize(
    "other",
    ["shop/notes.txt", ".git/hook.py", "node_modules/x/a.py", "shop/__pycache__/a.py", "venv/lib/a.py"],
)
def test_a_change_outside_of_the_project_is_not_reported(other, kind, tree, watching):
    edit(tree / "venv" / "pyvenv.cfg")
    edit(tree / other)
    watch = watching([], tree=str(tree))

    def change():
        edit(tree / other, "changed\n")
        edit(tree / "settings.py")

    assert changes_after(watch, change) == [str(tree / "settings.py")]


def test_a_file_that_matches_a_glob_is_reported_at_any_depth(kind, tree, watching):
    edit(tree / "templates" / "shop" / "index.html")
    watch = watching([], [(str(tree / "templates"), "**/*.html"), (str(tree), "*.json")])

    def change():
        edit(tree / "templates" / "shop" / "index.html", "<p>")
        edit(tree / "templates" / "new" / "deep" / "a.html")
        edit(tree / "data.json")
        edit(tree / "shop" / "data.json")

    changed = ["data.json", "templates/new/deep/a.html", "templates/shop/index.html"]
    assert changes_after(watch, change) == [str(tree / each) for each in changed]


def test_a_file_that_does_not_exist_yet_is_reported_once_its_folders_exist(kind, tree, watching):
    path = tree / "lib" / "deep" / "module.py"
    watch = watching([str(path)])
    assert changes_after(watch, lambda: edit(path)) == [str(path)]


def test_a_folder_outside_of_the_tree_that_is_renamed_is_reported(kind, tree, watching):
    path = tree / "shop" / "views.py"
    watch = watching([str(path)])
    assert changes_after(watch, lambda: path.parent.rename(tree / "store")) == [str(path)]


def test_a_package_that_comes_back_as_a_link_is_reported(kind, tree, watching):
    path = tree / "lib" / "shop" / "views.py"
    (tree / "lib").mkdir()
    watch = watching([str(path)])
    assert changes_after(watch, lambda: path.parent.symlink_to(tree / "shop")) == [str(path)]


def test_a_file_behind_a_link_is_reported(kind, tree, tmp_path, watching):
    path = tmp_path / "link.py"
    path.symlink_to(tree / "shop" / "views.py")
    watch = watching([str(path)])
    assert changes_after(watch, lambda: edit(tree / "shop" / "views.py")) == [str(path)]


def test_a_folder_that_was_put_in_anothers_place_is_watched(kind, tree, watching):
    watch = watching([], tree=str(tree))

    def swap():
        shutil.copytree(tree / "shop", tree / ".shop")
        (tree / "shop").rename(tree / ".old")
        (tree / ".shop").rename(tree / "shop")

    changed = changes_after(watch, swap)
    assert set(changed) - {str(tree / "shop")} == {str(tree / "shop/models.py"), str(tree / "shop/views.py")}
    assert changes_after(watch, lambda: edit(tree / "shop" / "views.py")) == [str(tree / "shop" / "views.py")]


def test_many_changes_are_reported_at_once(kind, tree, monkeypatch, watching):
    for name in ("QUIET", "QUIET_FOR_MANY"):
        monkeypatch.setattr(watch_module, name, 2.0)  # longer than a busy machine holds up the writer
    monkeypatch.setattr(watch_module, "LONGEST", DEADLINE)
    watch = watching([], tree=str(tree))
    paths = [tree / "shop" / f"module{number}.py" for number in range(40)]

    with waiting(watch) as reports:
        for path in paths:
            edit(path)
            time.sleep(0.005)
        assert reports.get(timeout=DEADLINE) == sorted(map(str, paths))


def test_changes_without_end_are_reported_after_a_time(kind, tree, monkeypatch, watching):
    monkeypatch.setattr(watch_module, "LONGEST", 0.3)
    watch = watching([], tree=str(tree))
    stop = threading.Event()

    def change():
        for number in range(100_000):
            edit(tree / "settings.py", "#" * number)
            if stop.wait(0.01):
                break

    editing = threading.Thread(target=change)
    with waiting(watch) as reports:
        editing.start()
        assert reports.get(timeout=DEADLINE) == [str(tree / "settings.py")]
        assert editing.is_alive()
        stop.set()
        editing.join()


def test_a_file_that_is_touched_without_a_change_is_not_reported(kind, tree, watching):
    path = tree / "settings.py"
    watch = watching([str(path)])
    os.utime(path, ns=(0, path.stat().st_mtime_ns))  # an event of the kernel, without a change
    assert changes_after(watch, lambda: edit(path)) == [str(path)]


# Another list


def test_of_files_that_were_watched_before_a_change_is_not_lost_when_the_list_is_replaced(tree, watching):
    kept, left_out, gone, new = (str(tree / f"{name}.py") for name in ("kept", "left_out", "gone", "new"))
    for path in (kept, left_out, gone, new):
        edit(Path(path))
    watch = watching([kept, left_out, gone])
    edit(Path(kept), "changed\n")
    edit(Path(left_out), "changed\n")
    os.remove(gone)
    assert watch.watch(listed([kept, gone, new])) == {kept, gone}


def test_the_same_list_again_is_no_look_and_what_has_changed_is_noticed_by_its_events(kind, tree, watching):
    path = str(tree / "settings.py")
    watch = watching([path])
    edit(Path(path), "changed\n")
    assert watch.watch(listed([path]), since=0) == set()
    assert await_change(watch) == [path]


def test_of_files_that_were_not_watched_before_those_with_a_later_time_have_changed(tree, watching):
    before, ctime, future = (tree / f"{name}.py" for name in ("before", "ctime", "future"))
    edit(before)
    moment = before.stat().st_ctime_ns + 20_000_000
    while time.time_ns() < moment + 20_000_000:
        time.sleep(0.005)
    edit(ctime)
    os.utime(ctime, ns=(0, 0))  # as `cp -p` does
    edit(future)
    os.utime(future, ns=(2 * time.time_ns(), 2 * time.time_ns()))
    watch = watching([])
    files = listed(map(str, (before, ctime, future, tree / "absent.py")))
    assert watch.watch(files, since=moment) == {str(ctime), str(future)}
    assert watch.watch(files, since=0) == set()


def test_a_save_in_the_same_tick_of_the_kernels_clock_counts_as_later(tree, watching):
    path = tree / "settings.py"
    moment = path.stat().st_ctime_ns + 4_000_000
    assert watching([]).watch(listed([str(path)]), since=moment) == {str(path)}


def test_without_a_tree_new_folders_are_no_change(kind, tree, watching):
    watch = watching([], [(str(tree), "**/*.html")])

    def change():
        (tree / "new").mkdir()
        edit(tree / "new" / "a.html")

    assert changes_after(watch, change) == [str(tree / "new" / "a.html")]


def test_it_is_woken_by_another_thread(kind, tree, watching):
    watch = watching([str(tree / "settings.py")], poll=None)
    threading.Timer(0.05, watch.wake).start()
    assert watch.wait() == set()


@pytest.mark.parametrize(
    ("polls", "expected"), [((True, None), True), ((True, False), False), ((None, True), True)]
)
def test_two_lists_are_joined_and_the_later_setting_of_poll_prevails(polls, expected):
    one = WatchList(["b", "a"], [["f", "*"]], poll=polls[0])
    other = WatchList(["c", "a"], [["f", "*"], ["e", "*"]], poll=polls[1])
    assert one | other == WatchList(["a", "b", "c"], [["e", "*"], ["f", "*"]], poll=expected)


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path):
    assert watch_module.digest(str(tmp_path / "absent")) == ""


def test_what_is_no_file_is_none(tmp_path, watching):
    os.mkfifo(tmp_path / "pipe.py")
    files = listed([str(tmp_path / "pipe.py"), str(tmp_path), "a\0b"], [("a\0b", "*")])
    assert watching([]).watch(files, str(tmp_path), since=0) == set()


# Limits of the system


def test_without_inotify_it_polls(monkeypatch, tree, watching):
    monkeypatch.setattr(events, "POLLED", 0.02)
    monkeypatch.setattr(events, "INotify", refuse)
    watch = watching([], tree=str(tree))
    assert watch.means == "by polling, as inotify is not available"
    assert changes_after(watch, lambda: edit(tree / "settings.py")) == [str(tree / "settings.py")]


@needs_inotify
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_without_watches_to_be_had_it_looks_in_turns_and_what_is_closed_to_it_is_left_out(
    number, monkeypatch, tree, watching
):
    class Few(events.INotify):
        def add_watch(self, folder, mask):
            if folder.endswith("shop"):
                raise OSError(number, os.strerror(number))
            return super().add_watch(folder, mask)

    monkeypatch.setattr(events, "POLLED", 0.02)
    monkeypatch.setattr(events, "INotify", Few)
    watch = watching([], tree=str(tree))
    path = tree / ("shop/views.py" if number == errno.ENOSPC else "settings.py")
    assert changes_after(watch, lambda: edit(path)) == [str(path)]


def test_looking_takes_a_fifth_of_the_time_at_most(monkeypatch, tree, watching):
    monkeypatch.setattr(events, "POLLED", 0.01)
    watch = watching([str(tree / "settings.py")], poll=True)
    watch.wait()
    time.sleep(0.05)  # what looking took
    begin = time.monotonic()
    watch.wait()
    assert time.monotonic() - begin >= 0.2


@contextlib.contextmanager
def written_silently(path):
    """Yield the memory of a file, of whose changes the kernel reports nothing."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        yield memory


@needs_inotify
def test_what_raises_no_events_is_polled_and_the_kernel_reports_the_rest(tree, watching, monkeypatch):
    table = tree / "mountinfo"
    table.write_text(f"36 35 0:41 / {tree}/shop rw - nfs4 host:/ rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    monkeypatch.setattr(events, "POLLED", 0.02)
    silent, loud = tree / "shop" / "views.py", tree / "settings.py"
    watch = watching([str(silent), str(loud)])
    assert watch.means == f"with inotify, and by polling of {tree}/shop (nfs4), where changes raise no events"
    with written_silently(silent) as memory:

        def change():
            memory[:3] = b"two"
            memory.flush()

        assert changes_after(watch, change) == [str(silent)]
    monkeypatch.setattr(events, "POLLED", 2 * DEADLINE)
    watch.wait()
    assert changes_after(watch, lambda: loud.write_text("three")) == [str(loud)]


@needs_inotify
def test_events_that_come_all_the_time_do_not_keep_it_from_polling(tree, watching, monkeypatch):
    table = tree / "mountinfo"
    table.write_text(f"36 35 0:41 / {tree}/shop rw - nfs4 host:/ rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    monkeypatch.setattr(events, "POLLED", 0.1)
    silent = tree / "shop" / "views.py"
    watch = watching([str(silent), str(tree / "settings.py")])
    stop = threading.Event()
    writing = threading.Thread(target=write_until, args=(stop, tree / "other.txt"))
    writing.start()
    try:
        with written_silently(silent) as memory:

            def change():
                memory[:3] = b"two"
                memory.flush()

            assert changes_after(watch, change) == [str(silent)]
    finally:
        stop.set()
        writing.join()


def write_until(stop, path):
    while not stop.wait(0.01):
        path.write_text("other")


@needs_inotify
@pytest.mark.parametrize(
    ("poll", "means"),
    [(True, 'by polling, as WSPBUS["AUTORELOAD"]["POLL"] is True'), (False, "with inotify")],
)
def test_whether_it_polls_can_be_set(poll, means, tree, watching, monkeypatch):
    table = tree / "mountinfo"
    table.write_text(f"36 35 0:41 / {tree}/shop rw - nfs4 host:/ rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    monkeypatch.setattr(events, "POLLED", 0.02)
    watch = watching([str(tree / "shop" / "views.py")], poll=poll)
    assert watch.means == means
    path = tree / "shop" / "views.py"
    assert changes_after(watch, lambda: edit(path)) == [str(path)]


@needs_inotify
def test_a_folder_that_has_the_inode_of_the_one_before_is_watched(tree, watching, monkeypatch):
    monkeypatch.setattr(watch_module, "inode_of", lambda path: int(os.path.isdir(path)))
    path = tree / "deep" / "file.ini"
    edit(path)
    watch = watching([str(path)])
    shutil.rmtree(path.parent)
    edit(path, "another\n")
    assert await_change(watch) == [str(path)]
    assert changes_after(watch, lambda: edit(path, "a third\n")) == [str(path)]


@needs_inotify
def test_a_folder_that_goes_while_it_is_looked_at_leaves_its_parent_watched(tree, watching, monkeypatch):
    path = tree / "deep" / "file.ini"
    edit(path)
    removals = [path.parent]

    class Late(events.INotify):
        def add_watch(self, folder, mask):
            if removals and folder == str(removals[0]):
                shutil.rmtree(removals.pop())
            return super().add_watch(folder, mask)

    monkeypatch.setattr(events, "INotify", Late)
    watch = watching([str(path)])
    assert removals == []
    assert changes_after(watch, lambda: edit(path)) == [str(path)]


@needs_inotify
def test_a_lost_event_has_all_files_looked_at(tree, watching, monkeypatch):
    class Overflowing(events.INotify):
        def read(self, timeout=None):
            overflow = events.flags.Q_OVERFLOW
            return [each._replace(wd=-1, mask=overflow, name="") for each in super().read(timeout)]

    monkeypatch.setattr(events, "INotify", Overflowing)
    watch = watching([str(tree / "settings.py")])
    assert changes_after(watch, lambda: edit(tree / "settings.py")) == [str(tree / "settings.py")]


@needs_inotify
def test_a_file_that_has_come_and_gone_has_changed_as_it_may_have_been_read(tree, watching):
    watch = watching([], [[str(tree), "*.txt"]])

    def pass_by():
        (tree / "new.txt").write_text("new")
        (tree / "new.txt").unlink()

    assert changes_after(watch, pass_by) == [str(tree / "new.txt")]


def test_a_folder_with_two_names_is_watched_under_both(kind, tree, watching):
    (tree / "link").symlink_to(tree / "shop")
    one, two = tree / "shop" / "views.py", tree / "link" / "models.py"
    watch = watching([str(one), str(two)])
    for path in (one, two, one):
        assert changes_after(watch, lambda path=path: edit(path, str(os.urandom(8)))) == [str(path)]


def test_a_folder_that_comes_goes_and_comes_again_is_watched(kind, tree, watching):
    path = tree / "deep" / "deeper" / "file.ini"
    watch = watching([str(path)])
    for _ in range(2):
        assert changes_after(watch, lambda: edit(path)) == [str(path)]
        assert changes_after(watch, lambda: shutil.rmtree(tree / "deep")) == [str(path)]


def test_hidden_folders_of_the_root_directory_are_left_out(monkeypatch):
    monkeypatch.setattr(watch_module, "walk", lambda root, is_deep: [])
    changes = iter([set(), {("/.cache/x.py", False), ("/node_modules/x.py", False), ("/shop/x.py", False)}])
    monkeypatch.setattr(watch_module, "state_of", lambda path: (1, 1, 1, 1, 1))
    monkeypatch.setattr(events.Events, "wait", lambda self, timeout=None: next(changes))
    with closing(FileWatch()) as watch:
        watch.watch(WatchList(globs=[["/", "**/*.py"]]))
        assert watch.wait() == set()
        assert watch.wait() == {"/shop/x.py"}
