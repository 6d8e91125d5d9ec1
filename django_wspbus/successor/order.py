"""The order that ``runbus`` receives in a child or a dry run."""

from __future__ import annotations

import gc
import json
import os
import signal
from dataclasses import dataclass
from typing import Any

from .invocation import KEPT, ORDER
from .values import read_values


@dataclass(frozen=True, slots=True)
class Order:
    """The task of this process, which is a child or a dry run."""

    values: dict[str, Any]
    """``{"child": {...}}``: see `children.spawn`; or ``{"dry_run": {...}}``: see `children.dry_run`."""
    descriptors: dict[str, int]
    sockets: int
    """The number of listening sockets, from descriptor 3 on."""

    @classmethod
    def take(cls) -> Order | None:
        """Take the order of this process; None if it has none and so becomes a site.

        `successor.values.UnknownVersion` if another version of this package has written the order.
        """
        addressed = os.environ.get(ORDER)
        pid, start, descriptors, threshold = json.loads(addressed) if addressed else (0, 0, {}, [])
        if pid != os.getpid():
            return None
        collect_garbage(threshold)
        values = read_values(start)
        del os.environ[ORDER]  # not before: the runner reports the error if the variable is still there
        return cls(values["order"], descriptors, len(values["sockets"]))


def collect_garbage(threshold: list[int]) -> None:
    """Enable garbage collection again, unless the project has changed its settings meanwhile."""
    if gc.get_threshold()[0] == 0:
        gc.set_threshold(*threshold)


def confirm_takeover() -> bool:
    """Confirm to the runner that this program has taken over the sockets and children of the one before.

    Return whether earlier attempts failed. If so, the children may have booted from older code.
    """
    failures, *copies = json.loads(os.environ.pop(KEPT, "[0]"))
    if copies:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for descriptor in copies:
        os.close(descriptor)
    return bool(failures)
