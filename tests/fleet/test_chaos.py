"""Random faults for a minute; `chaos` is the script for more."""

from __future__ import annotations

import secrets

import pytest

from .chaos import run
from .failing import ENGINES

SECONDS = 60


@pytest.mark.extended
@pytest.mark.parametrize("engine", ENGINES)
def test_no_promise_is_broken_while_things_fail_at_random(engine: str) -> None:
    seed = secrets.randbelow(2**32)
    result = run(engine, SECONDS, seed)
    again = f"python -m tests.fleet.chaos --engine {engine} --seconds {SECONDS} --seed {seed}"
    assert not result.problems, "\n".join([again, *result.problems])
    assert result.figures["elections"]
