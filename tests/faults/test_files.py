"""File systems on which nothing can be written, and a user without a home: the site serves."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.processes import RunningSite, fetch
from tests.projects import GUNICORN, Project
from tests.servers.conftest import KINDS, address_of, ask, configure
from tests.servers.load import await_that


def can_mount() -> bool:
    try:
        command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.extended
mounts = pytest.mark.skipif(not can_mount(), reason="this user may not mount")


class MountedSite(RunningSite):
    """A site in a mount namespace of its own, for which a shell command mounts file systems first."""

    def __init__(self, project: Project, mount: str) -> None:
        super().__init__(manage=project.manage, env=project.environment, cwd=project.root)
        runbus = ["sh", "-ec", f'{mount}; exec "$@"', "sh", *self.command]
        self.command = ["unshare", "--mount", *runbus]


READ_ONLY = "mount -o remount,ro,bind /; for each in /tmp /var/tmp; do ! touch $each/test; done"


def reload_and_restart(site: RunningSite, address: str) -> None:
    before = ask(address)[1]
    site.send(signal.SIGUSR1)
    await_that(lambda: ask(address)[1] != before)
    site.send(signal.SIGUSR2)
    site.wait_for_line("^Quit with", count=2)
    assert ask(address)[0] == 200


@mounts
@pytest.mark.parametrize("kind", ["gthread", "threaded"])
def test_a_site_serves_reloads_and_restarts_on_a_read_only_file_system(project: Project, kind: str) -> None:
    project.write("shop/listeners.py", "")
    configure(project, {"default": KINDS[kind]}, HEALTH="127.0.0.1:0")
    with MountedSite(project, READ_ONLY) as site:
        address = address_of(site)
        health = site.wait_for_line(r"(http://\S+)/livez")[1]
        assert fetch(f"{health}/readyz")
        if kind == "threaded":
            site.send(signal.SIGUSR2)
            site.wait_for_line("^Quit with", count=2)
            assert ask(address)[0] == 200
        else:
            reload_and_restart(site, address)
        assert site.stop() == 0
    assert "Traceback" not in site.output


@mounts
def test_a_pid_file_on_a_read_only_file_system_is_refused_in_one_sentence(project: Project) -> None:
    configure(project, {"default": KINDS["gthread"]}, PIDFILE="site.pid")
    with MountedSite(project, READ_ONLY) as site:
        assert site.wait() == 1
    assert "Read-only file system" in site.output
    assert "Traceback" not in site.output


FILES = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "full/site.log"}},
    "root": {"handlers": ["file"], "level": "DEBUG"},
}

FULL = "mount -t tmpfs -o size=4k none full; ! cat /dev/zero > full/site.log 2>/dev/null"
"""Mount a file system on the folder ``full`` whose only page a log file has filled."""


@mounts
@pytest.mark.parametrize("kind", ["gthread", "threaded"])
def test_a_site_serves_reloads_and_restarts_while_the_disk_of_its_logs_is_full(
    project: Project, kind: str
) -> None:
    (project.root / "full").mkdir()
    project.write("shop/listeners.py", "")
    server = KINDS[kind]
    if kind == "gthread":
        server = {**server, "OPTIONS": {**server["OPTIONS"], "accesslog": "full/access.log"}}
    configure(project, {"default": server}, SIGNALS={"SIGURG": "reopen"})
    settings = project.root / "settings.py"
    settings.write_text(settings.read_text() + f"LOGGING = {FILES!r}\n")
    with MountedSite(project, FULL + "; : > full/access.log") as site:
        address = address_of(site)
        site.send(signal.SIGURG)
        if kind == "threaded":
            site.send(signal.SIGUSR2)
            site.wait_for_line("^Quit with", count=2)
        else:
            reload_and_restart(site, address)
        assert [ask(address)[0] for _ in range(20)] == [200] * 20
        assert site.stop() == 0
    assert "No space left on device" in site.output  # of `logging`, which names each record that is lost


@mounts
def test_a_daemon_serves_while_the_disk_of_its_output_is_full(project: Project) -> None:
    (project.root / "full").mkdir()
    configure(
        project,
        {"default": {**GUNICORN, "BIND": "127.0.0.1:0"}},
        DAEMONIZE={"STDOUT": "full/out.log", "STDERR": "full/out.log"},
        PIDFILE="site.pid",
    )
    with MountedSite(project, FULL + "; : > full/out.log") as site:
        assert site.wait() == 0
        project.expect_note("worker start")
        pid = int((project.root / "site.pid").read_text())
        os.kill(pid, signal.SIGUSR1)
        project.expect_note("worker start", count=2)
        os.kill(pid, signal.SIGUSR2)
        project.expect_note("site start", count=2)
        os.kill(pid, signal.SIGTERM)
        project.expect_note("site exit", count=2)
        await_that(lambda: not site.members(), site.members)


@mounts
def test_a_pid_file_on_a_full_disk_is_refused_in_one_sentence(project: Project) -> None:
    (project.root / "full").mkdir()
    configure(project, {"default": KINDS["gthread"]}, PIDFILE="full/site.pid")
    with MountedSite(project, FULL) as site:
        assert site.wait() == 1
    assert "full/site.pid cannot be written: No space left on device." in site.output
    assert "Traceback" not in site.output


@pytest.mark.parametrize("home", ["-u HOME", "HOME=", "HOME=/nonexistent"])
def test_a_site_serves_without_a_home(project: Project, home: str) -> None:
    configure(project, {"default": KINDS["gthread"]})
    project.write("shop/listeners.py", "")
    site = RunningSite(manage=project.manage, env=project.environment, cwd=project.root)
    site.command = ["env", *home.split(), *site.command]
    with site:
        address = address_of(site)
        reload_and_restart(site, address)
        assert site.stop() == 0
    assert "Traceback" not in site.output
