"""A generator function as a pair of listeners."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import update_wrapper
from typing import Any

from .messenger import Messenger


class Lifespan:
    """A generator function of one ``yield``: what comes before runs at start, and the rest at stop."""

    def __init__(
        self,
        bus: Messenger,
        function: Callable[[], Iterator[Any]],
        priority: float | None = None,
        role: str | None = None,
    ) -> None:
        self.bus = bus
        self.priority: float = getattr(function, "priority", 50) if priority is None else priority
        self.role = role
        self._open = contextlib.contextmanager(function)
        self._context: contextlib.AbstractContextManager[Any] | None = None
        update_wrapper(self, function)

    def __call__(self) -> Iterator[Any]:
        return self.__wrapped__()  # type: ignore[attr-defined,no-any-return]

    def __repr__(self) -> str:
        return f"<Lifespan {self.__qualname__}>"  # type: ignore[attr-defined]

    def subscribe(self) -> None:
        self.bus.subscribe("start", self.start, self.priority, role=self.role)
        # Mirrored priority and order: what started last is the first to be undone.
        self.bus.add("stop", self.stop, (100 - self.priority, -next(self.bus.serials), self.role))

    def unsubscribe(self) -> None:
        self.bus.unsubscribe("start", self.start)
        self.bus.unsubscribe("stop", self.stop)

    def start(self) -> None:
        if self._context is None:
            context = self._open()
            context.__enter__()
            self._context = context

    def stop(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            context.__exit__(None, None, None)

    # In a forked child

    def forget(self) -> contextlib.AbstractContextManager[Any] | None:
        """Forget what the parent has started, and is to stop; return it, for `take_back`."""
        context, self._context = self._context, None
        if context is not None:
            # Without a reference the generator would run its ``finally``, at the latest when Python ends.
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))
        return context

    def take_back(self, context: contextlib.AbstractContextManager[Any] | None) -> None:
        """Stop, at the next stop, what the parent has started: this process takes its place."""
        self._context = context
