"""The cost of subscribing and unsubscribing on a channel with 10,000 listeners."""

from __future__ import annotations

import statistics
from typing import Any

from cherrypy.process import wspbus as cherrypy_wspbus

from django_wspbus.wspbus import Bus

from .measure import interleave, ratios, table

CHANNEL = "label.event"


def crowded(bus: Any) -> Any:
    for index in range(10_000):
        bus.subscribe(CHANNEL, lambda index=index: index)

    def one_more() -> None:
        pass

    def pair() -> None:
        bus.subscribe(CHANNEL, one_more)
        bus.unsubscribe(CHANNEL, one_more)

    return pair


def run(rounds: int = 40) -> None:
    times = interleave(
        {"django-wspbus": crowded(Bus()), "CherryPy's bus": crowded(cherrypy_wspbus.Bus())},
        rounds=rounds,
        calls=2000,
    )
    measured = ratios(times, to="CherryPy's bus")
    rows = {
        name: [f"{statistics.median(values) * 1e6:.2f}", f"{measured[name]:.2f}"]
        for name, values in times.items()
    }
    table(
        "Subscribing and unsubscribing once, at 10,000 listeners", ["microseconds", "times CherryPy's"], rows
    )
