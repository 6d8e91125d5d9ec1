"""The end of a process of gunicorn that cannot serve."""

from __future__ import annotations

import socket
import sys
from typing import NoReturn

from gunicorn.arbiter import Arbiter

from ...children.orders import SERVE, read_orders
from ...process.asking import RemoteSite
from ...process.reports import Failed
from ...project.tracebacks import explain

LONGEST_REASON = 60_000
"""Characters of a reason that are sent to the site, its last ones."""

FAILED = 1
"""The status of a worker that does not boot, while others serve: gunicorn forks another."""


def give_up(
    site: RemoteSite, reason: str = "", status: int = 1, pair: socket.socket | None = None
) -> NoReturn:
    """Report to the site why this process cannot serve, and exit with the status that stops gunicorn.

    If other workers of the child at the other end of ``pair`` serve already, gunicorn goes on, and forks
    another. The default ``reason`` is the traceback of the exception that is being handled.
    """
    error = sys.exception()
    reason = reason or (f"its boot failed: {explain(error)}" if error else "its boot failed.")
    site.report(Failed(reason[-LONGEST_REASON:], status))
    raise SystemExit(status_of_failure(pair)) from None


def status_of_failure(pair: socket.socket | None) -> int:
    """Return the status that stops gunicorn, unless other workers serve already."""
    others_serve = pair is not None and SERVE in read_orders(pair)
    return FAILED if others_serve else Arbiter.WORKER_BOOT_ERROR
