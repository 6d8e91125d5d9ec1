"""The dry run of a restart: the site's next program boots in another process first.

That process runs the command line as it stands, and finds an order to report what it would do instead of
doing it.
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

from ..successor import start
from ..successor.inheritance import Inheritance
from ..successor.order import Order
from ..successor.values import scratch_file
from ..system.terminal import ALONE
from ..wspbus import Refusal

MOST_OF_AN_OUTPUT = 60_000


class Trial:
    """A dry run; ``ended()`` is called, in a thread, when it has ended."""

    def __init__(self, held: Inheritance, ended: Callable[[], None]) -> None:
        self._output = scratch_file()
        self._report = scratch_file()
        order = {"addresses": sorted(held.addresses), "pidfile": held.pidfile}
        self._process = start.spawn(
            {"trial": order},
            ("dry-run",),
            descriptors={"report": self._report.fileno()},
            options={**ALONE, "stdout": self._output.fileno(), "stderr": self._output.fileno()},
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
        written = self._report.read()
        report: dict[str, Any] = json.loads(written) if written else {}
        status = self._process.wait()
        if report and "refused" not in report and not status:
            return report
        reason = report.get("refused", "")
        if reason and "status" not in report:
            raise Refusal(reason)
        self._output.seek(0)
        output = self._output.read()[-MOST_OF_AN_OUTPUT:].decode(errors="replace").strip()
        if not reason or reason in output:
            reason = f"its boot ended with status {status}."
        raise Refusal(f"{reason}\n{output}".strip())

    def close(self) -> None:
        """End it, with all that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._watch.join()
        self._output.close()
        self._report.close()


class Tried:
    """In the process of the dry run: what the site holds, and the report to it."""

    def __init__(self, order: Order) -> None:
        self._report = order.descriptors["report"]
        held = order.values["trial"]
        self.held = Inheritance(
            sockets=[{"address": address} for address in held["addresses"]], pidfile=held["pidfile"]
        )

    def tell(self, report: dict[str, Any]) -> NoReturn:
        """Report to the site, and end without regard to what else this process has begun."""
        with open(self._report, "w") as file:
            json.dump(report, file)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or None
                stream.flush()
        os._exit(0)
