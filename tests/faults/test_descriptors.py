"""No descriptor is left in the site process: the site serves, and says so."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.controlled import result, site_of
from tests.processes import DEADLINE, fetch
from tests.projects import Project
from tests.servers.conftest import KINDS, Later, address_of, ask, configure, kill
from tests.servers.load import await_that

pytestmark = pytest.mark.extended


def answers_of_both(address: str) -> set[str]:
    """Return the answers of two workers, whichever the kernel chooses first."""
    found: set[str] = set()

    def are_both() -> bool:
        found.add(ask(address)[1])
        return len(found) == 2

    await_that(are_both, lambda: found)
    return found


@contextlib.contextmanager
def no_descriptors(pid: int) -> Iterator[None]:
    """Take every free descriptor from a process."""
    used = {int(each) for each in os.listdir(f"/proc/{pid}/fd")}
    least = next(number for number in range(len(used) + 1) if number not in used)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (least, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_a_site_serves_and_answers_probes_and_clients_without_a_free_descriptor(project: Project) -> None:
    project.write("shop/listeners.py", "")
    configure(project, {"default": KINDS["gthread"]}, HEALTH="127.0.0.1:0")
    with project.serve("-v2") as site:
        address = address_of(site)
        health = site.wait_for_line(r"(http://\S+)/livez")[1]
        fetch(f"{health}/readyz")
        with no_descriptors(site.pid):
            before = answers_of_both(address)
            assert fetch(f"{health}/readyz") == "ready\n"
            site.send(signal.SIGUSR1)
            site.wait_for_line("The reload failed; the old code keeps serving: .*Too many open files")
            assert {ask(address)[1] for _ in range(20)} <= before
            site.send(signal.SIGUSR2)
            site.wait_for_line("The restart failed; the old code keeps serving: .*Too many open files")
            assert {ask(address)[1] for _ in range(20)} <= before
            for answer in before:
                kill(psutil.Process(int(answer.split()[0])))
            assert [ask(address)[0] for _ in range(20)] == [200] * 20
            assert result(site_of(site), "status")["state"] == "STARTED"
        workers = {int(ask(address)[1].split()[0]) for _ in range(20)}
        await_that(lambda: set(result(site_of(site), "status")["servers"]["default"]["workers"]) >= workers)
        site.send(signal.SIGUSR1)
        await_that(lambda: int(ask(address)[1].split()[0]) not in workers)
        assert site.stop() == 0


def test_a_server_in_the_site_process_answers_once_a_descriptor_is_free(
    project: Project, later: Later
) -> None:
    project.write("shop/listeners.py", "")
    configure(project, {"default": KINDS["threaded"]}, HEALTH="127.0.0.1:0")
    with project.serve("-v2") as site:
        address = address_of(site)
        health = site.wait_for_line(r"(http://\S+)/livez")[1]
        ask(address)
        with no_descriptors(site.pid):
            answers = [later(ask, address) for _ in range(10)]
            assert fetch(f"{health}/livez") == "ready\n"
            assert result(site_of(site), "status")["state"] == "STARTED"
        assert [answer.result(DEADLINE)[0] for answer in answers] == [200] * 10
        assert site.stop() == 0
    assert "Traceback" not in site.output
