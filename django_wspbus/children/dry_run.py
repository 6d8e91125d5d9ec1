"""The dry run of a restart: the site's next program boots in another process first.

That process runs the command line of the site. Its order makes it report the plan of the site instead of
serving.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, Self

from ..successor import start
from ..successor.order import Order
from ..successor.state import Holdings
from ..successor.values import scratch_file
from ..system.terminal import ALONE
from ..wspbus import Refusal

NO_START = "the new site process would not start"
"""The beginning of a refusal of which the reason is that of a boot."""

LONGEST_OUTPUT = 60_000
"""Bytes of the output of a dry run, its last ones, that a refusal shows."""


@dataclass(frozen=True, slots=True)
class PlannedServer:
    """A server of the restarted site."""

    run: str | None
    """The function of its child, see `servers.child.ChildServer`; None if it serves in the site process."""
    bind: list[str]


@dataclass(frozen=True, slots=True)
class PlannedSocket:
    """An address on which the restarted site listens. ``holder``: see `state.SocketState`."""

    holder: str
    address: str
    backlog: int


@dataclass(frozen=True, slots=True)
class SitePlan:
    """The plan of the restarted site."""

    servers: dict[str, PlannedServer]
    """alias -> server"""
    sockets: list[PlannedSocket]
    pidfile: str | None

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        return cls(
            {alias: PlannedServer(**server) for alias, server in values["servers"].items()},
            [PlannedSocket(**each) for each in values["sockets"]],
            values["pidfile"],
        )


@dataclass(frozen=True, slots=True)
class DryRunReport:
    """The outcome of a dry run: a plan, or the reason why the site would not start."""

    plan: SitePlan | None = None
    refused: str = ""
    status: int | None = None
    """The status of the process, if `successor.runner` reports that ``runbus`` did not take the order."""

    @classmethod
    def read(cls, text: bytes) -> Self:
        values = json.loads(text or b"{}")
        plan = values.pop("plan", None)
        return cls(None if plan is None else SitePlan.of(plan), **values)


class DryRunProcess:
    """A dry run, as the site sees it; ``ended()`` is called, in a thread, when it has ended."""

    def __init__(self, held: Holdings, ended: Callable[[], None]) -> None:
        self._output = scratch_file()
        self._report = scratch_file()
        self._process = start.spawn(
            {"dry_run": asdict(held)},
            ("dry-run",),
            descriptors={"report": self._report.fileno()},
            options={**ALONE, "stdout": self._output.fileno(), "stderr": self._output.fileno()},
        )
        self._watch = threading.Thread(target=self._await_end, args=(ended,), name="Dry run", daemon=True)
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

    def result(self) -> SitePlan:
        """Return the plan of the restarted site; a `Refusal` says why the site would not start."""
        self._report.seek(0)
        report = DryRunReport.read(self._report.read())
        status = self._process.wait()
        if report.plan is not None and not status:
            return report.plan
        reason = report.refused
        if reason and report.status is None:
            raise Refusal(reason)
        self._output.seek(0)
        output = self._output.read()[-LONGEST_OUTPUT:].decode(errors="replace").strip()
        if not reason or reason in output:
            reason = f"its boot ended with status {status}."
        raise Refusal(f"{NO_START}: {reason}\n{output}".strip())

    def close(self) -> None:
        """End the dry run, with all processes that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._watch.join()
        self._output.close()
        self._report.close()


class DryRun:
    """The dry run in its own process. ``held``: addresses and files that the site holds."""

    def __init__(self, order: Order) -> None:
        self._report = order.descriptors["report"]
        self.held = Holdings(**order.values["dry_run"])

    def report(self, report: DryRunReport) -> NoReturn:
        """Report to the site and end this process at once, without its cleanup."""
        with open(self._report, "w") as file:
            json.dump(asdict(report), file)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or None
                stream.flush()
        os._exit(0)
