from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from django.core.signals import request_finished, request_started
from django.utils.autoreload import autoreload_started, file_changed

from django_wspbus import Bus
from django_wspbus.development.launch import CHANGED, WATCH
from django_wspbus.development.watching.files import WatchList
from django_wspbus.plugins import autoreload as autoreload_module
from django_wspbus.plugins.autoreload import Autoreloader
from django_wspbus.process.site import SiteUnreachable
from tests.processes import DEADLINE
from tests.servers.load import await_that


class Site:
    """Notes what is published, and may be unreachable."""

    def __init__(self, error=None):
        self.error = error
        self.published = []

    def publish(self, channel, *arguments):
        self.published.append((channel, *arguments))
        if self.error is not None:
            raise self.error

    def await_published(self, count):
        await_that(lambda: len(self.published) >= count)
        return self.published[count - 1]


@pytest.fixture
def run():
    """Start an Autoreloader, which stops with the test; return it."""
    started = []

    def start(site, **options):
        bus = Bus()
        bus.site = site
        plugin = Autoreloader(bus, **options)
        plugin.subscribe()
        plugin.start()
        plugin.start()  # once more is no other thread
        started.append((plugin, plugin._thread))
        return plugin

    yield start
    for plugin, thread in started:
        plugin.stop()
        plugin.unsubscribe()
        thread.join(DEADLINE)
        assert not thread.is_alive()


@pytest.fixture
def receive():
    """Connect receivers of Django's signals for the time of the test."""
    connected = []

    def connect(signal, receiver):
        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


def test_it_reports_the_files_of_the_process_and_those_that_settings_and_apps_add(run, receive, tmp_path):
    def extend(sender, **kwargs):
        sender.extra_files.add(tmp_path / "named.ini")
        sender.watch_dir(tmp_path / "texts", "**/*.md")

    receive(autoreload_started, extend)
    site = Site()
    run(site, extra_files=[tmp_path / ".env"], extra_dirs={tmp_path / "data": "*.json"}, poll=False)
    channel, watched, since = site.await_published(1)
    watched = WatchList(**watched)
    assert (channel, since, watched.poll) == (WATCH, None, False)
    assert {__file__, str(tmp_path / "named.ini"), str(tmp_path / ".env")} <= set(watched.files)
    assert [str(tmp_path / "texts"), "**/*.md"] in watched.globs
    assert [str(tmp_path / "data"), "*.json"] in watched.globs


def test_a_receiver_of_autoreload_started_that_fails_is_logged_and_the_others_are_heard(
    run, receive, tmp_path, caplog
):
    def fail(**kwargs):
        raise ValueError("this receiver")

    receive(autoreload_started, fail)
    receive(autoreload_started, lambda sender, **kwargs: sender.extra_files.add(tmp_path / "named.ini"))
    site = Site()
    run(site)
    assert str(tmp_path / "named.ini") in site.await_published(1)[1]["files"]
    assert "Autoreload: a receiver of autoreload_started failed." in caplog.messages


def test_it_reports_the_imports_of_a_request_and_when_they_began(db, run, tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    site = Site()
    run(site)
    site.await_published(1)
    request_started.send(sender=None)
    request_finished.send(sender=None)  # one that imports nothing
    request_started.send(sender=None)
    import imported_late  # noqa: F401

    try:
        request_finished.send(sender=None)
        channel, watched, since = site.await_published(2)
    finally:
        del sys.modules["imported_late"]
    assert (channel, watched["files"]) == (WATCH, [str(tmp_path / "imported_late.py")])
    assert since < (tmp_path / "imported_late.py").stat().st_ctime_ns + DEADLINE * 10**9


def test_changed_files_that_no_receiver_takes_care_of_call_for_a_new_start(run, receive):
    asked = []

    def veto(sender, file_path, **kwargs):
        asked.append(file_path)
        return file_path.suffix == ".md"

    receive(file_changed, veto)
    site = Site()
    plugin = run(site)
    site.await_published(1)
    plugin.bus.publish(CHANGED, ["/texts/new.md"])
    plugin.bus.publish(CHANGED, ["/shop/views.py", "/texts/old.md"])
    assert site.await_published(2) == ("autoreload", ["/shop/views.py"])
    assert asked == [Path("/texts/new.md"), Path("/shop/views.py"), Path("/texts/old.md")]


def test_a_receiver_that_fails_is_logged_and_the_others_are_asked(run, receive, caplog):
    def fail(sender, **kwargs):
        raise ValueError("this receiver")

    receive(file_changed, fail)
    receive(file_changed, lambda sender, file_path, **kwargs: file_path.suffix == ".md")
    site = Site()
    plugin = run(site)
    site.await_published(1)
    plugin.ask_about(["/texts/new.md"])
    plugin.ask_about(["/shop/views.py"])
    assert site.await_published(2) == ("autoreload", ["/shop/views.py"])
    text = "Autoreload: a receiver of file_changed failed at /texts/new.md."
    assert [each for each in caplog.records if each.getMessage() == text and each.exc_info]


@pytest.mark.parametrize("error", [SiteUnreachable("no site"), RuntimeError("refused")])
def test_a_site_that_refuses_a_report_is_logged_and_the_next_change_is_reported(error, run, caplog):
    site = Site(error)
    plugin = run(site)
    site.await_published(1)
    await_that(lambda: f"Autoreload: {error}" in caplog.messages)
    site.error = None
    plugin.ask_about(["/shop/views.py"])
    assert site.await_published(2) == ("autoreload", ["/shop/views.py"])


def test_while_a_debugger_holds_the_terminal_nothing_starts_again(run, monkeypatch):
    holds = [True]
    looked = threading.Event()

    def holds_terminal():
        looked.set()
        return holds[0]

    monkeypatch.setattr(autoreload_module, "DEBUGGER_INTERVAL", 0.01)
    monkeypatch.setattr(autoreload_module, "holds_terminal", holds_terminal)
    site = Site()
    plugin = run(site)
    logged = []
    plugin.bus.subscribe("log", lambda message, level: logged.append(message), role="any")
    site.await_published(1)
    plugin.ask_about(["/shop/views.py"])
    assert looked.wait(DEADLINE)
    await_that(lambda: logged == ["Changed: /shop/views.py. Restarting once the debugger has ended."])
    assert len(site.published) == 1
    holds[0] = False
    assert site.await_published(2) == ("autoreload", ["/shop/views.py"])
