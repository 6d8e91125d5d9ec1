"""A site as a container runs it: as the first process of a PID namespace."""

from __future__ import annotations

import shutil
import subprocess
import sys

import psutil
import pytest

from tests.processes import DEADLINE
from tests.projects import THREADED

from .clients import ask
from .conftest import KINDS, configure, release
from .load import VERSIONED_URLS, Shop, attempt, await_that, await_version, status_of

# A process that outlives its parent, and ends when a file is there.
ORPHAN = f"""\
{VERSIONED_URLS}

def leave(request, name):
    pid = os.fork()
    if not pid:
        if not os.fork():
            wait_for(name)
        os._exit(0)
    os.waitpid(pid, 0)
    return HttpResponse("left")


urlpatterns += [path("leave/<name>", leave)]
"""


pytestmark = pytest.mark.extended


@pytest.fixture
def unshare() -> list[str]:
    """The command that runs another as PID 1, and ends it with itself."""
    command = [shutil.which("unshare") or "", "--pid", "--fork", "--kill-child"]
    if not command[0] or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no unshare, or no right to a PID namespace")
    return command


def test_pid_1_serves_reloads_restarts_reaps_what_ends_and_exits_with_0(
    shop: Shop, unshare: list[str]
) -> None:
    shop.write("shop/urls.py", ORPHAN)
    configure(shop, {"default": KINDS["gthread"]})
    with shop.start(*unshare, sys.executable, shop.manage, "runbus", "-v2") as program:
        address = program.wait_for_line(r"^  default +http://(\S+)/ ")[1]
        program.wait_for_line("^Quit with")
        (site,) = psutil.Process(program.pid).children()
        assert status_of(address)["pid"] == 1

        for renew in ("graceful", "restart"):
            version = shop.deploy()
            assert attempt(address, renew)["result"] is None
            await_version(address, version)
            name = f"orphan-{renew}"
            assert ask(address, f"/leave/{name}") == (200, "left")
            shop.expect_note(f"{name} waits")
            await_that(lambda: len(site.children()) == 2, site.children)  # the old child has left
            release(shop, name)
            await_that(lambda: len(site.children()) == 1, site.children)
            await_that(lambda: zombies(site) == [], lambda: zombies(site))

        before = status_of(address)["servers"]["default"]["pid"]
        (master,) = site.children()
        master.kill()
        await_that(lambda: status_of(address)["servers"]["default"]["pid"] not in (None, before))
        program.wait_for_line("was killed by SIGKILL; restarting it.")  # its own status
        await_that(lambda: zombies(site) == [], lambda: zombies(site))
        members = program.members()
        assert site in members
        site.terminate()
        assert program.wait() == 0
        assert psutil.wait_procs(members, DEADLINE)[1] == []
        assert "Traceback" not in program.output


def test_a_launcher_that_is_pid_1_reaps_what_ends(shop: Shop, unshare: list[str]) -> None:
    shop.write("shop/urls.py", ORPHAN)
    shop.configure(DEBUG=True, WSPBUS={"SERVERS": {"default": THREADED}, "AUTORELOAD": {"SPARE": False}})
    with shop.start(*unshare, sys.executable, shop.manage, "runbus") as program:
        address = program.wait_for_line(r"^  default +http://(\S+)/ ")[1]
        program.wait_for_line("^Quit with")
        (launcher,) = psutil.Process(program.pid).children()
        assert ask(address, "/leave/orphan") == (200, "left")
        shop.expect_note("orphan waits")
        assert len(launcher.children()) == 2
        release(shop, "orphan")
        await_that(lambda: len(launcher.children()) == 1, launcher.children)
        version = shop.deploy()  # a child of its own keeps its status
        await_version(address, version)
        launcher.terminate()
        assert program.wait() == 0


def zombies(site: psutil.Process) -> list[psutil.Process]:
    return [each for each in site.children(recursive=True) if is_zombie(each)]


def is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
