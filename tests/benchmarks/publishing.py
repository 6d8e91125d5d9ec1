"""The cost of publishing, beside a plain loop that calls the same listeners."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import blinker
import magicbus.base
import magicbus.process
from cherrypy.process import wspbus as cherrypy_wspbus
from django.dispatch import Signal

from django_wspbus.wspbus import Bus, ChannelFailures

from .measure import interleave, ratios, table

CHANNEL = "label.event"
Listener = Callable[..., Any]


def listeners(count: int, failing: int = 0) -> list[Listener]:
    def make(fails: bool) -> Listener:
        def listener(sender: object = None, **kwargs: Any) -> object:
            if fails:
                raise ValueError("a listener that fails")
            return sender

        return listener

    return [make(index < failing) for index in range(count)]


def floor(called: list[Listener]) -> Callable[[], Any]:
    def publish(*arguments: object) -> list[Any]:
        output = []
        for listener in called:
            try:
                output.append(listener(*arguments))
            except Exception:
                output.append(None)
        return output

    return lambda: publish(1)


def on(bus: Any, called: list[Listener]) -> Callable[[], Any]:
    bus.listeners.setdefault(CHANNEL, set())
    for listener in called:
        bus.subscribe(CHANNEL, listener)
    return lambda: bus.publish(CHANNEL, 1)


def django_signal(called: list[Listener]) -> Callable[[], Any]:
    signal = Signal()
    for listener in called:
        signal.connect(listener, weak=False)
    return lambda: signal.send(1)


def blinker_signal(called: list[Listener]) -> Callable[[], Any]:
    signal = blinker.Signal()
    for listener in called:
        signal.connect(listener, weak=False)
    return lambda: signal.send(1)


def rivals(called: list[Listener]) -> dict[str, Callable[[], Any]]:
    return {
        "floor: a plain loop": floor(called),
        "django-wspbus": on(Bus(), called),
        "CherryPy's bus": on(cherrypy_wspbus.Bus(), called),
        "magicbus": on(magicbus.process.ProcessBus(), called),
        "Django's Signal": django_signal(called),
        "blinker": blinker_signal(called),
    }


def run(rounds: int = 40) -> None:
    columns = []
    cells: dict[str, list[str]] = {}
    for count in (0, 1, 10, 100):
        measured = ratios(
            interleave(rivals(listeners(count)), rounds=rounds, calls=4000 // (count + 1) + 50),
            to="floor: a plain loop",
        )
        columns.append(f"{count} listeners")
        for name, ratio in measured.items():
            cells.setdefault(name, []).append(f"{ratio:.2f}")
    table("Publishing, times the floor", columns, cells)
    run_failing(rounds)


def run_failing(rounds: int) -> None:
    called = listeners(10, failing=1)

    def caught(publish: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> None:
            try:
                publish()
            except (ChannelFailures, cherrypy_wspbus.ChannelFailures, magicbus.base.ChannelFailures):
                pass

        return call

    signal = Signal()
    for listener in called:
        signal.connect(listener, weak=False)
    logging.disable(logging.CRITICAL)
    named = {name: caught(call) for name, call in rivals(called).items() if name != "blinker"}
    named["Django's Signal"] = lambda: signal.send_robust(1)  # send() ends at the first failure
    measured = ratios(interleave(named, rounds=rounds, calls=100), to="floor: a plain loop")
    logging.disable(logging.NOTSET)
    rows = {name: [f"{ratio:.2f}"] for name, ratio in measured.items()}
    table("Publishing to ten listeners of which one fails, without logging, times the floor", ["ratio"], rows)
