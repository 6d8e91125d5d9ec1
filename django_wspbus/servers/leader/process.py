"""The leader process itself: it boots, waits to be released, leads whenever it has the lease, and exits."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from _thread import start_new_thread
from typing import Any, NoReturn

from ... import conf
from ...children.deadlines import Deadlines
from ...children.orders import SERVE, follow_orders, read_exit, read_orders
from ...children.spawn import StartedChild
from ...conf import Settings
from ...fleet.cron import jobs_of
from ...fleet.election import Election
from ...fleet.engines import make_engine
from ...fleet.jobs import Jobs
from ...fleet.leader import ElectedLeader
from ...fleet.leadership import Timing, name_of_holder
from ...fleet.requests import EngineOfSite
from ...fleet.version import version_of_code
from ...process.asking import RemoteSite
from ...process.bus import bus
from ...process.membership import Membership
from ...process.phases import Phases, time_of_site
from ...process.record import Record, Stage
from ...process.reports import Answered, Expected, Failed, FilesReopened, Ready, Stopped
from ...process.worker_orders import Order, Released
from ...project.tracebacks import explain
from ...successor.program import die_with
from ...system.log_files import reopen
from ...wspbus import EX_SOFTWARE, ChannelFailures, Refusal

LONGEST_REASON = 60_000
"""Characters of a reason that are sent to the site, its last ones."""

TIME_WITHOUT_SITE = 0.8
"""Seconds that the process has once the site process has ended; half of them are for its jobs."""

TIME_TO_STOP_JOBS = 5.0
"""Seconds for the thread of the jobs to see that none is to begin any more."""

IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""The signals that are for the site process, and that a terminal sends to all processes."""


def run(child: StartedChild) -> None:
    """Be a candidate until the site ends this process. Report a failure of the boot to the site."""
    site = SiteOfLeader(child.pair)
    try:
        settings, problems = conf.read(child.overrides)
        if settings is None:
            raise Refusal("\n".join(problem.line for problem in problems if problem.is_error))
        process = LeaderProcess(child, settings, site)
    except Exception as error:
        reason = str(error) if isinstance(error, Refusal) else f"its boot failed: {explain(error)}"
        site.report(Failed(reason[-LONGEST_REASON:], 1))
        raise SystemExit(1) from None
    process.run()


class SiteOfLeader(RemoteSite):
    """The site, seen from the leader process."""

    def __init__(self, pair: socket.socket) -> None:
        super().__init__(pair, "other")  # until it joins, with its record

    def report_hanging(self, text: str) -> bool:
        self.report(Stopped(os.getpid(), [f"process {os.getpid()}: {text[-LONGEST_REASON:]}"], ""))
        return True


class LeaderProcess:
    """The life of the leader process. Its bus is STARTED while it leads, and STOPPED otherwise."""

    def __init__(self, child: StartedChild, settings: Settings, site: SiteOfLeader) -> None:
        self.child = child
        self.settings = settings
        self.site = site
        self.deadlines = Deadlines()
        self._has_stopped = False
        self.record = Record.make(0)
        engine = make_engine(settings.fleet)
        timing = Timing(engine.lease)
        self.requests = requests = EngineOfSite(site, 2 * engine.timeout)  # calls of others may come before
        self.election = Election(
            requests,
            timing,
            name_of_holder(socket.gethostname(), os.getpid()),
            elected=lambda: bus.defer(self._begin_term),
            lost=lambda: bus.defer(self._end_term),
            log=bus.log,
        )
        self.jobs = Jobs(requests, jobs_of(bus), engine.lease, self._leads)
        bus.leader = ElectedLeader(self.election, engine)

    def _leads(self) -> bool:
        return self.election.term is not None

    def run(self) -> None:
        """Report that this process is ready, and do what the site orders, until the bus exits."""
        die_with(os.getppid(), signal.SIGTERM)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: bus.defer(self._exit_on_signal))
        signal.signal(signal.SIGUSR1, lambda *_: start_new_thread(self._reopen_log_files, ()))
        self.record.write_stacks_on_signal()
        Membership(bus, self.site, self.record, self._obey).join()
        bus.roles = {"leader"}
        self.requests.describe_jobs([job.description() for job in jobs_of(bus)])
        self.site.report(
            Expected(1, leads=bool(bus.of_role("leader")), version=version_of_code(self.settings.fleet))
        )
        self.record.stage = Stage.READY
        self.site.report(Ready(os.getpid()))
        threading.Thread(target=self._watch_site, name="Site watch", daemon=True).start()
        try:
            bus.block()
        finally:
            self.election.retire()
            self._report_stop([])  # of an exit that the site has not ordered, as after a failed start

    def _obey(self, order: Order) -> None:
        """Carry out an order of the site; the others that there are go to workers alone."""
        if isinstance(order, Released):
            self.election.wake()

    def _reopen_log_files(self) -> None:
        result = reopen(self.child.start.outputs)
        self.site.report(FilesReopened(os.getpid(), result.files, result.failures))

    # Orders of the site

    def _watch_site(self) -> NoReturn:
        is_released = False
        for orders in follow_orders(self.child.pair):
            if SERVE in orders and not is_released:
                is_released = True
                bus.defer(self._become_candidate)
            if (moments := read_exit(orders)) is not None:
                self._begin_exit(*moments)
        now = time.monotonic()
        self._begin_exit(now + TIME_WITHOUT_SITE / 2, now + TIME_WITHOUT_SITE)
        threading.Event().wait(TIME_WITHOUT_SITE)
        os._exit(1)

    def _exit_on_signal(self) -> None:
        """Exit as the site has ordered, or by the time of the settings if the signal is not the site's."""
        phases = Phases.of(bus, self.settings)
        self._begin_exit(*(read_exit(read_orders(self.child.pair)) or (phases.requests, phases.workers)))

    def _begin_exit(self, jobs: float, listeners: float) -> None:
        """Exit; cut off jobs and listeners that are not over by these moments, or by earlier ones."""
        is_first = self.deadlines.shorten(jobs, listeners)
        self.jobs.wake()
        if is_first:
            bus.defer(self._exit)
            threading.Thread(target=self._keep_deadlines, name="Exit", daemon=True).start()

    def _keep_deadlines(self) -> None:
        self.deadlines.await_listeners()
        bus.watchdog.end_hanging(threading.main_thread().ident)

    # Its terms, in the main thread

    def _become_candidate(self) -> None:
        self.record.served_from = time.monotonic()
        self.record.stage = Stage.SERVING
        if self.deadlines.requests is None:
            self.election.start()

    def _begin_term(self) -> None:
        if not self._leads() or self.deadlines.requests is not None:
            return
        try:
            bus.start()
        except ChannelFailures:  # they are in the log; the bus has exited, and another process may try
            return
        if bus.state is bus.states.STARTED:
            self.record.stage = Stage.PROVEN
            self.site.report(Answered(os.getpid()))
            self.jobs.start()

    def _end_term(self) -> None:
        self.jobs.stop()
        self._stop_bus()
        self.election.note_stopped()

    def _stop_bus(self) -> list[str]:
        """Run the stop listeners if the start listeners have run; return what failed."""
        if bus.state is not bus.states.STARTED:
            return []
        try:
            bus.stop()
        except ChannelFailures:  # they are in the log
            return [f"a stop listener of process {os.getpid()} failed."]
        return []

    def _exit(self) -> None:
        """Stop to lead, release the lease, and wait for the jobs that run."""
        if bus.state is bus.states.EXITING:
            return
        self.jobs.stop(TIME_TO_STOP_JOBS)
        with bus.watchdog.watch(time.monotonic() + time_of_site(self.settings.stop_timeout)):
            failures = self._stop_bus()
        self.election.retire()
        left = self.jobs.wait(lambda: self.deadlines.requests or 0.0)
        if left:
            failures.append(f"jobs cut off in process {os.getpid()}: {', '.join(left)}.")
        bus.exit()
        if bus.failed and not failures:
            failures.append(f"an exit listener of process {os.getpid()} failed.")
        self._report_stop(failures)
        if left:  # their threads may be at work, but not while the interpreter ends
            self._end(bool(failures))

    def _report_stop(self, failures: list[str]) -> None:
        """Report once that the stop listeners have run, and what failed."""
        if not self._has_stopped:
            self._has_stopped = True
            self.site.report(Stopped(os.getpid(), failures, ""))

    def _end(self, has_failed: Any) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(EX_SOFTWARE if has_failed else 0)
