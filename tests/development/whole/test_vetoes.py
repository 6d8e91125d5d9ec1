"""Django's signals of autoreload, and what a receiver takes care of without a reload."""

from __future__ import annotations

import struct

import pytest

from tests.servers.load import await_value

from .reloading import each_server

RECEIVERS = """
from django.dispatch import receiver
from django.utils.autoreload import autoreload_started, file_changed


@receiver(autoreload_started)
def look_there(sender, **kwargs):
    note(f"autoreload_started {type(sender).__name__}")
    sender.watch_dir("texts", "*.md")
    sender.extra_files.add(Path("named.ini").absolute())


@receiver(file_changed)
def veto(sender, file_path, **kwargs):
    note(f"file_changed {file_path.name}")
    return file_path.suffix == ".md"
"""


def catalogue(**messages: str) -> bytes:
    """Return a .mo file."""
    pairs = [(b"", b"Content-Type: text/plain; charset=UTF-8\n")]
    pairs += sorted((key.encode(), value.encode()) for key, value in messages.items())
    head = 28 + 16 * len(pairs)
    tables, texts = [[], []], b""
    for index in (0, 1):
        for pair in pairs:
            tables[index].append(struct.pack("<II", len(pair[index]), head + len(texts)))
            texts += pair[index] + b"\0"
    sizes = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    return sizes + b"".join(tables[0]) + b"".join(tables[1]) + texts


@pytest.mark.extended
@each_server
def test_what_django_takes_care_of_itself_shows_without_a_reload(development, server, spare):
    locale = development.root / "locale" / "de" / "LC_MESSAGES"
    locale.mkdir(parents=True)
    (locale / "django.mo").write_bytes(catalogue(shop="Laden"))
    development.set_up(
        server,
        spare=spare,
        USE_I18N=True,
        LANGUAGE_CODE="de",
        LOCALE_PATHS=[str(development.root / "locale")],
    )
    (development.root / "texts").mkdir()
    translated = "from django.utils.translation import gettext; result = gettext('shop')"
    development.append("shop/listeners.py", "from pathlib import Path\n" + RECEIVERS)
    with development.served() as served:
        assert served.get("/page/outer.txt") == "outer 1"
        assert served.get("/page/inner.txt") == "inner 1"
        assert served.evaluate(translated) == "Laden"
        served.site.wait_for_line("^Watching for file changes with inotify$")
        kind = "autoreload_started Reloader"
        (started,) = development.expect_note(kind)
        assert started.pid == served.version()[1]  # the process that has the templates

        for number in (2, 3):
            development.write("templates/outer.txt", f"outer {number}")
            await_value(lambda: served.get("/page/outer.txt"), f"outer {number}")
            development.write("shop/templates/inner.txt", f"inner {number}")
            await_value(lambda: served.get("/page/inner.txt"), f"inner {number}")
        # One that was not there, in a folder that was not; then it changes, too.
        for number in (1, 2):
            development.write("templates/new/new.txt", f"new {number}")
            await_value(lambda: served.get("/page/new/new.txt"), f"new {number}")
        # One that is found before another of its name.
        development.write("templates/inner.txt", "before")
        await_value(lambda: served.get("/page/inner.txt"), "before")
        (development.root / "templates/inner.txt").unlink()
        await_value(lambda: served.get("/page/inner.txt"), "inner 3")

        (locale / "django.po").write_text('msgid "shop"\nmsgstr "Bude"\n')
        (locale / "django.mo").write_bytes(catalogue(shop="Bude"))
        await_value(lambda: served.evaluate(translated), "Bude")

        development.write("texts/vetoed.md", "new")
        development.expect_note("file_changed vetoed.md")
        development.write("texts/vetoed.md", "changed")
        development.expect_note("file_changed vetoed.md", 2)
        assert served.restarts() == served.changes() == []
        assert {note.pid for note in development.notes() if "file_changed" in note.event} == {started.pid}

        development.write("named.ini", "new")  # without a veto
        served.await_reload()
        development.expect_note(kind, 2)
        served.await_calm()
        development.write("texts/vetoed.md", "again")
        served.expect_version(development.edit())
        assert served.changes() == ["named.ini", "shop/version.py"]


@pytest.mark.extended
def test_a_receiver_that_fails_is_logged_and_the_next_save_is_seen(development):
    failing = """
from django.dispatch import receiver
from django.utils.autoreload import file_changed


@receiver(file_changed)
def fail(sender, file_path, **kwargs):
    if file_path.suffix == ".txt":
        raise RuntimeError("this receiver")
"""
    development.append("shop/listeners.py", failing)
    development.set_up()
    with development.served() as served:
        served.await_calm()
        development.write("templates/outer.txt", "outer 2")
        served.site.wait_for_line("Autoreload: a receiver of file_changed failed at templates/outer.txt")
        served.site.wait_for_line("RuntimeError: this receiver")
        served.expect_version(development.edit())


# By other means


@pytest.mark.extended
@pytest.mark.parametrize("means", ["inotify", "polling"])
def test_by_what_means_files_are_watched_is_said_once_and_it_works(development, means):
    if means == "inotify":  # also where a package replaces Django's reloader
        pytest.importorskip("django_watchfiles")
        development.set_up(apps=["django_watchfiles"])
    else:
        development.set_up(autoreload={"POLL": True})
    with development.served() as served:
        served.site.wait_for_line(rf"^Watching for file changes (with|by) {means}\b")
        for _ in range(2):
            # At once, before it may have begun to look.
            served.expect_version(development.edit())
        assert served.site.output.count("Watching for file changes") == 1
        served.await_reload(2)
        development.write("shop/templates/inner.txt", "inner 2")
        await_value(lambda: served.get("/page/inner.txt"), "inner 2")
        assert len(served.restarts()) == 2
