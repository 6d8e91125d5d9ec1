from __future__ import annotations

import threading
import time

import pytest
from django.utils import autoreload
from django.utils.autoreload import BaseReloader

from django_wspbus import Bus
from django_wspbus.development.reloading.inotify import InotifyReloader
from django_wspbus.development.reloading.reloaders import PollingReloader, TooManyWatches
from django_wspbus.development.watching import mounts
from django_wspbus.plugins import autoreload as autoreload_module
from django_wspbus.plugins.autoreload import Autoreloader, make_reloader, why
from django_wspbus.process.site import SiteUnreachable
from tests.processes import DEADLINE


class Site:
    """Notes what is published, and may be unreachable."""

    def __init__(self, error=None):
        self.error = error
        self.published = []
        self.changed = threading.Event()

    def publish(self, *what):
        self.published.append(what)
        self.changed.set()
        if self.error is not None:
            raise self.error


class Reloader(BaseReloader):
    """Tells of what is in ``files`` as changed."""

    files = ()
    error = None

    def watched_files(self, include_globs=True):
        return iter(self.files)

    def tick(self):
        while True:
            if type(self).error is not None:
                error, type(self).error = type(self).error, None
                raise error
            yield
            for path in self.files:
                self.notify_file_changed(path)
            self._stop_condition.wait(0.01)


@pytest.fixture
def reloader(monkeypatch):
    kind = type("Fake", (Reloader,), {})
    monkeypatch.setattr(autoreload, "get_reloader", kind)
    return kind


@pytest.fixture
def run():
    """Start an Autoreloader, which stops with the test."""
    started = []

    def start(site, **options):
        bus = Bus()
        bus.site = site
        plugin = Autoreloader(bus, **options)
        plugin.start()
        plugin.start()  # once more is no other thread
        started.append((plugin, plugin._thread))
        return plugin

    yield start
    for plugin, thread in started:
        plugin.stop()
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_files_that_are_saved_together_are_one_change(reloader, run, tmp_path, monkeypatch):
    for name in ("QUIET", "QUIET_FOR_MANY"):
        monkeypatch.setattr(autoreload_module, name, 1.0)  # longer than a busy machine holds up the writer
    monkeypatch.setattr(autoreload_module, "LONGEST", DEADLINE)
    reloader.files = [tmp_path / f"part{number}.py" for number in range(40)]
    site = Site()
    for path in reloader.files:
        path.write_text("")
    run(site)
    for path in reloader.files:
        path.write_text("PART = 1\n")
        time.sleep(0.005)
    assert site.published == []
    assert site.changed.wait(DEADLINE)
    assert len(site.published) == 1


def test_a_change_is_published_with_its_name(reloader, run, tmp_path):
    path = tmp_path / "views.py"
    path.touch()
    reloader.files = [path]
    site = Site()
    run(site)
    assert site.changed.wait(DEADLINE)
    assert site.published == [("autoreload", [str(path)], {}, {})]


@pytest.mark.parametrize("error", [SiteUnreachable("nobody"), RuntimeError("refused")])
def test_a_site_that_does_not_take_it_is_told(error, reloader, run, tmp_path, caplog):
    path = tmp_path / "views.py"
    path.touch()
    reloader.files = [path]
    site = Site(error)
    plugin = run(site)
    assert site.changed.wait(DEADLINE)
    plugin.stop()
    plugin._stopping.wait(DEADLINE)
    deadline = time.monotonic() + DEADLINE
    while f"Autoreload: {error}" not in caplog.messages:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_seen_is_no_change_and_what_repeats_is_one_no_more(
    reloader, run, tmp_path, caplog, monkeypatch
):
    from django_wspbus.development.reloading.reloaders import digest

    monkeypatch.setattr("django_wspbus.project.libraries.project_files", list)  # those of the tests
    files = [tmp_path / name for name in ("seen.py", "often.py", "oftener.py")]
    for path in files:
        path.touch()
    reloader.watched_files = lambda self, include_globs=True: iter(files)
    site = Site()
    plugin = run(
        site,
        since=1,
        seen={str(files[0]): digest(files[0])},
        repeats={str(files[1]): 8, str(files[2]): 9},
    )
    deadline = time.monotonic() + DEADLINE
    while not [each for each in caplog.messages if "often.py changes during each start" in each]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "oftener.py" not in caplog.text
    assert site.published == []
    files[1].unlink()
    found, repeats = plugin._bequest()
    assert set(found) == {str(files[0]), str(files[2])}
    assert repeats == {str(files[0]): 1, str(files[2]): 10}


@pytest.mark.parametrize("error", [OSError("the disk"), ReferenceError("a module"), TooManyWatches()])
def test_a_reloader_that_fails_is_followed_by_another(error, reloader, run, tmp_path, caplog):
    path = tmp_path / "views.py"
    path.touch()
    reloader.error = error
    site = Site()
    plugin = run(site, extra_files=[path])
    is_limit = isinstance(error, TooManyWatches)
    deadline = time.monotonic() + DEADLINE
    while not isinstance(plugin._reloader, PollingReloader if is_limit else InotifyReloader):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    while not site.changed.wait(0.1):
        path.write_text("")
        assert time.monotonic() < deadline
    assert ("Fake has failed" in caplog.text) is not is_limit


def test_where_the_kernel_does_not_tell_it_is_looked_in_turns(monkeypatch):
    monkeypatch.setattr(autoreload, "get_reloader", autoreload.StatReloader)
    assert type(make_reloader(poll=True)) is PollingReloader
    monkeypatch.setitem(__import__("sys").modules, "inotify_simple", None)
    monkeypatch.delitem(
        __import__("sys").modules, "django_wspbus.development.reloading.inotify", raising=False
    )
    assert type(make_reloader()) is PollingReloader


@pytest.mark.parametrize(
    ("poll", "kind", "expected"),
    [
        (None, InotifyReloader, ", and by polling of {folder} (9p), where changes raise no events"),
        (False, InotifyReloader, ""),
        (True, PollingReloader, ', as WSPBUS["AUTORELOAD"]["POLL"] is True'),
    ],
)
def test_the_start_tells_why_it_is_this_reloader(poll, kind, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(autoreload, "get_reloader", autoreload.StatReloader)
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mountinfo")
    (tmp_path / "mountinfo").write_text(f"36 35 0:41 / {tmp_path} rw - 9p host rw\n")
    made = make_reloader(poll)
    assert type(made) is kind
    assert why(made, poll, [str(tmp_path)]) == expected.format(folder=tmp_path)
    if kind is InotifyReloader:
        close(made)


def close(reloader):
    """Close a reloader that has not run."""
    ticker = reloader.tick()
    reloader.stop()
    assert next(ticker, "ended") == "ended"


def test_the_reloader_of_a_package_is_kept_with_a_word_where_it_may_be_deaf(reloader, tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mountinfo")
    (tmp_path / "mountinfo").write_text(f"36 35 0:41 / {tmp_path} rw - nfs4 host:/ rw\n")
    made = make_reloader()
    assert type(made) is reloader
    assert "may miss changes" in why(made, None, [str(tmp_path)])
