"""The state of a process in a word, by what its record and its child say."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from django_wspbus.children.progress import Progress
from django_wspbus.process.record import Record, Stage
from django_wspbus.process.reports import RetirementPolicy
from django_wspbus.site.observing.processes import ObservedProcess
from django_wspbus.site.observing.states import described, state_of, why_it_retires
from django_wspbus.successor.state import RetireeState

PID = 2**22 + 1
"""A PID that no process of the system has."""


@pytest.fixture
def record() -> Iterator[Record]:
    record = Record.make(4)
    yield record
    record.close()


@pytest.fixture
def child() -> Any:
    progress = Progress()
    progress.policy = RetirementPolicy(request_timeout=10.0)
    return SimpleNamespace(alias="shop", progress=progress, deadline=None, retiring={}, is_serving=True)


@pytest.mark.parametrize(
    ("stage", "state"),
    [
        (Stage.STANDBY, "standby"),
        (Stage.BOOTING, "booting"),
        (Stage.READY, "ready"),
        (Stage.SERVING, "serving"),
        (Stage.PROVEN, "serving"),
    ],
)
def test_a_worker_has_the_state_of_its_stage(child: Any, record: Record, stage: Stage, state: str) -> None:
    record.stage = stage
    assert state_of(ObservedProcess(PID, "worker", child, record), time.monotonic()) == state


def test_what_matters_more_than_the_stage_comes_first(child: Any, record: Record) -> None:
    record.stage = Stage.PROVEN
    worker, now = ObservedProcess(PID, "worker", child, record), time.monotonic()
    record.slots.writers[0].begin(threading.get_ident(), "GET /hang/", now)
    assert state_of(worker, now + 9.9) == "serving"
    assert state_of(worker, now + 10.1) == "stuck"
    child.retiring[PID] = RetireeState(PID, "timeout", now)
    assert state_of(worker, now + 10.1) == "retiring"
    assert why_it_retires(worker) == "a request is stuck (REQUEST_TIMEOUT)"
    child.progress.stopped.add(PID)
    assert state_of(worker, now) == "draining"
    child.progress.stopped.clear()
    child.deadline = now
    assert state_of(worker, now) == "draining"


@pytest.mark.parametrize(("is_serving", "state"), [(True, "serving"), (False, "booting")])
def test_a_process_without_a_record_has_the_state_of_its_child(
    child: Any, is_serving: bool, state: str
) -> None:
    child.is_serving = is_serving
    for role in ("master", "worker"):
        assert state_of(ObservedProcess(PID, role, child), 0.0) == state
    assert state_of(ObservedProcess(PID, "site"), 0.0) == "serving"
    found = described(ObservedProcess(PID, "worker", child), None)
    assert (found["age"], found["busy"], found["memory"], found["reason"]) == (None, None, None, None)


def test_a_worker_that_has_just_ended_drains_and_has_no_figures(child: Any, record: Record) -> None:
    record.close()
    worker = ObservedProcess(PID, "worker", child, record)
    assert state_of(worker, 0.0) == "draining"
    found = described(worker, 1000)
    assert (found["state"], found["busy"], found["memory"]) == ("draining", None, 1000)
    assert (worker.in_flight(), worker.unrecorded) == ([], 0)
