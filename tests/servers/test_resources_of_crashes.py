"""What a site holds does not grow, however often its processes are killed. Reloads: test_resources.py."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.processes import DEADLINE

from .conftest import ask
from .endurance import TIMES, enduring
from .load import Shop, await_that


def test_50_kills_of_workers_and_of_masters_leave_what_there_is_as_it_was(tmp_path: Path) -> None:
    with enduring(Shop(tmp_path)) as endurance:
        address, site = endurance.address, endurance.site
        masters, workers = set(), set()

        def kill_worker(number: int) -> None:
            worker = psutil.Process(int(ask(address)[1].split()[0]))
            workers.add(worker)
            worker.kill()
            assert psutil.wait_procs([worker], DEADLINE)[1] == []

        def kill_master(number: int) -> None:
            (master,) = endurance.process.children()
            masters.add(master)
            master.kill()
            await_that(lambda: ask(address) and site.output.count("answers again") == number)

        endurance.repeat(kill_worker)
        endurance.repeat(kill_master)
        assert (len(workers), len(masters)) == (TIMES, TIMES)
        assert site.output.count("ended by itself, killed by SIGKILL: it is started again.") == TIMES
