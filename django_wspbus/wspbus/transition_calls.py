"""The calls of listeners in the transitions of a bus."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import takewhile
from typing import Any

from .calls import Calls
from .channels import Listener
from .core import Core
from .failures import Refusal, cut_context


class TransitionCalls(Calls):
    """The calls of a channel's listeners, in one of which the process may fork and go on as the child.

    ``goes_on()`` returns whether another listener is to be called; left out, all are.
    """

    def __init__(self, bus: Core, channel: str, goes_on: Callable[[], bool] | None = None) -> None:
        listeners = bus.plan(channel)
        super().__init__(bus, channel, takewhile(lambda _: goes_on(), listeners) if goes_on else listeners)
        self.bus = bus
        self.state = bus.state
        self._pid = os.getpid()
        self._handled = sys.exception()

    def call(self, listener: Listener) -> Any:
        self.bus.called = (self.channel, listener)
        self.bus.replace_parent = None
        try:
            result = super().call(listener)
        finally:
            self.bus.called = None
        self._follow_fork()
        return result

    def note(self, listener: Listener, error: BaseException) -> None:
        cut_context(error, self._handled)
        if isinstance(error, Exception):
            self._follow_fork()
        super().note(listener, error)

    def _follow_fork(self) -> None:
        """In a forked child whose listener has ended: take the place of the parent, as a daemon does."""
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            replace_parent, self.bus.replace_parent = self.bus.replace_parent, None
            if replace_parent is not None:
                replace_parent()
            self.bus.state = self.state


class StartCalls(TransitionCalls):
    """The calls of a start, which a `Refusal`, or an exit that is asked for meanwhile, ends.

    With ``despite_failures`` all of them run, even if some raise SystemExit.
    """

    def __init__(self, bus: Core, *, despite_failures: bool) -> None:
        super().__init__(bus, "start", self._goes_on)
        self._despite_failures = despite_failures
        self._is_refused = False

    def _goes_on(self) -> bool:
        if self._is_refused:
            return False
        self.bus.waiting.run_deferred()
        return not self.bus.exit_asked

    def note(self, listener: Listener, error: BaseException) -> None:
        if self._despite_failures and isinstance(error, SystemExit) and os.getpid() == self._pid:
            error = RuntimeError(f"{listener!r} has tried to end the process: {error!r}.")
        super().note(listener, error)
        self._is_refused = isinstance(error, Refusal) and not self._despite_failures


class RestartCalls(TransitionCalls):
    """The calls before a restart, which the first failure, or an exit that is asked for meanwhile, ends."""

    def __init__(self, bus: Core) -> None:
        super().__init__(bus, "before_restart", self._goes_on)

    def _goes_on(self) -> bool:
        return not self.failures and not self.bus.exit_asked
