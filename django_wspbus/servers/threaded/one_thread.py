"""An executor of one thread: all requests of a server run there, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

from django.db import connections

Call = tuple[Callable[[], object], "Future[object]"]


class OneThread:
    """Calls functions in one thread, which is there until `end`.

    A `ThreadPoolExecutor` would keep the interpreter from its end for as long as a request hangs.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def call(self, function: Callable[[], object]) -> None:
        """Call a function when its turn comes, and return once it has returned; raise what it raises."""
        done: Future[object] = Future()
        self._calls.put((function, done))
        done.result()

    def end(self) -> None:
        """End the thread after the calls that wait for their turn; return at once."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, done = call
            try:
                done.set_result(function())
            except BaseException as error:  # SystemExit, too: it must not end the thread of all others
                done.set_exception(error)
        connections.close_all()  # CONN_MAX_AGE may keep them open after a request
