"""The runs of the jobs, in the process that leads."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..process.database import fresh_connections
from .base import Run, Unavailable
from .cron import Job, local_time
from .requests import EngineOfSite

logger = logging.getLogger("django_wspbus")

LONGEST_PAUSE = 15.0
"""Seconds after which the time of the engine is asked for again."""

RETRY = 1.0
"""Seconds until the next try, if the engine does not answer."""

LONGEST_ERROR = 500


class Jobs:
    """Runs jobs at their ticks from `start` to `stop`, each in a thread of its own.

    ``leads()`` says if this process still leads. Each run has database connections of its own.
    """

    def __init__(
        self,
        engine: EngineOfSite,
        jobs: Sequence[Job],
        lease: float,
        leads: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._lease = lease
        self._leads = leads
        self._runs: dict[str, Run] = {}
        """The last run of each job, as the engine has it."""
        self._running: dict[str, Run] = {}
        """The runs under way in this process."""
        self._lost_answers: dict[str, Run] = {}
        """The claims of which it is not known if the engine has taken them."""
        self._passed: dict[str, float] = {}
        """The last tick of each job that has passed while it ran."""
        self._in_doubt: set[str] = set()
        """The jobs that run in a member which may have ended: its sign of life is overdue."""
        self._skipped: Counter[str] = Counter()
        """The number of those ticks, until the next claim records it."""
        self._is_woken = False
        """True if `wake` was called while the thread was at work."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        """The thread that may begin runs."""

    def start(self) -> None:
        if self._jobs:
            self._thread = threading.Thread(target=self._run, name="Jobs", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 0.0) -> None:
        """Begin no further run, and wait for one that is about to begin. Those under way go on."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout)

    def wake(self) -> None:
        """Look again at the time, and at the moment until which `wait` waits."""
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def wait(self, until: Callable[[], float]) -> list[str]:
        """Wait for the runs under way, until a moment of `time.monotonic`; return the jobs that still run."""
        with self._changed:
            while self._running and (left := until() - time.monotonic()) > 0:
                self._changed.wait(left)
            return sorted(self._running)

    # The thread

    def _run(self) -> None:
        is_known = False
        while self._may_run():
            try:
                if not is_known:
                    self._read_runs()
                    self._take_lost_answers()
                    is_known = True
                pause = self._attend()
            except Unavailable:
                is_known, pause = False, RETRY  # another may have led meanwhile
            except Exception:  # the jobs must not stop without a word
                logger.exception("The jobs wait for %g seconds.", LONGEST_PAUSE)
                is_known, pause = False, LONGEST_PAUSE
            with self._changed:
                if self._is_active() and not self._is_woken:
                    self._changed.wait(pause)
                self._is_woken = False

    def _may_run(self) -> bool:
        return self._is_active() and self._leads()

    def _is_active(self) -> bool:
        return self._thread is threading.current_thread()

    def _read_runs(self) -> None:
        known = {*self._running, *self._lost_answers}
        found = {run.job: run for run in self._engine.runs()}
        self._runs = {**found, **self._forgotten_by(found)}
        silences = self._silences()
        here = self._engine.member(), os.getpid()  # two containers may share host name and PID
        self._in_doubt = set()
        for run in list(self._runs.values()):
            if run.outcome != "running" or run.job in known:
                continue
            silent = silences.get(run.member, math.inf) if run.member else 0.0
            if (run.member, run.pid) == here:
                self._note_lost(as_lost(run, "the engine has taken the claim too late"))
            elif silent > self._lease:
                self._note_lost(as_lost(run))
            elif silent > self._lease / 2:
                self._in_doubt.add(run.job)

    def _forgotten_by(self, found: Mapping[str, Run]) -> dict[str, Run]:
        """Return the runs that an engine has lost with its last writes: their ticks do not run again."""
        lost = {}
        for name, run in self._runs.items():
            if name not in found or found[name].tick < run.tick:
                is_unknown = run.outcome == "running" and name not in self._running
                lost[name] = as_lost(run, "the engine has lost its record") if is_unknown else run
        return lost

    def _silences(self) -> dict[str, float]:
        """Return the seconds since the last sign of life of each member."""
        now = self._engine.time()
        return {member.id: now - member.seen for member in self._engine.members()}

    def _note_lost(self, lost: Run) -> None:
        if self._engine.finish(lost):
            self._runs[lost.job] = lost
            logger.error("%s", sentence_of_loss(lost))

    def _take_lost_answers(self) -> None:
        """Begin the runs that this process has claimed, although it has not got the answer of the engine."""
        unknown, self._lost_answers = self._lost_answers, {}
        for job in self._jobs:
            claimed, found = unknown.get(job.name), self._runs.get(job.name)
            if claimed is not None and found is not None and is_same(claimed, found):
                self._begin(job, found)

    def _attend(self) -> float:
        """Run what is due; return the seconds until the next tick."""
        now = self._engine.time()
        due = [self._attend_to(job, now) for job in self._jobs]
        return min([max(each - now, 0.001) for each in due if each is not None] + [LONGEST_PAUSE])

    def _attend_to(self, job: Job, now: float) -> float | None:
        """Run a job if it is due; return the time at which it is due next."""
        last = self._runs.get(job.name)
        if last is None:  # a new job: its ticks count from now on
            self._claim(Run(job.name, now))
            return self._next(job, now)
        ticks = job.schedule.between(max(last.tick, self._passed.get(job.name, last.tick)), now)
        due = [tick for tick in ticks if tick + job.delay(tick) <= now]
        if due:
            if not self._take_ticks(job, due, now):
                return now + RETRY
            ticks = [tick for tick in ticks if tick > due[-1]]
        return ticks[0] + job.delay(ticks[0]) if ticks else self._next(job, now)

    def _next(self, job: Job, now: float) -> float | None:
        tick = job.schedule.next(now)
        return None if tick is None else tick + job.delay(tick)

    def _take_ticks(self, job: Job, due: list[float], now: float) -> bool:
        """Claim the last of the ticks that are due, and run the job, or skip it.

        Return False if it is not known whether the job still runs elsewhere: then the ticks wait.
        """
        tick, last = due[-1], self._runs[job.name]
        if (
            job.name not in self._running and last.outcome == "running"
        ):  # in another process, which may be done
            self._read_runs()
            last = self._runs[job.name]
            if job.name in self._in_doubt:
                return False
        if job.name in self._running or last.outcome == "running":
            self._passed[job.name] = tick
            self._skipped[job.name] += len(due)
            self._log_skipped(job, tick, "it still runs")
            return True
        if job.is_too_late(tick, now, self._lease):
            self._log_skipped(job, tick, "it was due too long ago")
            skipped = self._skipped[job.name] + len(due)
            run = replace(last, tick=tick, outcome="skipped", counts=counted(last, skipped=skipped))
        else:
            skipped = self._skipped[job.name] + len(due) - 1
            if len(due) > 1:
                logger.warning("Job %s: earlier ticks that were missed: %d.", job.name, len(due) - 1)
            counts = counted(last, skipped=skipped)
            run = Run(job.name, tick, pid=os.getpid(), began=now, outcome="running", counts=counts)
        if self._claim(run):
            self._passed.pop(job.name, None)
            self._skipped[job.name] = 0
            if run.outcome == "running":
                self._begin(job, run)
        return True

    def _log_skipped(self, job: Job, tick: float, why: str) -> None:
        logger.warning("Job %s: the tick of %s was skipped: %s.", job.name, local_time(tick), why)

    def _claim(self, run: Run) -> bool:
        """Record a tick as taken by this process; if another has taken it, read what there is now."""
        if not self._may_run():
            return False
        if run.outcome == "running":
            self._lost_answers[run.job] = run  # until there is an answer
        is_claimed = self._engine.claim(run)
        if is_claimed:
            self._runs[run.job] = run
        else:  # by another, or by this claim itself: a site that restarts meanwhile carries it out twice
            self._read_runs()
            found = self._runs.get(run.job)
            is_claimed = found is not None and found.outcome == "running" and is_same(run, found)
        self._lost_answers.pop(run.job, None)
        return is_claimed

    # A run

    def _begin(self, job: Job, run: Run) -> None:
        thread = threading.Thread(
            target=self._carry_out, args=(job, run), name=f"Job {job.name}", daemon=True
        )
        with self._changed:
            self._running[job.name] = run
        try:
            thread.start()
        except RuntimeError as failure:  # the system has no thread left
            logger.error("Job %s failed: %s.", job.name, failure)
            self._finish(job, 0.0, f"RuntimeError: {failure}")

    def _carry_out(self, job: Job, run: Run) -> None:
        began, error = time.monotonic(), ""
        try:
            with fresh_connections(ends=True):
                job()
        except BaseException as failure:  # SystemExit would end the thread without a word
            error = f"{type(failure).__name__}: {failure}"[:LONGEST_ERROR]
            logger.exception("Job %s failed.", job.name)
        self._finish(job, time.monotonic() - began, error)

    def _finish(self, job: Job, seconds: float, error: str) -> None:
        run, outcome = self._running[job.name], "failed" if error else "ok"
        ended = replace(
            run,
            ended=(run.began or 0.0) + seconds,
            outcome=outcome,
            error=error,
            counts=counted(run, **{outcome: 1}),
        )
        try:
            while True:
                with contextlib.suppress(Unavailable):
                    self._engine.finish(ended)
                    return
                time.sleep(RETRY)
        finally:
            with self._changed:
                if self._runs.get(job.name) is run:
                    self._runs[job.name] = ended
                del self._running[job.name]
                self._changed.notify_all()


def is_same(one: Run, other: Run) -> bool:
    """Return whether two records are of one run."""
    return (one.job, one.pid, one.began) == (other.job, other.pid, other.began)


def counted(run: Run, **more: int) -> dict[str, int]:
    """Return the counts of a job's runs, with some more."""
    return {
        **run.counts,
        **{name: run.counts.get(name, 0) + number for name, number in more.items() if number},
    }


def as_lost(run: Run, why: str = "its process has ended") -> Run:
    """Return a run that has not come to its end."""
    return replace(run, outcome="lost", error=why, counts=counted(run, lost=1))


def sentence_of_loss(lost: Run) -> str:
    where = f"in process {lost.pid} on {lost.host}"
    return f"Job {lost.job}: the run of {local_time(lost.tick)} {where} is lost: {lost.error}."
