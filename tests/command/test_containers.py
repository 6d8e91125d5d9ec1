"""The command on sites in containers, which have namespaces of their own."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.processes import DEADLINE
from tests.projects import THREADED, Project

from .conftest import Ran, run

pytestmark = pytest.mark.extended

PID_NAMESPACE = ["unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]
CONTAINER = [*PID_NAMESPACE, "--net"]


@pytest.fixture(autouse=True)
def _needs_namespaces() -> None:
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("no unshare or nsenter")
    if subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to namespaces")


@contextmanager
def contained(command: list[str], root: Path) -> Iterator[int]:
    """Serve a new project as the first process of a PID namespace; yield its PID outside."""
    root.mkdir()
    project = Project(root)
    project.serves({**THREADED, "BIND": f"unix:{root}/sock"})
    with project.start(*command, sys.executable, project.manage, "runbus") as program:
        program.wait_for_line("^Quit with")
        (site,) = psutil.Process(program.pid).children()
        yield site.pid
        program.process.wait(DEADLINE)


def run_inside(pid: int, *arguments: str) -> Ran:
    """Run the command as ``docker exec`` does, with nothing in the environment."""
    enter = ["nsenter", "--target", str(pid), "--pid", "--net", "--mount", "--wd=/", "env", "-i"]
    return subprocess.run(
        [*enter, sys.executable, "-m", "django_wspbus", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_a_site_in_a_container_is_operated_inside_and_not_found_outside(short):
    with contained(CONTAINER, short / "shop") as pid:
        result = run("status", "--project", str(short / "shop"))
        assert result.returncode == 3
        assert "in this network namespace" in result.stderr
        result = run_inside(pid, "status", "--json")
        assert json.loads(result.stdout)["pid"] == 1
        assert result.stderr == ""
        result = run_inside(pid, "stop")
        assert result.returncode in (0, -signal.SIGKILL)  # the kernel ends what is left of the container
        assert result.stderr == ""


def test_sites_with_equal_pids_in_one_network_namespace_are_told_apart_by_project(short):
    with ExitStack() as stack:
        pids = {
            name: stack.enter_context(contained(PID_NAMESPACE, short / name)) for name in ("shop", "blog")
        }
        result = run("status", "--pid", "1")
        assert result.returncode == 2
        assert "choose one with --project" in result.stderr
        for name, pid in pids.items():
            assert run("status", "--project", str(short / name), "--json").returncode in (0, 1)
            assert run_inside(pid, "status").returncode == 2  # they share the network namespace
            result = run("stop", "--project", str(short / name))
            assert (result.returncode, result.stderr) == (0, "")
