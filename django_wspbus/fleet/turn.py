"""The turn of a deploy: a lease of the engine, so that there is one deploy of the fleet at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from .base import Lease, Unavailable
from .commands import Commands
from .election import now
from .leadership import Timing

DEPLOY = "deploy"
"""The name of the lease."""


class Taken(Exception):
    """Another deploy is under way. The text names the process that runs it."""


class Turn:
    """Takes the lease, and renews it in a thread until it is released, or lost.

    ``timeout``: seconds for a call of the engine.
    """

    def __init__(self, commands: Commands, timing: Timing, timeout: float, holder: str) -> None:
        self._commands = commands
        self._timing = timing
        self._timeout = timeout
        self._holder = holder
        self._ended = threading.Event()
        self._deadline = 0.0
        self.lease = Lease("", 0, 0)

    @property
    def is_held(self) -> bool:
        return now() < self._deadline

    def take(self, wait: Callable[[str, float], None]) -> None:
        """Take the lease; `Taken` if another deploy is under way, `Unavailable` without an engine.

        A coordinator that was killed leaves its lease: then this waits for a whole lease.
        ``wait(reason, seconds)`` waits, and may raise an error to give up.
        """
        seen: Lease | None = None
        since = 0.0
        while True:
            lease = self._commands.call(lambda engine: engine.read(DEPLOY), self._timeout)
            if lease is not None and lease.holder:
                owner = "{}, process {}".format(*lease.holder.rsplit(":", 2))
                if seen is None:
                    seen, since = lease, now()
                if lease != seen:
                    raise Taken(f"Another deploy of the fleet is under way: {owner}, runs it.")
                if now() - since < self._timing.lease:
                    wait(f"waiting, as {owner}, runs a deploy, or was killed while it did", self._timing.look)
                    continue
            if self._take(lease):
                return

    def _take(self, seen: Lease | None) -> bool:
        asked = now()
        lease = self._commands.call(lambda engine: engine.take(DEPLOY, seen, self._holder), self._timeout)
        if lease is None:
            return False
        self._note(lease, asked)
        threading.Thread(target=self._renew, name="Fleet deploy", daemon=True).start()
        return True

    def _note(self, lease: Lease, asked: float) -> None:
        self.lease = lease
        self._deadline = asked + self._timing.lease - self._timing.margin

    def _renew(self) -> None:
        while not self._ended.wait(self._timing.renewal) and self.is_held:
            asked = now()
            with contextlib.suppress(Unavailable):
                lease = self._commands.call(lambda engine: engine.renew(DEPLOY, self.lease), self._timeout)
                if lease is None:
                    self._deadline = 0.0
                    return
                self._note(lease, asked)

    def release(self) -> None:
        """Release the lease for the next deploy, which waits for its end if the engine does not answer."""
        self._ended.set()
        self._deadline = 0.0
        release(self._commands, self.lease, self._timeout)


def release(commands: Commands, lease: Lease, timeout: float) -> None:
    with contextlib.suppress(Unavailable):
        commands.call(lambda engine: engine.release(DEPLOY, lease), timeout)
