"""Run all benchmarks, or those with the given names."""

from __future__ import annotations

import argparse
import platform
import signal
import sys
from collections.abc import Collection
from itertools import chain
from typing import Any

from . import (
    developing,
    growing,
    messaging,
    operating,
    publishing,
    recycling,
    reloading,
    rivals,
    serving,
    subscribing,
    watchers,
)

BENCHMARKS = {
    "publish": publishing.run,
    "subscribe": subscribing.run,
    "serve": serving.run_requests,
    "memory": serving.run_memory,
    "boot": serving.run_boot,
    "cost": operating.run_cost,
    "status": operating.run_status,
    "reload": reloading.run,
    "recycle": recycling.run,
    "develop": developing.run,
    "fleet": messaging.run,
    "growth": growing.run,
}
SERVERS: dict[str, Collection[str]] = {
    "reload": rivals.RIVALS,
    "recycle": recycling.RIVALS,
    "develop": watchers.WATCHERS,
}
SCENARIOS: dict[str, Collection[str]] = {
    "reload": list(reloading.SCENARIOS),
    "recycle": list(recycling.SCENARIOS),
    "develop": developing.CHOICES,
}
"""The choices of --scenario, by the name of the benchmark. Those of --only are in SERVERS."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=None, help="more rounds, less noise")
    part = parser.add_argument_group(
        "reload, recycle and develop", "Options to run a part; repeat them for several."
    )
    part.add_argument("--only", action="append", metavar="SERVER", choices=[*chain(*SERVERS.values())])
    part.add_argument("--scenario", action="append", choices=[*chain(*SCENARIOS.values())])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the servers are ended
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}: choose from {', '.join(BENCHMARKS)}")
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in options.names or BENCHMARKS:
        keywords = {"rounds": options.rounds, **chosen(name, options)}
        call: Any = BENCHMARKS[name]
        call(**{key: value for key, value in keywords.items() if value is not None})


def chosen(name: str, options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the options that apply to a benchmark, without the choices of other benchmarks."""
    choices = {"only": (options.only, SERVERS), "scenarios": (options.scenario, SCENARIOS)}
    return {
        key: [choice for choice in given if choice in of[name]]
        for key, (given, of) in choices.items()
        if given is not None and name in of
    }


main()
