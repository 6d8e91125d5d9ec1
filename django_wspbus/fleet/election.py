"""The election of a leader, as one process takes part in it."""

from __future__ import annotations

import faulthandler
import logging
import threading
import time
from collections.abc import Callable

from .base import Lease, Unavailable
from .leadership import Candidacy, Look, Renew, Take, Term, Timing
from .requests import EngineOfSite

TIME_TO_RELEASE = 5.0
"""Seconds that the release of the lease may take."""


def now() -> float:
    """Return the seconds of a clock that is never set, and that runs while the machine sleeps, too."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()  # macOS


class Election:
    """Takes and renews the lease, in the thread "Leadership".

    ``elected()`` is called once this process leads, and ``lost()`` once it does so no more. The process is
    then no candidate before `note_stopped`. If that has not come by the end of the lease, the process ends.
    """

    def __init__(
        self,
        engine: EngineOfSite,
        timing: Timing,
        holder: str,
        *,
        elected: Callable[[], None],
        lost: Callable[[], None],
        log: Callable[[str, int], object],
    ) -> None:
        self._engine = engine
        self._holder = holder
        self._elected = elected
        self._lost = lost
        self._log = log
        self._candidacy = Candidacy(timing)
        self._changed = threading.Condition()
        self._since = 0.0
        self._is_stopping = self._is_retired = False
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="Leadership", daemon=True)

    @property
    def term(self) -> Term | None:
        """The term of this process, if it leads at this moment."""
        term = self._candidacy.term
        return term if term is not None and now() < term.deadline else None

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look at the lease now: it may have been released."""
        with self._changed:
            self._candidacy.wake()
            self._changed.notify()

    def note_stopped(self) -> None:
        """Note that this process does nothing any more that only the leader may do."""
        with self._changed:
            self._is_stopping = False
            faulthandler.cancel_dump_traceback_later()
            self._changed.notify()

    def retire(self) -> None:
        """Release the lease, and be no candidate any more; the work of a leader has to be over."""
        with self._changed:
            self._is_retired = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(TIME_TO_RELEASE)

    # The thread

    def _run(self) -> None:
        while self._await_turn():
            self._act()
        self._release()

    def _await_turn(self) -> bool:
        """Wait until the next action is due; return False once the process has retired."""
        with self._changed:
            while not self._is_retired:
                term = self._candidacy.term
                if term is not None and now() >= term.deadline:
                    self._end_term("the lease was not renewed in time")
                    continue
                left = self._candidacy.due - now()
                if left <= 0 and not self._is_stopping:
                    return True
                if term is not None:
                    left = min(left, term.deadline - now())
                self._changed.wait(None if self._is_stopping and term is None else max(left, 0.001))
        return False

    def _act(self) -> None:
        candidacy, asked = self._candidacy, now()
        action = candidacy.next(asked)
        try:
            match action:
                case Look():
                    lease = self._engine.read()
                case Take(seen):
                    lease = self._engine.take(seen, self._holder)
                case Renew(held):
                    assert candidacy.term is not None
                    lease = self._engine.renew(held, max(candidacy.term.deadline - asked, 0.01))
        except Exception as error:  # the thread must not end
            with self._changed:
                candidacy.note_failed(now())
            self._note_trouble(str(error) if isinstance(error, Unavailable) else repr(error))
            return
        self._note_trouble(None)
        with self._changed:
            self._note_answer(action, lease, asked)

    def _note_answer(self, action: Look | Take | Renew, lease: Lease | None, asked: float) -> None:
        candidacy = self._candidacy
        match action:
            case Look():
                candidacy.note_seen(lease, now())
            case Renew() if lease is None:
                self._end_term("another process has the lease, or it is gone")
            case _:
                candidacy.note_held(lease, asked, now())
                if candidacy.term is not None and candidacy.leads(now()):
                    self._begin_term(candidacy.term, is_new=isinstance(action, Take))
                elif candidacy.term is not None:
                    self._end_term("the answer of the engine came too late", is_new=isinstance(action, Take))

    def _begin_term(self, term: Term, *, is_new: bool) -> None:
        # Works without the GIL, and at once in a process that was stopped for longer than the lease.
        faulthandler.dump_traceback_later(max(term.end - now(), 0.01), exit=True, file=2)
        if is_new:
            self._since = now()
            since = f"since {self._since:.3f} of CLOCK_BOOTTIME"
            self._log(f"This process leads, with the token {term.lease.token}, {since}.", logging.INFO)
            self._elected()

    def _end_term(self, why: str, *, is_new: bool = False) -> None:
        term = self._candidacy.term
        self._candidacy.lose()
        self._candidacy.due = now()
        if term is None or is_new:
            return
        self._is_stopping = True
        self._log_term(term, why, logging.WARNING)
        self._lost()

    def _log_term(self, term: Term, why: str, level: int) -> None:
        span = f"from {self._since:.3f} until {min(now(), term.deadline):.3f}"
        self._log(f"This process led, with the token {term.lease.token}, {span}: {why}.", level)

    def _release(self) -> None:
        term = self._candidacy.term
        self._candidacy.lose()
        if term is None:
            return
        self._log_term(term, "it has stopped", logging.INFO)
        faulthandler.cancel_dump_traceback_later()
        try:
            self._engine.release(term.lease)
        except Unavailable as error:
            message = f"The lease of the leader could not be released, so it has to run out: {error}"
            self._log(message, logging.WARNING)

    def _note_trouble(self, trouble: str | None) -> None:
        """Log the first of several failures, and the end of them."""
        if (trouble is None) != (self._trouble is None):
            if trouble is None:
                self._log("The engine answers the leader process again.", logging.INFO)
            else:
                self._log(f"The engine does not answer the leader process: {trouble}", logging.WARNING)
        self._trouble = trouble
