"""A worker that is stopped by SIGSTOP: the status names it within a second."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import psutil
import pytest

from tests.processes import DEADLINE, RunningSite
from tests.projects import Project
from tests.servers.conftest import KINDS, address_of, ask, configure
from tests.servers.load import await_that


def status_of(site: RunningSite) -> dict[str, Any]:
    """Return what the command prints."""
    command = [sys.executable, "-m", "django_wspbus", "status", "--json", "--pid", str(site.pid)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False, cwd="/")
    return dict(json.loads(shown.stdout))


def states(site: RunningSite) -> dict[int, str]:
    """Return the states of the processes of the server: PID -> state."""
    processes = status_of(site)["servers"]["default"]["processes"]
    return {each["pid"]: each["state"] for each in processes}


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["gthread", "sync"])
def test_the_status_names_a_stopped_worker(project: Project, kind: str) -> None:
    project.write("shop/listeners.py", "")
    configure(project, {"default": KINDS[kind]})
    with project.serve() as site:
        pid = int(ask(address_of(site))[1].split()[0])
        assert states(site)[pid] == "serving"
        worker = psutil.Process(pid)
        worker.suspend()
        try:
            await_that(lambda: states(site)[pid] == "stopped")
        finally:
            worker.resume()
        await_that(lambda: states(site)[pid] == "serving")
        assert site.stop() == 0
