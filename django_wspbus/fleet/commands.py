"""Calls of the engine, which any thread may make."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from .base import Engine, Unavailable

logger = logging.getLogger("django_wspbus")

T = TypeVar("T")

Done = Callable[[Any, Unavailable | None], None]


class Commands(ABC):
    """The connection of this process with the engine, for commands."""

    def call(self, run: Callable[[Engine], T], timeout: float | None = None) -> T:
        """Return ``run(engine)``; `Unavailable` if the engine does not answer within ``timeout`` seconds.

        Not for the thread of the switchboard, which must not wait, and not for a function of `submit`.
        """
        future: Future[T] = Future()

        def done(result: T, error: Unavailable | None) -> None:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.submit(run, done)
        try:
            return future.result(timeout)
        except TimeoutError:
            raise Unavailable(f"The engine of the fleet took longer than {timeout:g} s.") from None

    @abstractmethod
    def submit(self, run: Callable[[Engine], T], done: Callable[[T, Unavailable | None], None]) -> None:
        """Call ``run(engine)`` soon, and then ``done(result, None)``, or ``done(None, error)``.

        It returns at once; both functions run in the thread of the commands, so they must not wait for long.
        """


class LocalCommands(Commands):
    """Calls of an engine that any thread may use at any time: they run in the calling thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def submit(self, run: Callable[[Engine], T], done: Callable[[T, Unavailable | None], None]) -> None:
        Command(run, done).run_on(self.engine)


@dataclass(frozen=True, slots=True)
class Command:
    """A function of the engine, and the function that gets its result, or the error."""

    run: Callable[[Engine], Any]
    done: Done

    def run_on(self, engine: Engine) -> Unavailable | None:
        """Run it; return the error if the engine does not answer."""
        result, error = None, None
        try:
            result = self.run(engine)
        except Unavailable as unavailable:
            error = unavailable
        except Exception as failure:  # the caller must not wait for ever
            logger.exception("A command for the engine of the fleet failed.")
            self.finish(None, Unavailable(f"The command failed: {failure!r}"))
            return None
        self.finish(result, error)
        return error

    def finish(self, result: Any, error: Unavailable | None) -> None:
        try:
            self.done(result, error)
        except Exception:  # the commands of others follow
            logger.exception("The result of a command for the engine of the fleet was lost.")
