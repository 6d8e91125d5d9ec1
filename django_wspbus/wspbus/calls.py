"""The calls of a channel's listeners one by one, where each failure is noted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from .channels import Listener
from .failures import ChannelFailures, mark_as_failed


class Reporter(Protocol):
    """The part of a `messenger.Messenger` that its calls use."""

    def plan(self, channel: str) -> tuple[Listener, ...]: ...

    def report_failure(self, channel: str, listener: Listener, error: Exception) -> None: ...


class Calls:
    """The calls of some listeners of a channel; what they return is appended to ``output``.

    After an error that passes through, such as SystemExit, `run` may be called again for the listeners that
    are left.
    """

    def __init__(
        self,
        messenger: Reporter,
        channel: str,
        listeners: Iterable[Listener],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        output: list[Any] | None = None,
    ) -> None:
        self.messenger = messenger
        self.channel = channel
        self.failures = ChannelFailures()
        self.failures.channel = channel
        self.output = [] if output is None else output
        self._listeners = iter(listeners)
        self._args = args
        self._kwargs = kwargs or {}

    def run(self, error: BaseException | None = None) -> None:
        """Call the listeners that are left; ``error``: the failure of the first, which was called already."""
        call, append = self.call, self.output.append
        try:
            for listener in self._listeners:
                if error is None:
                    try:
                        append(call(listener))
                    except BaseException as failure:
                        error = failure
                if error is not None:  # outside the handler, so that it is not the context of later errors
                    self.note(listener, error)
                    error = None
        finally:
            del error  # whose traceback refers to this frame

    def call(self, listener: Listener) -> Any:
        return listener(*self._args, **self._kwargs)

    def note(self, listener: Listener, error: BaseException) -> None:
        """Report the failure of a listener and collect it; raise what passes through."""
        if not isinstance(error, Exception):
            if self.failures:
                mark_as_failed(error)
            raise error
        self.failures.append(error)
        # The failure of a log listener cannot be logged.
        if self.channel != "log" and self.messenger.plan("log"):
            self.messenger.report_failure(self.channel, listener, error)

    def raise_failures(self) -> None:
        """Raise `ChannelFailures` if a listener has failed."""
        if self.failures:
            raise self.failures
