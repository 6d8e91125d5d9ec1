"""The boot of the site process's next program, tried in a process to the side before a restart.

The command line is run as it stands, and finds in its environment that it is to say what it would
do, on a file that is passed to it, instead of doing it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from ..handover import scratch_file
from ..inheritance import Inheritance
from ..wspbus import Refusal
from .spawn import own_environment, spawn_program

VARIABLE = "DJANGO_WSPBUS_TRIAL"
MOST_OF_AN_OUTPUT = 60_000


class Trial:
    """A run of the command line to the side; ``ended()`` is called, in a thread, when it has ended."""

    def __init__(self, command: list[str], held: Inheritance, ended: Callable[[], None]) -> None:
        self._output = scratch_file()
        self._report = scratch_file()
        report = self._report.fileno()
        told = {"report": report, "addresses": sorted(held.addresses), "pidfile": held.pidfile}
        self._process = spawn_program(
            command,
            self._output.fileno(),
            [report],
            {**own_environment(), VARIABLE: json.dumps(told), "PYTHONUNBUFFERED": "1"},
        )
        self._watch = threading.Thread(target=self._await_end, args=(ended,), name="Trial", daemon=True)
        self._watch.start()

    def _await_end(self, ended: Callable[[], None]) -> None:
        self._process.wait()
        ended()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> dict[str, Any]:
        """Return what the next program would do; a `Refusal` says why it would not start."""
        self._report.seek(0)
        told = self._report.read()
        report: dict[str, Any] = json.loads(told) if told else {}
        if "refused" in report:
            raise Refusal(report["refused"])
        status = self._process.wait()
        if not report or status:
            self._output.seek(0)
            output = self._output.read()[-MOST_OF_AN_OUTPUT:].decode(errors="replace").strip()
            raise Refusal(f"its boot ended with status {status}.\n{output}".strip())
        return report

    def close(self) -> None:
        """End it, with all that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._watch.join()
        self._output.close()
        self._report.close()


class Tried:
    """In the process to the side: what it is told, and whom it tells."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._report: int = told["report"]
        self.held = Inheritance(
            sockets=[{"address": address} for address in told["addresses"]], pidfile=told["pidfile"]
        )

    @classmethod
    def take(cls) -> Tried | None:
        """Return it if this process is to try the boot only."""
        told = os.environ.pop(VARIABLE, None)
        return cls(json.loads(told)) if told else None

    def tell(self, report: dict[str, Any]) -> NoReturn:
        """Tell the site, and leave without a look at what else this process has begun."""
        with open(self._report, "w") as file:
            json.dump(report, file)
        os._exit(0)


def own_command() -> list[str]:
    """Return the command line that a restart executes."""
    return [sys.executable, *sys.orig_argv[1:]]
