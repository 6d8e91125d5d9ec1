"""What a site holds does not grow, however often it is reloaded. Crashes: test_resources_of_crashes.py."""

from __future__ import annotations

import signal
from pathlib import Path

from .endurance import TIMES, enduring
from .load import Shop


def test_50_reloads_leave_descriptors_threads_memory_and_processes_as_they_were(tmp_path: Path) -> None:
    with enduring(Shop(tmp_path)) as endurance:
        site = endurance.site

        def reload(number: int) -> None:
            site.send(signal.SIGUSR1)
            site.wait_for_line("Reloaded after", count=number)

        endurance.repeat(reload)
        assert site.output.count("Reloaded after") == TIMES
