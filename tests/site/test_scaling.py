"""One worker more or fewer, by a signal."""

from __future__ import annotations

import signal

import psutil

from tests.projects import Project
from tests.servers.conftest import KINDS, configure
from tests.servers.load import await_that

SIGNALS = {"SIGURG": "more", "SIGWINCH": "fewer"}


def workers_of(site: int) -> int:
    (master,) = [each for each in psutil.Process(site).children() if "serve" in each.cmdline()]
    return len(master.children())


def test_a_signal_adds_a_worker_and_another_removes_one(project: Project) -> None:
    project.write("shop/listeners.py", "")
    configure(project, {"default": KINDS["gthread"]}, SIGNALS=SIGNALS)
    with project.serve("-v2") as site:
        site.wait_until_started()
        assert workers_of(site.pid) == 2
        site.send(signal.SIGURG)
        await_that(lambda: workers_of(site.pid) == 3)
        site.wait_for_line("The server 'default' is to have 3 workers.")
        for count in (2, 1):
            site.send(signal.SIGWINCH)
            await_that(lambda count=count: workers_of(site.pid) == count)
        site.send(signal.SIGWINCH)
        site.wait_for_line("A server has from 1 to ")
        assert site.stop() == 0


def test_a_site_without_workers_says_so(project: Project) -> None:
    configure(project, {"default": KINDS["threaded"]}, SIGNALS=SIGNALS)
    with project.serve("-v2") as site:
        site.wait_until_started()
        site.send(signal.SIGURG)
        site.wait_for_line("No server of this site has workers whose number can change.")
        assert site.stop() == 0
