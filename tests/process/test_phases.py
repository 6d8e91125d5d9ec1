"""The shares that the phases of an exit have of STOP_TIMEOUT."""

from __future__ import annotations

import time

import pytest

from django_wspbus import conf
from django_wspbus.process.phases import Phases, time_of_site


@pytest.mark.parametrize("delay", [0, 1, 5, 24.9])
@pytest.mark.parametrize("whole", [0.1, 1, 3, 5, 25, 300])
def test_the_phases_follow_each_other_and_requests_have_at_least_half(whole, delay):
    end = 100 + time_of_site(whole)
    phases = Phases.between(100, end, min(delay, whole))
    moments = [100, phases.serving, phases.requests, phases.workers, phases.children, phases.site]

    assert moments == sorted(moments)
    assert 100 + whole * 0.87 <= phases.site == end < 100 + whole
    assert phases.requests - phases.serving >= (end - phases.serving) / 2 - 1e-6
    assert phases.requests - phases.serving >= min(1, (end - 100) / 4) - 1e-6


def test_a_share_is_large_enough_for_a_busy_machine_where_there_is_time():
    phases = Phases.between(0, 5)
    assert min(phases.workers - phases.requests, phases.site - phases.children) == pytest.approx(0.5)


def test_those_in_a_hurry_have_no_more_than_the_others():
    phases = Phases.between(0, 20)  # long ago
    shortened = phases.shortened(1, 3)
    assert (shortened.requests, shortened.workers) == (phases.requests, phases.workers)
    assert shortened.children <= phases.children


def test_what_is_replaced_has_graceful_timeout_for_requests_and_the_same_shares_for_the_rest():
    settings = conf.Settings(servers={}, graceful_timeout=100, stop_timeout=25)
    before = time.monotonic()
    phases = Phases.of_replaced(settings)
    shares = Phases.between(0, time_of_site(25))

    assert before + 100 <= phases.requests <= time.monotonic() + 100
    assert phases.workers - phases.requests == pytest.approx(shares.workers - shares.requests)
    assert phases.children - phases.workers == pytest.approx(shares.children - shares.workers)
