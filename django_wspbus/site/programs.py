"""Restarting the programs of PROCESSES for a client of the control socket."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..children.programs.program import Program
from ..control.calls import ClientGone
from ..wspbus import Bus, Refusal
from .following import Client

LOOK_INTERVAL = 0.05

TIME_TO_FAIL = 1.0
"""Seconds that a new program has to run: most of those that cannot start end before."""


def restart_programs(bus: Bus, call: Client, programs: Sequence[Program], timeout: float) -> dict[str, Any]:
    """Replace all instances of an entry; return once the new ones run, or raise the reason why one does not.

    ``timeout``: seconds that they have besides their STOP_TIMEOUT.
    """
    began, alias = time.monotonic(), programs[0].settings.alias
    before = [program.starts for program in programs]
    call.step(f"stopping {alias!r}")
    for program in programs:
        bus.defer(program.replace)
    deadline = began + programs[0].settings.stop_timeout + timeout
    started: float | None = None
    while started is None or time.monotonic() < started + TIME_TO_FAIL:
        for program, starts in zip(programs, before, strict=True):
            if program.starts > starts and program.state == "waiting":
                raise Refusal(f"The program {program.name!r} does not run: {program.trouble}.")
        if started is None and all(
            program.starts > starts and program.state == "running"
            for program, starts in zip(programs, before, strict=True)
        ):
            started = time.monotonic()
            call.step(f"starting {alias!r}")
        if bus.exit_asked:
            raise Refusal("The site exits.")
        if time.monotonic() > deadline:
            raise Refusal(f"The program {alias!r} was not restarted within {deadline - began:g} s.")
        if call.wait_until_gone(LOOK_INTERVAL):
            raise ClientGone
    seconds = started - began
    return {"message": f"Restarted {alias!r} in {seconds:.2f} s.", "seconds": seconds}
