"""Giving up root: in a process that is forked off for it, and in a site as a whole."""

from __future__ import annotations

import grp
import json
import logging
import logging.handlers
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from django_wspbus.plugins.privileges import DropPrivileges, identity, log_files
from django_wspbus.wspbus import Bus, ChannelFailures, Refusal
from tests.processes import ROOT
from tests.projects import Project
from tests.servers.conftest import GUNICORN, THREADED, address_of, ask, configure

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up"),
]

NOBODY = pwd.getpwnam("nobody")
UNKNOWN = 54321


def in_child(function: Callable[[], Any]) -> Any:
    """Return what a function returns in a process that is forked off, and that nothing else outlives."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, json.dumps(function()).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return json.loads(said)


def drop(*args: Any, **options: Any) -> dict[str, Any]:
    """Return what a process is after the plugin has started."""

    def run() -> dict[str, Any]:
        bus = Bus()
        plugin = DropPrivileges(bus, *args, **options)
        plugin.subscribe()
        try:
            bus.start()
        except ChannelFailures as failures:
            (error,) = failures.get_instances()
            return {"refused": str(error), "expected": isinstance(error, Refusal)}
        plugin.start()  # has no effect
        return {
            "uid": os.getresuid(),
            "gid": os.getresgid(),
            "groups": sorted(os.getgroups()),
            "umask": os.umask(0),
            "regained": [name for name in ("setuid", "setgid", "seteuid", "setegid") if regains(name)],
        }

    return in_child(run)


def regains(name: str) -> bool:
    try:
        getattr(os, name)(0)
    except PermissionError:
        return False
    return True


def test_a_user_has_its_own_groups_and_no_way_back() -> None:
    found = drop("nobody", umask=0o027)

    assert found["uid"] == [NOBODY.pw_uid] * 3
    assert found["gid"] == [NOBODY.pw_gid] * 3
    assert found["groups"] == sorted(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert found["umask"] == 0o027
    assert found["regained"] == []


def test_a_group_of_its_own_is_the_first_of_the_groups() -> None:
    daemon = grp.getgrnam("daemon").gr_gid
    found = drop("nobody", "daemon")

    assert found["uid"] == [NOBODY.pw_uid] * 3
    assert found["gid"] == [daemon] * 3
    assert daemon in found["groups"]
    assert found["regained"] == []


def test_numbers_need_no_names() -> None:
    found = drop(UNKNOWN, UNKNOWN)

    assert (found["uid"], found["gid"], found["groups"]) == ([UNKNOWN] * 3, [UNKNOWN] * 3, [UNKNOWN])
    assert drop(NOBODY.pw_uid)["gid"] == [NOBODY.pw_gid] * 3


def test_a_group_alone_leaves_the_user() -> None:
    found = drop(None, "daemon")

    assert found["uid"] == [0] * 3
    assert found["gid"] == [grp.getgrnam("daemon").gr_gid] * 3


def test_a_umask_alone_leaves_everything_else() -> None:
    found = drop(umask=0o077)

    assert (found["uid"], found["umask"]) == ([0] * 3, 0o077)


def test_a_user_in_the_group_of_root_keeps_that_group() -> None:
    found = drop(UNKNOWN, 0)

    assert (found["uid"], found["gid"]) == ([UNKNOWN] * 3, [0] * 3)
    assert "setuid" not in found["regained"]


def test_a_number_without_a_user_must_be_given_a_group() -> None:
    found = drop(UNKNOWN)

    assert found["expected"]
    assert "set GROUP as well" in found["refused"]


@pytest.mark.parametrize("names", [("no such user", None), (None, "no such group")])
def test_a_name_that_is_unknown_is_an_error(names: tuple[str | None, str | None]) -> None:
    with pytest.raises(KeyError):
        identity(*names)


def as_nobody(function: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        os.setgroups([])
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        return function()

    return run


def test_others_than_root_may_only_stay_what_they_are() -> None:
    def become(user: str) -> str:
        try:
            DropPrivileges(Bus(), user).start()
        except Refusal as refusal:
            return str(refusal)
        return f"{os.getuid()}"

    assert in_child(as_nobody(lambda: become("nobody"))) == str(NOBODY.pw_uid)
    reason = in_child(as_nobody(lambda: become("root")))
    assert reason == (
        f"This process (uid {NOBODY.pw_uid}, gid {NOBODY.pw_gid}) may not become uid 0, gid 0: only root may."
    )


@pytest.mark.parametrize("name", ["setresuid", "setresgid"])
def test_a_call_that_only_pretends_to_succeed_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, name, lambda *args: None)  # as a sandbox may

    assert "could regain them" in drop("nobody")["refused"]


@pytest.mark.parametrize(("pretended", "reason"), [("setresuid", "uid"), ("setresgid", "gid")])
def test_a_change_that_did_not_happen_is_found_out(
    monkeypatch: pytest.MonkeyPatch, pretended: str, reason: str
) -> None:
    become = os.setresuid
    monkeypatch.setattr(os, pretended, lambda *args: None)
    user, group = (0, None) if pretended == "setresuid" else (None, UNKNOWN)

    def run() -> str:
        if pretended == "setresuid":
            become(UNKNOWN, 0, UNKNOWN)
        try:
            DropPrivileges(Bus(), user, group).start()
        except Refusal as refusal:
            return str(refusal)
        return "dropped"

    assert f"did not become {reason}" in in_child(run)


def test_log_files_are_given_to_the_user_who_may_reopen_them(open_folder: Path) -> None:
    def run() -> list[Any]:
        watched = logging.handlers.WatchedFileHandler(open_folder / "watched.log")
        logger = logging.getLogger("shop.deep")
        logger.addHandler(watched)
        logger.addHandler(logging.FileHandler(open_folder / "late.log", delay=True))
        logger.addHandler(logging.NullHandler())
        known = sorted(Path(path).name for path, _ in log_files() if path.startswith(str(open_folder)))
        DropPrivileges(Bus(), "nobody").start()
        logger.warning("one")
        (open_folder / "watched.log").rename(open_folder / "watched.log.1")
        logger.warning("two")
        return known

    assert in_child(run) == ["late.log", "watched.log"]
    assert (open_folder / "watched.log.1").read_text() == "one\n"
    assert (open_folder / "watched.log").read_text() == "two\n"
    assert {path.stat().st_uid for path in open_folder.iterdir()} == {NOBODY.pw_uid}


# A site as a whole


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may write, and reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture(scope="session")
def interpreter() -> Iterator[str]:
    """An interpreter of this version that every user may execute."""
    candidates = [
        sys.executable,
        shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin"),
    ]
    for candidate in candidates:
        if candidate is not None and may_run(candidate):
            yield candidate
            return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        base = Path(sys.base_prefix)
        unused = shutil.ignore_patterns("test", "__pycache__", "site-packages", "share", "include", "*.a")
        # A hard link changes the time of its file, which a site that boots at that moment takes for an edit.
        shutil.copytree(base, Path(folder) / "python", symlinks=True, ignore=unused)
        copied = str(Path(folder) / "python" / "bin" / f"python3.{sys.version_info.minor}")
        if not may_run(copied):
            pytest.skip("no interpreter that nobody may execute")
        yield copied


def may_run(interpreter: str) -> bool:
    code = "import sys, django, django_wspbus; print(sys.version_info.minor)"
    try:
        ran = subprocess.run(
            [interpreter, "-c", code],
            env=search_path(interpreter),
            cwd="/",
            user="nobody",
            group=NOBODY.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return ran.stdout == f"{sys.version_info.minor}\n"


def search_path(interpreter: str) -> dict[str, str]:
    """Return what an interpreter out of its place needs to find: its packages, and its own library."""
    packages = [str(ROOT), *(path for path in sys.path if "site-packages" in path)]
    library = Path(interpreter).parent.parent / "lib"
    return {"PYTHONPATH": os.pathsep.join(packages), "LD_LIBRARY_PATH": str(library)}


LISTENERS = """\
import json
import os


def report(role):
    note(role + json.dumps([os.getresuid(), os.getresgid(), sorted(os.getgroups()), os.umask(0o027)]))


bus.subscribe("start", lambda: report("site"), role="site")
bus.subscribe("start", lambda: report("worker"), role="worker")
bus.subscribe("start", lambda: note("early " + str(os.getuid())), 25, role="site")
"""


@pytest.mark.parametrize("daemonize", [False, True])
def test_a_site_serves_as_the_user_on_sockets_that_root_has_bound(
    open_folder: Path, interpreter: str, daemonize: bool
) -> None:
    shop = Project(open_folder)
    shop.listeners(LISTENERS)
    (open_folder / "journal.txt").touch()
    (open_folder / "journal.txt").chmod(0o666)
    binds = ["127.0.0.1:0", f"unix:{open_folder}/run/site.sock"]
    (open_folder / "run").mkdir()
    servers = {"child": {"BACKEND": GUNICORN, "BIND": binds}, "thread": {"BACKEND": THREADED}}
    privileges = {"USER": "nobody", "UMASK": 0o027, "PIDFILE": str(open_folder / "site.pid")}
    configure(shop, servers, **privileges, DAEMONIZE={"STDOUT": "out.log"} if daemonize else False)
    with shop.start(interpreter, "manage.py", "runbus", **search_path(interpreter)) as site:
        if daemonize:
            assert site.wait() == 0
            site.lines += (open_folder / "out.log").read_text().splitlines()
        else:
            site.wait_for_line("^Quit with")
        child = next(line for line in site.lines if line.startswith("  child "))
        tcp = child.split("http://")[1].partition("/")[0]
        socket_file = open_folder / "run" / "site.sock"
        for address in (tcp, f"unix:{socket_file}", address_of(site, "thread")):
            assert ask(address)[0] == 200
        status = socket_file.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (NOBODY.pw_uid, NOBODY.pw_gid, 0o750)
        groups = sorted(os.getgrouplist("nobody", NOBODY.pw_gid))
        expected = json.dumps([[NOBODY.pw_uid] * 3, [NOBODY.pw_gid] * 3, groups, 0o027])
        assert shop.events().count("site" + expected) == 1
        assert shop.events().count("worker" + expected) == 2
        assert "early 0" in shop.events()
        members = site.members()
        assert {process.uids().real for process in members} == {NOBODY.pw_uid}
        pid = int((open_folder / "site.pid").read_text())
        os.kill(pid, 15)
        if not daemonize:
            assert site.wait() == 0
        wait_until_ended(site)
    assert not (open_folder / "site.pid").exists()


def wait_until_ended(site: Any) -> None:
    assert psutil.wait_procs(site.members(), timeout=20)[1] == []
