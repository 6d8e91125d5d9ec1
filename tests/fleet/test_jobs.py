"""The runs of jobs, over an engine whose clock the tests set."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from django_wspbus.fleet.base import Member, Run, Unavailable
from django_wspbus.fleet.cron import Job, Schedule
from django_wspbus.fleet.jobs import Jobs
from django_wspbus.fleet.local import LocalEngine

from ..processes import DEADLINE
from ..servers.load import await_that
from .conftest import database

BEGIN = 1_800_000_000.0
"""A whole minute."""


class Engine(LocalEngine):
    """An engine with a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN + 1
        self.lose_answers = False
        self.claims_twice = False
        self.is_away = False
        self.looks = 0
        """The number of times that the members were read."""
        self.times = 0
        """The number of times that the time was asked for."""

    def member(self) -> str:
        return "here"

    def members(self) -> list[Member]:
        self.looks += 1
        return super().members()

    def time(self) -> float:
        if self.is_away:
            self.is_away = False
            raise Unavailable("the engine is away")
        self.times += 1
        self.now += 1e-6  # no two processes see the same time
        return self.now

    def return_with(self, runs: list[Run]) -> None:
        """Fail once, and come back with other records."""
        self._runs = {run.job: run for run in runs}
        self.is_away = True

    def claim(self, run: Run) -> bool:
        claimed = super().claim(run)
        if self.claims_twice:
            claimed = super().claim(run)
        if self.lose_answers:
            self.lose_answers = False
            raise Unavailable("the answer is lost")
        return claimed

    def last(self, name: str = "job") -> Run | None:
        return next((run for run in self.runs() if run.job == name), None)


class Calls:
    """A function that counts its calls, and waits in each while it is held."""

    def __init__(self) -> None:
        self.count = 0
        self.go = threading.Event()
        self.go.set()
        self.error: BaseException | None = None

    def __call__(self) -> None:
        self.count += 1
        self.go.wait(DEADLINE)
        if self.error is not None:
            raise self.error


class Leader:
    """A process that leads."""

    def __init__(self, engine: Engine, *jobs: Job) -> None:
        self.engine = engine
        self.leads = True
        self.jobs = Jobs(engine, jobs, 15, lambda: self.leads)  # type: ignore[arg-type]

    def __enter__(self) -> Leader:
        self.jobs.start()
        await_that(self.engine.runs)
        return self

    def __exit__(self, *exception: object) -> None:
        self.jobs.stop(DEADLINE)

    def advance(self, seconds: float) -> None:
        self.engine.now += seconds
        self.jobs.wake()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def calls() -> Calls:
    return Calls()


def make(calls: Calls, **options: object) -> Job:
    return Job(calls, Schedule("* * * * *", "UTC"), name="job", **options)  # type: ignore[arg-type]


def ended(engine: Engine, outcome: str, tick: float) -> Callable[[], bool]:
    def is_so() -> bool:
        run = engine.last()
        return run is not None and (run.outcome, run.tick) == (outcome, BEGIN + tick)

    return is_so


def test_a_job_runs_at_each_tick_from_its_first_leader_on(engine: Engine, calls: Calls) -> None:
    with Leader(engine, make(calls)) as leader:
        assert calls.count == 0
        for tick in (60, 120):
            leader.advance(60)
            await_that(ended(engine, "ok", tick))
    assert calls.count == 2
    run = engine.last()
    assert run is not None
    assert run.counts == {"ok": 2}
    assert run.began == pytest.approx(BEGIN + 121, rel=0, abs=0.01)


def test_a_new_leader_goes_on_where_the_last_one_stopped(engine: Engine, calls: Calls) -> None:
    with Leader(engine, make(calls)) as leader:
        leader.advance(60)
        await_that(ended(engine, "ok", 60))
    engine.now += 59
    with Leader(engine, make(calls)):
        await_that(ended(engine, "ok", 120))
    with Leader(engine, make(calls)) as leader:
        leader.advance(60)
        await_that(ended(engine, "ok", 180))
    assert calls.count == 3


def test_two_that_take_themselves_for_the_leader_run_a_tick_once(engine: Engine, calls: Calls) -> None:
    with Leader(engine, make(calls)) as one, Leader(engine, make(calls)) as other:
        for tick in range(60, 660, 60):
            engine.now += 60
            one.jobs.wake()
            other.jobs.wake()
            await_that(ended(engine, "ok", tick))
    assert calls.count == 10


def test_a_clock_that_goes_back_runs_no_tick_again(engine: Engine, calls: Calls) -> None:
    with Leader(engine, make(calls)) as leader:
        leader.advance(60)
        await_that(ended(engine, "ok", 60))
        leader.advance(-30)
        leader.advance(31)
        leader.advance(60)
        await_that(ended(engine, "ok", 120))
    assert calls.count == 2


def test_an_engine_that_loses_its_last_writes_makes_its_leader_repeat_no_tick(
    engine: Engine, calls: Calls
) -> None:
    with Leader(engine, make(calls)) as leader:
        leader.advance(60)
        await_that(ended(engine, "ok", 60))
        before = engine.runs()
        leader.advance(60)
        await_that(ended(engine, "ok", 120))
        for left, tick in ((before, 180), ([], 240)):
            engine.return_with(left)
            leader.jobs.wake()
            await_that(lambda: not engine.is_away)
            leader.advance(60)
            await_that(ended(engine, "ok", tick))
    run = engine.last()
    assert run is not None
    assert (run.counts, calls.count) == ({"ok": 4}, 4)


def test_a_run_whose_record_the_engine_has_lost_does_not_keep_the_job_from_running(
    engine: Engine, calls: Calls
) -> None:
    engine.beat(Member("m2", "web2", 1, "", "STARTED"))
    engine.claim(Run("job", BEGIN, "web2", 7, "m2", began=BEGIN, outcome="running"))
    with Leader(engine, make(calls)) as leader:
        await_that(lambda: "job" in leader.jobs._runs)
        engine.return_with([])
        leader.advance(60)
        await_that(ended(engine, "ok", 60))
    run = engine.last()
    assert run is not None
    assert run.counts == {"lost": 1, "ok": 1}


def test_a_late_tick_runs_within_the_grace_and_the_ones_before_it_are_skipped(
    engine: Engine, calls: Calls
) -> None:
    with Leader(engine, make(calls)):
        pass
    engine.now += 240
    with Leader(engine, make(calls)):
        await_that(ended(engine, "ok", 240))
    run = engine.last()
    assert run is not None
    assert run.counts == {"skipped": 3, "ok": 1}
    assert calls.count == 1


@pytest.mark.parametrize(
    ("options", "late", "outcome"),
    [
        ({}, 74, "ok"),  # by default, the lease and 60 s
        ({}, 76, "skipped"),
        ({"most_late": 9}, 8, "ok"),
        ({"most_late": 9}, 10, "skipped"),
    ],
)
def test_a_tick_that_is_later_than_the_grace_is_skipped(
    engine: Engine,
    calls: Calls,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, float],
    late: float,
    outcome: str,
) -> None:
    job = Job(calls, Schedule("0 * * * *", "UTC"), name="job", **options)  # BEGIN is a whole hour, too
    with Leader(engine, job):
        pass
    engine.now = BEGIN + 3600 + late
    with Leader(engine, job):
        await_that(ended(engine, outcome, 3600))
    assert calls.count == (outcome == "ok")
    assert ("was due too long ago" in caplog.text) == (outcome == "skipped")


def test_a_jitter_delays_a_run(engine: Engine, calls: Calls) -> None:
    job = make(calls, jitter=50)
    due = BEGIN + 60 + job.delay(BEGIN + 60)
    with Leader(engine, job) as leader:
        engine.now, before = due - 0.5, engine.times
        leader.jobs.wake()
        await_that(lambda: engine.times > before)
        leader.advance(0.5)
        await_that(ended(engine, "ok", 60))
    run = engine.last()
    assert run is not None
    assert run.began == pytest.approx(due, abs=0.01)


def test_with_catch_up_it_runs_however_late_it_is(engine: Engine, calls: Calls) -> None:
    job = Job(calls, Schedule("0 * * * *", "UTC"), name="job", catch_up=True)
    with Leader(engine, job):
        pass
    engine.now += 3 * 3600 + 1800
    with Leader(engine, job):
        await_that(ended(engine, "ok", 3 * 3600))
    assert calls.count == 1


def test_a_run_that_outlasts_its_interval_does_not_pile_up(
    engine: Engine, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    calls.go.clear()
    with Leader(engine, make(calls)) as leader:
        leader.advance(60)
        await_that(lambda: calls.count)
        leader.advance(60)
        await_that(lambda: "it still runs" in caplog.text)
        calls.go.set()
        await_that(ended(engine, "ok", 60))
        leader.advance(60)
        await_that(ended(engine, "ok", 180))
    assert calls.count == 2
    run = engine.last()
    assert run is not None
    assert run.counts == {"skipped": 1, "ok": 2}


def test_it_does_not_pile_up_beyond_a_handover_either(
    engine: Engine, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    calls.go.clear()
    with Leader(engine, make(calls)) as first:
        first.advance(60)
        await_that(lambda: calls.count)
        first.jobs.stop(DEADLINE)
        with Leader(engine, make(calls)) as second:
            second.advance(60)
            await_that(lambda: "it still runs" in caplog.text)
            calls.go.set()
            assert first.jobs.wait(lambda: time.monotonic() + DEADLINE) == []
            second.advance(60)
            await_that(ended(engine, "ok", 180))
    assert calls.count == 2


def test_a_run_for_which_there_is_no_thread_has_failed_and_the_next_tick_runs(
    engine: Engine, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "Job job":
            raise RuntimeError("can't start new thread")
        start(thread)

    with Leader(engine, make(calls)) as leader:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            leader.advance(60)
            await_that(ended(engine, "failed", 60))
        leader.advance(60)
        await_that(ended(engine, "ok", 120))
    assert calls.count == 1


def test_a_run_leaves_no_connection_with_a_database(
    engine: Engine, tmp_path: Path, django_db_blocker: Any
) -> None:
    """One that may live for ever would stay open when the thread of the run has ended."""
    entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "db", "CONN_MAX_AGE": None}
    found = []

    def query() -> None:
        found.append(connections["of_jobs"])
        found[0].ensure_connection()

    with database("of_jobs", entry), django_db_blocker.unblock():
        with Leader(engine, Job(query, Schedule("* * * * *", "UTC"), name="job")) as leader:
            leader.advance(60)
            await_that(ended(engine, "ok", 60))
        assert found[0].connection is None


@pytest.mark.parametrize("error", [ValueError("no stock"), SystemExit(3)])
def test_a_job_that_fails_is_logged_and_counted(
    engine: Engine, calls: Calls, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    calls.error = error
    with Leader(engine, make(calls)) as leader:
        leader.advance(60)
        await_that(ended(engine, "failed", 60))
        calls.error = None
        leader.advance(60)
        await_that(ended(engine, "ok", 120))
    run = engine.last()
    assert run is not None
    assert run.counts == {"failed": 1, "ok": 1}
    assert "Job job failed." in caplog.text
    assert "Traceback" in caplog.text


def test_a_claim_whose_answer_is_lost_runs_once(
    engine: Engine, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_wspbus.fleet.jobs.RETRY", 0.01)
    with Leader(engine, make(calls)) as leader:
        engine.lose_answers = True
        leader.advance(60)
        await_that(ended(engine, "ok", 60))
    assert calls.count == 1


def test_a_claim_that_a_site_carries_out_again_after_its_restart_runs_once(
    engine: Engine, calls: Calls
) -> None:
    engine.claims_twice = True
    with Leader(engine, make(calls)) as leader:
        for tick in (60, 120):
            leader.advance(60)
            await_that(ended(engine, "ok", tick))
    assert calls.count == 2


def test_a_run_of_a_member_that_is_gone_is_lost_and_the_next_tick_runs(
    engine: Engine, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    engine.beat(Member("here", "host", 1, "", "STARTED"))
    engine.claim(Run("job", BEGIN, host="gone", pid=7, member="gone", began=BEGIN, outcome="running"))
    with Leader(engine, make(calls)) as leader:
        await_that(ended(engine, "lost", 0))
        leader.advance(60)
        await_that(ended(engine, "ok", 60))
    assert "in process 7 on gone is lost: its process has ended" in caplog.text
    run = engine.last()
    assert run is not None
    assert run.counts == {"lost": 1, "ok": 1}


def test_a_tick_that_is_due_before_it_is_known_that_a_member_is_gone_runs_late(
    engine: Engine, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_wspbus.fleet.jobs.RETRY", 0.01)
    engine.claim(Run("job", BEGIN, host="host", pid=7, member="killed", began=BEGIN, outcome="running"))
    engine.now = BEGIN + 50
    engine.beat(Member("killed", "host", 1, "", "STARTED"))
    engine.now = BEGIN + 60
    with Leader(engine, make(calls)) as leader:
        await_that(lambda: engine.looks > 2)  # for its sign of life, which is overdue
        run = engine.last()
        assert run is not None
        assert (run.outcome, run.tick) == ("running", BEGIN)
        leader.advance(6)
        await_that(ended(engine, "ok", 60))
    run = engine.last()
    assert run is not None
    assert run.counts == {"lost": 1, "ok": 1}


def test_a_claim_that_the_engine_carries_out_too_late_is_lost_and_the_next_tick_runs(
    engine: Engine, calls: Calls
) -> None:
    engine.claim(Run("job", BEGIN, member="here", pid=os.getpid(), began=BEGIN, outcome="running"))
    with Leader(engine, make(calls)) as leader:
        await_that(ended(engine, "lost", 0))
        leader.advance(60)
        await_that(ended(engine, "ok", 60))
    assert calls.count == 1


def test_a_run_in_another_container_with_the_same_host_name_and_pid_goes_on(
    engine: Engine, calls: Calls
) -> None:
    same = {"host": socket.gethostname(), "pid": os.getpid()}
    run = Run("job", BEGIN, **same, member="other", began=BEGIN, outcome="running")
    engine.claim(run)
    engine.now = BEGIN + 60  # the next tick is due
    engine.beat(Member("other", **same, version="", state="STARTED"))
    with Leader(engine, make(calls)):
        await_that(lambda: engine.looks > 1)  # for that tick, which is skipped
    assert engine.last() == run
    assert calls.count == 0


def test_one_that_leads_no_more_claims_nothing(engine: Engine, calls: Calls) -> None:
    with Leader(engine, make(calls)) as leader:
        leader.leads = False
        leader.advance(60)
    run = engine.last()
    assert run is not None
    assert run.tick < BEGIN + 60
    assert calls.count == 0


def test_the_wait_for_runs_names_those_that_are_not_over_in_time(engine: Engine, calls: Calls) -> None:
    calls.go.clear()
    with Leader(engine, make(calls)) as leader:
        leader.advance(60)
        await_that(lambda: calls.count)
        assert leader.jobs.wait(lambda: 0.0) == ["job"]
        calls.go.set()
        assert leader.jobs.wait(lambda: time.monotonic() + DEADLINE) == []
