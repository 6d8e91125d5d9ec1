"""The reasons for which workers retire, by what a test says of their requests."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from django_wspbus.children.progress import Progress
from django_wspbus.children.retiring.limits import HEALTHY_LIFETIME, JITTER, Limits
from django_wspbus.children.retiring.memory import FIRST_WAIT, YOUNG
from django_wspbus.children.retiring.plan import Reason
from django_wspbus.children.retiring.requests import Requests
from django_wspbus.process.reports import RetirementPolicy
from django_wspbus.process.slots import InFlight

BORN = 1000.0
"""The moment from which on the workers of these tests serve."""


def stuck(count: int = 1, threads: int = 2) -> Requests:
    requests = [InFlight(1, slot, slot, 0.0, 0.0, 0.0, "GET /hang/") for slot in range(count)]
    return Requests(in_flight=requests, stuck=requests, threads=threads)


class Workers:
    """The workers of a child, and their limits."""

    def __init__(self, **policy: Any) -> None:
        self.log: list[str] = []
        self.progress = Progress()
        self.progress.policy = RetirementPolicy(**policy)
        child: Any = SimpleNamespace(alias="shop", progress=self.progress, retiring={})
        self.limits = Limits(child, lambda message, level: self.log.append(message), lambda: None)

    def reasons(self, requests: dict[int, Requests], now: float) -> dict[int, Reason]:
        for pid in requests:
            self.progress.ready_since.setdefault(pid, now)
        return self.limits.reasons(requests, now)


def test_a_worker_that_has_served_or_answered_for_long_enough_retires() -> None:
    workers = Workers(age=100, requests=1000, requests_jitter=1)
    assert workers.reasons({1: Requests(), 2: Requests()}, BORN) == {}
    assert workers.reasons({1: Requests(answered=999), 2: Requests()}, BORN + 99.9) == {}
    assert workers.reasons({1: Requests(answered=1001), 2: Requests()}, BORN) == {1: Reason.REQUESTS}
    assert workers.reasons({2: Requests()}, BORN + 100 * (1 + JITTER)) == {2: Reason.AGE}
    assert workers.limits.why(2, Reason.AGE, Requests()) == "it has served for 100 seconds"


def test_a_worker_that_does_not_serve_yet_has_no_reason() -> None:
    workers = Workers(age=1, request_timeout=1)
    assert workers.limits.reasons({1: stuck()}, math.inf) == {}


def test_a_worker_with_too_much_memory_retires_and_a_new_one_only_later() -> None:
    workers = Workers(memory=50_000_000)
    memory: Any = workers.limits._memory
    memory.look = lambda *args: None  # the test measures
    workers.reasons({1: Requests()}, BORN)
    memory.sizes[1] = 61_250_000
    assert workers.reasons({1: Requests()}, BORN + YOUNG + 1) == {1: Reason.MEMORY}
    assert workers.limits.why(1, Reason.MEMORY, Requests()) == "it holds 61.2 MB of private memory"
    assert workers.log == []

    memory.sizes = {2: 61_250_000}
    assert workers.reasons({2: Requests()}, BORN + 100) == {}
    (line,) = workers.log
    assert line.startswith(
        "Worker 2 of the server 'shop' holds 61.2 MB of private memory 0 seconds after its"
    )
    assert 'RECYCLE["MEMORY"] is 50.0 MB' in line
    assert f"no worker is replaced for its memory for {FIRST_WAIT:g} seconds" in line


def test_successors_that_get_stuck_at_once_are_replaced_at_growing_intervals() -> None:
    workers = Workers(request_timeout=1.0)
    now, pid, waits = BORN, 1, []
    workers.reasons({pid: stuck(0)}, now)
    now += 100
    assert workers.reasons({pid: stuck(2)}, now) == {pid: Reason.TIMEOUT}
    assert workers.limits.why(pid, Reason.TIMEOUT, stuck()) == "a request has made no progress for 1 s"
    for _ in range(4):
        pid += 1
        workers.reasons({pid: stuck(0)}, now + 0.1)
        now += 1.5
        begun = now
        while workers.reasons({pid: stuck(2)}, now) == {}:
            now += 0.05
        waits.append(now - begun)
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]
    assert workers.limits.is_in_vain
    (line,) = workers.log
    assert line.startswith("The workers of the server 'shop' get stuck as soon as they serve. ")

    workers.reasons({pid + 1: stuck(1)}, now)
    assert workers.limits.is_in_vain
    workers.reasons({pid + 1: stuck(1)}, now + 2 + HEALTHY_LIFETIME)
    assert workers.limits.is_in_vain
    workers.reasons({pid + 1: stuck(1)}, now + 2 + HEALTHY_LIFETIME + 0.1)  # it has a free thread
    assert not workers.limits.is_in_vain


def test_workers_that_get_stuck_together_count_once_and_the_site_says_so_again_after_a_good_one() -> None:
    workers = Workers(request_timeout=1.0)
    now = BORN
    for start in (10, 20):
        now += 5
        both = {start: stuck(0), start + 1: stuck(0)}
        workers.reasons(both, now)
        now += 100  # they have worked
        assert workers.reasons({pid: stuck(2) for pid in both}, now) == dict.fromkeys(both, Reason.TIMEOUT)
        assert workers.limits._backoff.failures == 1
        workers.reasons({start + 2: stuck(0)}, now + 0.1)
        now += 1.5
        workers.reasons({start + 2: stuck(2)}, now)
        workers.reasons({start + 3: stuck(0)}, now + 0.1)
        now += 1.5
        workers.reasons({start + 3: stuck(2)}, now)
    assert len(workers.log) == 2
