"""Measure rivals in turn, so that a machine that slows down slows all of them."""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Callable, Mapping
from typing import Any


def interleave(
    rivals: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    calls: int,
    timer: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time ``calls`` calls of every rival in turn, ``rounds`` times; return seconds per call."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, call in rivals.items():
            times[name].append(timeit.timeit(call, number=calls, timer=timer) / calls)
    return times


def ratios(times: Mapping[str, list[float]], to: str) -> dict[str, float]:
    """Return each rival's ratio to the one named ``to``: the median over the rounds."""
    return {
        name: statistics.median(a / b for a, b in zip(values, times[to], strict=True))
        for name, values in times.items()
    }


def table(title: str, columns: list[str], rows: Mapping[str, list[str]]) -> None:
    """Print a table in Markdown, in the format of docs/benchmarks.md."""
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")
