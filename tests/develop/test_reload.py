"""A saved file is in the next answer, and nobody who asks meanwhile is turned away."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.servers.conftest import Client
from tests.servers.load import Load, await_that

from .reloading import GUNICORN, THREADED, VIEWS, both_servers, both_ways, touch_slowly, writes_bytecode

GTHREAD = {**GUNICORN, "OPTIONS": {"threads": 4}}


@both_ways
@pytest.mark.parametrize("server", [THREADED, GTHREAD], ids=["threaded", "gunicorn"])
def test_an_edit_shows_and_no_request_fails_meanwhile(development, server, spare):
    development.set_up(server, spare=spare)
    with development.served() as served, contextlib.closing(Client(served.address)) as client:
        client.ask("/version/")
        first = client.sock
        with Load(served.address) as load:
            for _ in range(3):
                version = development.edit()
                load.wait_for_all(lambda answer, version=version: answer.version == version)
            answers = load.finish()
        assert {answer.version for answer in answers} == {1, 2, 3, 4}
        for name in load.names:
            versions = [answer.version for answer in answers if answer.client == name]
            assert versions == sorted(versions)  # nobody is shown the past
        assert len(served.restarts()) == 3
        if server is THREADED:  # on which nobody has asked since, over all of them
            client.ask("/version/")
            assert client.sock is first
        assert served.evaluate("import os; result = os.environ['RUN_MAIN']") == "true"
    notes = development.notes()
    boots = [note.pid for note in notes if note.event == "site start"]
    workers = [note.pid for note in notes if note.event == "worker start"]
    assert len(set(boots)) == len(boots) == len(set(workers)) == len(workers) == 4
    for role, pids in (("site", boots), ("worker", workers)):
        found = [note for note in notes if note.event.startswith(role)]
        expected = [(pid, f"{role} {what}") for pid in pids for what in ("start", "stop")]
        assert [(note.pid, note.event) for note in found] == expected  # each stop before the next start
    ready = [note.pid for note in notes if note.event == "ready true"]
    assert len(set(ready)) == len(ready) == (4 if server is THREADED else 8)
    # What has become the launcher did no more than to read the settings.
    (launcher,) = {note.pid for note in notes} - {*ready, *workers}
    assert [note.event for note in notes if note.pid == launcher] == ["ready None"]


@both_ways
@both_servers
def test_no_save_is_lost_whenever_it_comes(development, server, spare):
    development.set_up(server, spare=spare)
    development.listeners(
        "import time\n\n\n@bus.subscribe('stop', role='site')\ndef late():\n    time.sleep(0.05)\n\n\n"
        "bus.subscribe('start', lambda: note('site start'), role='site')\n"
    )
    chance = random.Random()
    with development.served(**writes_bytecode()) as served:
        development.version = 10
        for _ in range(4):
            for _ in range(5):
                version = development.edit()  # of the same size each time
                time.sleep(chance.uniform(0, 0.3))
            # What was caught half written may have been shown as an error meanwhile.
            await_that(lambda version=version: f'"version": {version}}}' in status_and_body(served))


@both_ways
def test_who_writes_many_files_has_one_reload_come_of_it(development, spare):
    def git(*arguments):
        command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", *arguments]
        subprocess.run(command, cwd=development.root, check=True, capture_output=True)

    names = [f"shop/parts/part{number:03}.py" for number in range(200)]
    development.write("shop/parts/__init__.py", "")
    for name in names:
        development.write(name, "PART = 1\n")
    with (development.root / "shop/listeners.py").open("a") as file:
        file.writelines(f"from .parts import {Path(name).stem}  # noqa\n" for name in names)
    development.set_up(spare=spare)
    git("init", "-b", "main", "-q")
    development.write(".gitignore", "journal.txt\n")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("switch", "-q", "-c", "other")
    for name in names:
        development.write(name, "PART = 2\n")
    other = development.edit()
    git("commit", "-q", "-a", "-m", "two")
    git("switch", "-q", "main")
    code = "from importlib import import_module as i; "
    code += "result = sorted({i(f'shop.parts.part{n:03}').PART for n in range(200)})"
    with development.served() as served:
        assert served.evaluate(code) == [1]
        git("switch", "-q", "other")
        served.await_reload()
        served.expect_version(other)
        assert served.evaluate(code) == [2]
        for name in names:  # as a formatter does
            development.write(name, "PART = 3  # formatted\n")
            time.sleep(0.005)
        served.await_reload()
        assert served.evaluate(code) == [3]
        git("checkout", "-q", ".")
        served.await_reload()
        assert served.evaluate(code) == [2]
        served.expect_no_reload()


@both_ways
def test_however_an_editor_writes_a_file_what_it_holds_in_the_end_is_served(development, spare):
    development.set_up(spare=spare)
    views = development.root / "shop" / "views.py"
    with development.served() as served:

        def by_renaming(text):
            views.rename(views.with_name("views.py~"))
            time.sleep(0.05)
            views.with_name(".views.tmp").write_text(text)
            views.with_name(".views.tmp").rename(views)

        def in_place_with_a_backup(text):
            shutil.copy2(views, views.with_name("views.py~"))
            views.write_text(text)

        def in_halves(text):
            # The first half is whole as Python, and shows no constant.
            middle = text.index("VERSION")
            touch_slowly(views, (text[:middle], text[middle:]), 0.5)

        def in_halves_that_are_broken(text):
            middle = text.index("JsonResponse({")
            touch_slowly(views, (text[:middle], text[middle:]), 0.3)

        def with_times_of_the_past(text):
            views.write_text(text)
            os.utime(views, (10**9, 10**9))

        ways = (
            by_renaming,
            in_place_with_a_backup,
            in_halves,
            in_halves_that_are_broken,
            with_times_of_the_past,
        )
        for version, write in enumerate(ways, 20):
            write(VIEWS.format(version=version))
            await_that(lambda version=version: f'"version": {version}}}' in status_and_body(served))
        served.await_calm()
        before = development.notes("site start")
        views.touch()  # as one does to have it started again
        development.expect_note("site start", len(before) + 1)


def status_and_body(served):
    """A page that does not boot is answered, too."""
    with contextlib.closing(Client(served.address)) as client:
        return str(client.ask("/version/"))


@both_ways
def test_modules_may_come_and_go_while_it_is_served(development, spare, tmp_path):
    development.set_up(spare=spare)
    linked = tmp_path / "elsewhere" / "linked"
    linked.mkdir(parents=True)
    (linked / "__init__.py").write_text("")
    (linked / "models.py").write_text("LINKED = 1\n")
    (development.root / "linked").symlink_to(linked)
    development.write("late.py", "LATE = 1\n")
    development.write("shop/spelled.py", "SPELLED = 1\n")
    with (development.root / "shop/listeners.py").open("a") as file:
        file.write("import linked.models\nfrom . import spelled\n")
    late = "from late import LATE as result"
    with development.served() as served:
        assert served.evaluate("from linked.models import LINKED as result") == 1
        (linked / "models.py").write_text("LINKED = 2\n")
        served.await_reload()
        assert served.evaluate("from linked.models import LINKED as result") == 2

        assert served.evaluate(late) == 1  # imported by this request for the first time
        development.write("late.py", "LATE = 2\n")
        served.await_reload()
        assert served.evaluate(late) == 2

        # A package in place of a module, and what imports it.
        (development.root / "shop/spelled.py").unlink()
        development.write("shop/spelled/__init__.py", "from .deep import SPELLED\n")
        development.write("shop/spelled/deep.py", "SPELLED = 2\n")
        served.await_reload()
        assert served.evaluate("from shop.spelled import SPELLED as result") == 2
        development.write("shop/spelled/deep.py", "SPELLED = 3\n")
        served.await_reload()
        assert served.evaluate("from shop.spelled import SPELLED as result") == 3

        # Removed and back again by another way: a folder that is renamed.
        (development.root / "shop/spelled").rename(development.root / "shop/parked")
        (development.root / "shop/parked").rename(development.root / "shop/spelled")
        development.write("shop/spelled/deep.py", "SPELLED = 4\n")
        await_that(lambda: "4}" in evaluated(served, "from shop.spelled import SPELLED as result"))


def evaluated(served, code):
    from urllib.parse import urlencode

    with contextlib.closing(Client(served.address)) as client:
        return str(client.ask("/run/?" + urlencode({"code": code})))


@both_ways
def test_what_the_settings_name_is_watched_even_before_it_exists(development, spare):
    texts = development.root / "texts"
    texts.mkdir()
    development.set_up(
        spare=spare,
        autoreload={
            "EXTRA_FILES": [str(development.root / ".env"), "conf/later.ini"],
            "EXTRA_DIRS": {str(texts): "**/*.md", "data": "*.json"},
        },
    )
    with development.served() as served:
        changes = [
            (".env", "A=1"),
            (".env", "A=2"),
            ("conf/later.ini", "new"),
            ("conf/later.ini", "changed"),
            ("texts/new.md", "new"),
            ("texts/deep/deeper/new.md", "new"),
            ("texts/deep/deeper/new.md", "changed"),
            ("data/new.json", "[]"),
            ("data/new.json", "[1]"),
        ]
        for name, text in changes:
            development.write(name, text)
            served.await_reload()

        def others():
            development.write("texts/deep/other.txt", "not of the glob")
            development.write("data/deep/other.json", "not of the glob")
            development.write("other.ini", "not named")

        served.expect_no_reload(others)
        served.await_calm()
        (texts / "new.md").unlink()
        served.await_reload()


@both_ways
def test_a_project_that_writes_at_each_boot_does_not_start_for_ever(development, spare):
    writes = """
import time
from pathlib import Path

from . import same, stamp

Path(same.__file__).write_text("SAME = 1")
"""
    development.write("shop/same.py", "")
    development.write("shop/stamp.py", "")
    with (development.root / "shop/listeners.py").open("a") as file:
        file.write(writes)
    development.set_up(spare=spare)
    future = time.time() + 10_000
    os.utime(development.root / "shop/apps.py", (future, future))
    with development.served() as served:
        served.await_reload()  # by then it is what it would be next time
        served.expect_no_reload()
        os.utime(development.root / "shop/apps.py", (future + 1, future + 1))
        served.await_reload()
        served.expect_no_reload()

        with (development.root / "shop/listeners.py").open("a") as file:
            file.write("Path(stamp.__file__).write_text(f'STAMP = {time.time_ns()}')\n")
        served.site.wait_for_line("^Autoreload: shop/stamp.py changes during each start")
        served.expect_no_reload()
        assert len(served.restarts()) < 20
