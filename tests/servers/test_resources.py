"""What a site holds does not grow, however often it is reloaded or its processes are killed."""

from __future__ import annotations

import signal

import psutil
import pytest

from .clients import ask
from .conftest import kill
from .endurance import TIMES, enduring
from .load import Shop, await_that

pytestmark = pytest.mark.extended


def test_reloads_leave_descriptors_threads_memory_and_processes_as_they_were(shop: Shop) -> None:
    with enduring(shop) as endurance:
        site = endurance.site

        def reload(number: int) -> None:
            site.send(signal.SIGUSR1)
            site.wait_for_line("Reloaded after", count=number)

        endurance.repeat(reload)
        assert site.output.count("Reloaded after") == TIMES


def test_kills_of_workers_and_of_masters_leave_all_that_as_it_was(shop: Shop) -> None:
    with enduring(shop) as endurance:
        address, site = endurance.address, endurance.site
        masters, workers = set(), set()

        def kill_worker(number: int) -> None:
            worker = psutil.Process(int(ask(address)[1].split()[0]))
            workers.add(worker)
            kill(worker)

        def kill_master(number: int) -> None:
            (master,) = endurance.process.children()
            masters.add(master)
            master.kill()
            await_that(lambda: ask(address) and site.output.count("answers again") == number)

        endurance.repeat(kill_worker)
        endurance.repeat(kill_master)
        assert (len(workers), len(masters)) == (TIMES, TIMES)
        assert site.output.count("was killed by SIGKILL; restarting it.") == TIMES
