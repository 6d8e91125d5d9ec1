"""In a successor: what ``runbus`` is to do in it."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from typing import Any

from .invocation import KEPT, ORDER
from .values import read_values


@dataclass(frozen=True, slots=True)
class Order:
    """The task of this process, which is no site: a child, or a dry run."""

    values: dict[str, Any]
    """``{"child": {...}}``: see `children.spawn`; or ``{"dry_run": {...}}``: see `children.dry_run`."""
    descriptors: dict[str, int]
    sockets: int
    """How many listening sockets there are, from descriptor 3 on."""

    @classmethod
    def take(cls) -> Order | None:
        """Take the order of this process; None if it has none, as it is to be a site.

        `successor.values.UnknownVersion` if another version of this package has given it.
        """
        addressed = os.environ.get(ORDER)
        pid, start, descriptors = json.loads(addressed) if addressed else (0, 0, {})
        if pid != os.getpid():
            return None
        values = read_values(start)
        del os.environ[ORDER]  # only now: the runner reports why it was not taken
        return cls(values["order"], descriptors, len(values["sockets"]))


def keep_no_longer() -> bool:
    """Tell the runner that this program has taken over the sockets and children of the one before.

    Return whether other attempts failed before: then the children may have booted from older code.
    """
    failures, *copies = json.loads(os.environ.pop(KEPT, "[0]"))
    if copies:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for descriptor in copies:
        os.close(descriptor)
    return bool(failures)
