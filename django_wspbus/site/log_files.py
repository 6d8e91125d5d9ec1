"""Reopening the log files of all processes of a site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..children.child import Child
from ..children.children import Children
from ..control.calls import Call
from ..servers.base import Server
from ..servers.child import ChildServer
from ..system.log_files import Reopened, reopen, reopen_streams
from ..wspbus import Bus, Refusal
from ..wspbus.plugin import Plugin

if TYPE_CHECKING:
    from ..conf import Daemonize

TIMEOUT = 5.0
"""Seconds for the processes of the children to report that they have reopened their files."""

MAIN_THREAD_TIMEOUT = 30.0
"""Seconds for the main thread of the site to do it, which may be busy with a listener."""


class LogFiles(Plugin):
    """Reopens the log files of the site process and of its children, so that log rotation can move them.

    It does so on the channel ``reopen``: the file handlers of LOGGING, the files of gunicorn's own logs, and
    the output files of a daemon. At a restart only the output files are reopened, because the new processes
    open all others themselves.
    """

    role = "site"

    def __init__(
        self, bus: Bus, children: Children, servers: Sequence[Server], daemonize: Daemonize | None
    ) -> None:
        super().__init__(bus)
        self._children = children
        self._servers = {each.settings.alias: each for each in servers if isinstance(each, ChildServer)}
        self._outputs: Mapping[int, Path | None] = (
            {} if daemonize is None else {1: daemonize.stdout, 2: daemonize.stderr}
        )
        self._later: list[Child] = []
        """Children that boot, and may have opened files that have been moved meanwhile."""

    def subscribe(self) -> None:
        super().subscribe()
        self._children.observers.append(self._reopen_later)

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self._children.observers.remove(self._reopen_later)

    def reopen(self) -> dict[str, Any]:
        """Reopen all files; return ``{"files": [path], "failures": [path and reason]}``."""
        result = reopen(self._outputs)
        children = self._children.all()
        self._later = [child for child in children if not _handles_signals(child)]
        result.add(self._reopen_in([child for child in children if _handles_signals(child)]))
        if result.failures:
            failures = ", ".join(result.failures)
            self.bus.log(f"Log files not reopened, so that records go to the old ones: {failures}.", 30)
        count = len(result.files)
        self.bus.log(f"Reopened {count} log file{'' if count == 1 else 's'}.")
        return {"files": result.files, "failures": result.failures}

    def answer(self, call: Call) -> dict[str, Any]:
        """Reopen all files, as an action of the control socket, which runs in a thread of its own."""
        result: Future[dict[str, Any]] = Future()

        def run() -> None:
            try:
                result.set_result(self.reopen())
            except BaseException as error:  # the client gets it
                result.set_exception(error)

        self.bus.defer(run)
        try:
            return result.result(MAIN_THREAD_TIMEOUT)
        except TimeoutError:
            reason = f"The main thread of the site has not done it within {MAIN_THREAD_TIMEOUT:g} s."
            raise Refusal(f"{reason} A listener may be hanging; the files are reopened after it.") from None

    def _reopen_in(self, children: Sequence[Child]) -> Reopened:
        """Tell the processes of children to reopen their files, and wait until they have."""
        awaited: dict[int, Child] = {}
        for child in children:
            child.progress.reopened.clear()
            if child.alias in self._servers:
                awaited |= dict.fromkeys(self._servers[child.alias].reopen_log_files(child), child)

        def missing() -> list[int]:
            return [
                pid
                for pid, child in awaited.items()
                if pid not in child.progress.reopened
                and (pid in child.workers or (pid == child.pid and not child.ended))
            ]

        self.bus.wait_for(lambda: not missing(), TIMEOUT, despite_exit=True)
        result = Reopened(
            failures=[f"process {pid} has not reopened its files within {TIMEOUT:g} s" for pid in missing()]
        )
        for child in children:
            for report in list(child.progress.reopened.values()):
                result.add(Reopened(report.files, report.failures))
        return result

    def _reopen_later(self) -> None:
        for child in [each for each in self._later if _handles_signals(each) or each.ended]:
            self._later.remove(child)
            if child.alias in self._servers:
                self._servers[child.alias].reopen_log_files(child)

    def before_restart(self) -> None:
        # The children that boot for the restart inherit the new files.
        if failures := ", ".join(reopen_streams(self._outputs).failures):
            self.bus.log(f"Output files not reopened, so output goes to the old ones: {failures}.", level=30)

    before_restart.priority = 10  # type: ignore[attr-defined]  # before children boot


def _handles_signals(child: Child) -> bool:
    """Return whether the processes of a child have installed their handlers: its workers are forked later."""
    return bool(child.workers)
