"""``python -m django_wspbus``: serve a site (``runbus``), or operate one that is running."""

from __future__ import annotations

import os
import sys

RUNBUS = "runbus"


def main() -> None:
    if sys.argv[1:2] == [RUNBUS]:
        from .management.first_boot import serve

        serve()
    else:
        sys.exit(operate())


def operate() -> int:
    """Run an action without the project, whose code may be broken; return the exit status."""
    package = os.path.dirname(os.path.abspath(__file__))
    if not sys.flags.safe_path and sys.path[0] != os.path.dirname(package):
        # The working directory, in which a module may have the name of one that is imported here.
        del sys.path[0]
    try:
        from .command.run import main

        return main(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    main()
