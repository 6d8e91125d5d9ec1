"""A saved file is in the next answer, and no request fails meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from django_wspbus.development.launcher.saves import MOST_REPEATS
from django_wspbus.servers.threaded.request_handler import LAST_CHANCE
from tests.processes import RunningSite
from tests.projects import GUNICORN, THREADED
from tests.servers.clients import connect, read_to_end
from tests.servers.load import Load

from .broken import Mending, appended, await_error, await_fixed
from .reloading import Served, each_server


@each_server
def test_an_edit_shows_and_no_request_fails_meanwhile(development, server, spare):
    development.set_up(server, spare=spare)
    development.append("shop/listeners.py", "import os\n\nnote(f'ready {os.environ.get(\"RUN_MAIN\")}')\n")
    with development.served() as served, connect(served.address) as idle:
        with Load(served.address, think=0.03, kept=LAST_CHANCE) as load:
            load.wait_for_all()
            for _ in range(2):
                version = development.edit()
                load.wait_for_all(lambda answer, version=version: answer.version == version)
            answers = load.finish()
        assert {answer.version for answer in answers} == {1, 2, 3}
        for name in load.names:
            versions = [answer.version for answer in answers if answer.client == name]
            assert versions == sorted(versions)
        served.await_reload(2)
        assert len(served.restarts()) == 2
        assert read_to_end(idle) == b""  # it is closed, and not reset
        assert served.evaluate("import os; result = os.environ['RUN_MAIN']") == "true"
    notes = development.notes()
    boots = [note.pid for note in notes if note.event == "site start"]
    workers = [note.pid for note in notes if note.event == "worker start"]
    assert len(set(boots)) == len(boots) == len(set(workers)) == len(workers) == 3
    for role, pids in (("site", boots), ("worker", workers)):
        found = [note for note in notes if note.event in (f"{role} start", f"{role} stop")]
        expected = [(pid, f"{role} {what}") for pid in pids for what in ("start", "stop")]
        assert [(note.pid, note.event) for note in found] == expected  # each stop before the next start
    ready = [note.pid for note in notes if note.event == "ready true"]
    assert len(set(ready)) == len(ready) == (3 if server is THREADED else 6)
    # The process that became the launcher has only read the settings.
    (launcher,) = {note.pid for note in notes} - {*ready, *workers}
    assert [note.event for note in notes if note.pid == launcher] == ["ready None"]


@pytest.mark.extended
@each_server
def test_no_save_is_lost_at_any_moment(development, server, spare):
    development.set_up(server, spare=spare)
    development.listeners(
        "import time\n\n\n@bus.subscribe('stop', role='site')\ndef late():\n    time.sleep(0.05)\n\n\n"
        "bus.subscribe('start', lambda: note('site start'), role='site')\n"
    )
    seed = time.time_ns()
    sys.stdout.write(f"The seed is {seed}.\n")
    chance = random.Random(seed)
    development.version = 10  # the file has the same size each time, as bytecode would have it
    with development.served(PYTHONDONTWRITEBYTECODE="") as served:
        for _ in range(8):
            development.edit()
            time.sleep(chance.uniform(0, 0.3))
        served.await_version()


@pytest.mark.extended
def test_files_that_are_written_together_cause_few_reloads(development):
    def git(*arguments):
        command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", *arguments]
        subprocess.run(command, cwd=development.root, check=True, capture_output=True)

    def write_parts(source):
        for part in parts:
            development.write(f"shop/parts/{part}.py", source)

    parts = [f"part{number:03}" for number in range(100)]
    development.write("shop/parts/__init__.py", "")
    write_parts("PART = 1\n")
    development.append("shop/listeners.py", "".join(f"from .parts import {part}  # noqa\n" for part in parts))
    development.set_up()
    git("init", "-b", "main", "-q")
    development.write(".gitignore", "journal.txt\n")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("switch", "-q", "-c", "other")
    write_parts("PART = 2\n")
    git("commit", "-q", "-a", "-m", "two")
    git("switch", "-q", "main")
    code = f"from shop import parts; result = sorted({{getattr(parts, each).PART for each in {parts}}})"
    with development.served() as served:
        assert served.evaluate(code) == [1]
        git("switch", "-q", "other")
        served.await_result(code, [2])
        for part in parts:  # as a formatter does
            development.write(f"shop/parts/{part}.py", "PART = 3  # formatted\n")
            time.sleep(0.005)
        served.await_result(code, [3])
        served.await_calm()
        assert len(served.restarts()) < 10  # and not 200; on an idle machine, 2


@pytest.mark.extended
def test_the_final_contents_of_a_file_are_served_however_an_editor_writes_it(development):
    development.set_up()
    file = development.root / "shop" / "version.py"

    def by_renaming(text):
        file.rename(file.with_name("version.py~"))
        time.sleep(0.05)
        file.with_name(".version.tmp").write_text(text)
        file.with_name(".version.tmp").rename(file)

    def in_place_with_a_backup(text):
        shutil.copy2(file, file.with_name("version.py~"))
        file.write_text(text)

    def in_halves(half, text):
        with file.open("w") as stream:
            stream.write(half)
            stream.flush()
            time.sleep(0.4)
            stream.write(text)

    def with_times_of_the_past(text):
        file.write_text(text)
        os.utime(file, (10**9, 10**9))

    ways = (
        by_renaming,
        in_place_with_a_backup,
        partial(in_halves, "VERSION = 0\n"),  # which boots
        partial(in_halves, "if True:\n "),  # a syntax error
        with_times_of_the_past,
    )
    with development.served() as served:
        for development.version, write in enumerate(ways, 20):
            write(f"VERSION = {development.version}\n")
            served.await_version()
        served.await_calm()
        before = development.notes("site start")
        file.touch()
        development.expect_note("site start", len(before) + 1)


@pytest.mark.extended
@pytest.mark.parametrize(
    "spare", [False, pytest.param(True, marks=pytest.mark.extended)], ids=["cold", "warm"]
)
def test_modules_may_come_and_go_while_they_are_served(development, spare, tmp_path):
    development.set_up(spare=spare)
    linked = tmp_path / "elsewhere" / "linked"
    linked.mkdir(parents=True)
    (linked / "__init__.py").write_text("")
    (linked / "models.py").write_text("LINKED = 1\n")
    (development.root / "linked").symlink_to(linked)
    development.write("late.py", "LATE = 1\n")
    development.write("shop/spelled.py", "SPELLED = 1\n")
    development.append("shop/listeners.py", "import linked.models\nfrom . import spelled\n")
    of_linked = "from linked.models import LINKED as result"
    late = "from late import LATE as result"
    spelled = "from shop.spelled import SPELLED as result"
    with development.served() as served:
        assert served.evaluate(of_linked) == 1
        (linked / "models.py").write_text("LINKED = 2\n")
        served.await_result(of_linked, 2)

        assert served.evaluate(late) == 1  # imported by this request for the first time
        development.write("late.py", "LATE = 2\n")
        served.await_result(late, 2)

        # A package in place of a module, and what it imports.
        (development.root / "shop/spelled.py").unlink()
        development.write("shop/spelled/__init__.py", "from .deep import SPELLED\n")
        development.write("shop/spelled/deep.py", "SPELLED = 2\n")
        served.await_result(spelled, 2)

        # Removed and back again in another way: a folder that is renamed.
        (development.root / "shop/spelled").rename(development.root / "shop/parked")
        (development.root / "shop/parked").rename(development.root / "shop/spelled")
        development.write("shop/spelled/deep.py", "SPELLED = 3\n")
        served.await_result(spelled, 3)


@pytest.mark.extended
def test_the_files_that_the_settings_name_are_watched_even_before_they_exist(development):
    development.write("texts/old.md", "old")
    development.set_up(
        autoreload={
            "EXTRA_FILES": [str(development.root / ".env"), "conf/later.ini"],
            "EXTRA_DIRS": {str(development.root / "texts"): "**/*.md", "data": "*.json"},
        },
    )
    elsewhere = development.root.parent / "elsewhere"
    (elsewhere / "data/deep").mkdir(parents=True)

    def put_in_place(name):
        """Make a file, and the folders that are not there yet, in one step."""
        path, whole = development.root / name, elsewhere / name
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text("new")
        while not path.parent.exists():
            path, whole = path.parent, whole.parent
        whole.rename(path)

    with development.served() as served:
        names = [".env", "conf/later.ini", "texts/deep/deeper/new.md", "data/new.json"]
        for name in names:
            put_in_place(name)
            served.await_reload()
        served.await_calm()
        development.write("texts/deep/other.txt", "not of the glob")
        development.write("data/deep/other.json", "not of the glob")
        development.write("other.ini", "not named")
        development.write("data/new.json", "changed")
        served.await_reload()
        served.await_calm()
        (development.root / "texts/old.md").unlink()
        served.await_reload()
        # After a slow boot, all new folders of the project are changes: the first one is named.
        pairs = zip(served.changes(), [*names, "data/new.json", "texts/old.md"], strict=True)
        assert [pair for pair in pairs if not Path(pair[1]).is_relative_to(pair[0])] == []


WRITES = """
import time
from pathlib import Path

from . import written

path = Path(written.__file__)
path.with_suffix(".whole").write_text({source})
path.with_suffix(".whole").rename(path)
"""


@pytest.mark.extended
def test_a_file_that_each_boot_writes_alike_causes_one_reload(development):
    development.write("shop/written.py", "")
    development.set_up()
    future = time.time() + 10_000
    os.utime(development.root / "shop/apps.py", (future, future))
    with development.served() as served:
        # Not before the first boot, which a reload may overtake on a busy machine.
        development.append("shop/listeners.py", WRITES.format(source="'WRITTEN = 1'") + "\nnote('boots')\n")
        development.expect_note("boots", 2)
        served.expect_no_reload()
        os.utime(development.root / "shop/apps.py", (future + 1, future + 1))
        served.await_reload()
        served.expect_no_reload()


@pytest.mark.extended
def test_a_file_that_each_boot_writes_anew_does_not_cause_reloads_without_end(development):
    development.write("shop/written.py", "")
    development.set_up()
    with development.served() as served:
        # Not before the first boot, which a reload may overtake on a busy machine.
        writes = WRITES.format(source="f'WRITTEN = {time.time_ns()}'")
        development.append("shop/listeners.py", f"{writes}\nnote('boots')\n")
        for count in range(MOST_REPEATS):
            development.expect_note("boots", count + 1)
        served.site.wait_for_line(f"shop/written.py changed during {MOST_REPEATS} boots in a row")
        served.expect_no_reload()
        assert len(served.restarts()) < 12


@pytest.mark.extended
@pytest.mark.parametrize("server", [THREADED, GUNICORN], ids=["threaded", "gunicorn"])
def test_a_file_system_that_raises_no_events_is_polled(development, tmp_path, server):
    bindfs = shutil.which("bindfs")
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    development.set_up(server)
    if not bindfs or subprocess.run([bindfs, development.root, mounted], check=False).returncode:
        pytest.skip("no bindfs, or no right to mount")
    try:
        with RunningSite(manage=f"{mounted}/manage.py", env=development.environment, cwd=mounted) as site:
            served = Served(development, site)
            site.wait_for_line("Watching for file changes with inotify, and by polling of .*/mounted .fuse.")
            version = development.edit()  # below the mount
            served.await_reload()
            served.expect_version(version)
            mending = Mending(development)
            appended("shop/urls.py", "\n1 / 0\n")(development)
            await_error(served.address, "ZeroDivisionError")
            mending.mend()
            await_fixed(served.address, version)
            assert site.stop() == 0
    finally:
        subprocess.run(["umount", mounted], check=True)
