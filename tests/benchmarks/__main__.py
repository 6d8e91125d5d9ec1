"""Run the benchmarks: all of them, or those that are named."""

from __future__ import annotations

import argparse
import platform
import signal
import sys
from typing import Any

from . import publishing, reloading, rivals, serving, subscribing

BENCHMARKS = {
    "publish": publishing.run,
    "subscribe": subscribing.run,
    "serve": serving.run_requests,
    "memory": serving.run_memory,
    "boot": serving.run_boot,
    "reload": reloading.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=None, help="more rounds, less noise")
    of_reload = parser.add_argument_group("of reload", "may be repeated; all of them unless given")
    of_reload.add_argument("--only", action="append", metavar="RIVAL", choices=list(rivals.RIVALS))
    of_reload.add_argument("--scenario", action="append", choices=list(reloading.SCENARIOS))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and leave no server behind
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}: choose of {', '.join(BENCHMARKS)}")
    given = {"rounds": options.rounds}
    given_to_reload = given | {"only": options.only, "scenarios": options.scenario}
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in options.names or BENCHMARKS:
        keywords = given_to_reload if name == "reload" else given
        call: Any = BENCHMARKS[name]
        call(**{key: value for key, value in keywords.items() if value is not None})


main()
