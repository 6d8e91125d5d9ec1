"""The jitter of the limits of RECYCLE: workers that began together do not retire together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from django_wspbus.children.progress import Progress
from django_wspbus.children.retiring import memory
from django_wspbus.children.retiring.limits import Limits
from django_wspbus.children.retiring.requests import Requests
from django_wspbus.process.reports import RetirementPolicy
from tests.servers.load import await_that

PIDS = range(2**22 + 1, 2**22 + 101)
"""PIDs that no process of the system has."""


def limits_of(**policy: Any) -> Limits:
    """Return the limits of a child whose workers have served since 0."""
    progress = Progress()
    progress.policy = RetirementPolicy(**policy)
    progress.ready_since = dict.fromkeys(PIDS, 0.0)
    child: Any = SimpleNamespace(alias="shop", progress=progress, retiring={})
    return Limits(child, lambda message, level: None, lambda: None)


def count(limits: Limits, now: float, answered: int = 0) -> int:
    """Return how many workers have a reason to retire."""
    return len(limits.reasons({pid: Requests(answered=answered) for pid in PIDS}, now))


def test_the_number_of_requests_is_up_to_a_tenth_higher() -> None:
    limits = limits_of(requests=1000)
    assert count(limits, 1.0, answered=999) == 0
    assert 0 < count(limits, 1.0, answered=1050) < len(PIDS)
    assert count(limits, 1.0, answered=1100) == len(PIDS)


def test_gunicorns_jitter_replaces_that_of_the_number_of_requests() -> None:
    limits = limits_of(requests=1000, requests_jitter=1)
    assert 0 < count(limits, 1.0, answered=1000) < len(PIDS)
    assert count(limits, 1.0, answered=1001) == len(PIDS)


def test_the_age_is_up_to_a_tenth_higher() -> None:
    limits = limits_of(age=1000)
    assert count(limits, 999.0) == 0
    assert 0 < count(limits, 1050.0) < len(PIDS)
    assert count(limits, 1100.0) == len(PIDS)


@pytest.mark.parametrize(("size", "part"), [(1000, 0), (1050, 0.5), (1101, 1)])
def test_the_memory_is_up_to_a_tenth_higher(monkeypatch: pytest.MonkeyPatch, size: int, part: float) -> None:
    measured: list[int] = []

    def measure(pid: int) -> int:
        measured.append(pid)
        return size

    monkeypatch.setattr(memory, "most_private_memory", measure)
    monkeypatch.setattr(memory, "private_memory", lambda pid: size)
    limits = limits_of(memory=1000)
    count(limits, 1000.0)
    sizes = limits._memory
    await_that(lambda: sizes._measured | set(sizes.sizes) == set(PIDS))
    assert len(measured) == len(PIDS)

    found = count(limits, 1000.0)
    assert found == part * len(PIDS) if part in (0, 1) else 0 < found < len(PIDS)
