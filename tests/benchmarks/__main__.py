"""Run the benchmarks: all of them, or those that are named."""

from __future__ import annotations

import argparse
import platform

from . import publishing, serving, subscribing

BENCHMARKS = {
    "publish": publishing.run,
    "subscribe": subscribing.run,
    "serve": serving.run_requests,
    "memory": serving.run_memory,
    "boot": serving.run_boot,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=None, help="more rounds, less noise")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}: choose of {', '.join(BENCHMARKS)}")
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in options.names or BENCHMARKS:
        keywords = {} if options.rounds is None else {"rounds": options.rounds}
        BENCHMARKS[name](**keywords)


main()
