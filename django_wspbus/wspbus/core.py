"""The part of a bus that its other parts share: its messages, its state, its turns, its waiting threads."""

from __future__ import annotations

from collections.abc import Callable

from .channels import Listener
from .ending import Exit
from .failures import ChannelFailures, Refusal, write_to_stderr
from .messenger import ERROR, INFO, Messenger
from .states import State
from .turns import Turns
from .waiting import Waiting


class Core(Messenger):
    """The state of a process, and what its bus is doing.

    ``stop_timeout``: see `bus.Bus`.
    """

    def __init__(self, stop_timeout: float | None = None) -> None:
        super().__init__()
        self.stop_timeout = stop_timeout
        self.turns = Turns(self.report_uncaught)
        self.waiting = Waiting(self)
        self.replace_parent: Callable[[], None] | None = None
        """In a forked child, until it calls a listener: takes the place of the parent."""
        Core.begin(self)

    def begin(self) -> None:
        """Take the state of a fresh process, also in a forked child; the listeners stay."""
        self.state = State.STOPPED
        self.execv = False
        """True after a call of `restart`."""
        self.exit_under_way = Exit()
        self.failed_start: ChannelFailures | None = None
        """The failures of a start that was completed all the same."""
        self.starts_despite_failures = False
        """True during a start whose failures do not end it."""
        self.called: tuple[str, Listener] | None = None
        """The channel and the listener that a transition is calling."""
        self.turns.begin()
        self.waiting.begin()

    def wake(self) -> None:
        """Make each thread in `Bus.wait_for` look at its condition again."""
        self.waiting.wake()

    def _note_change(self, channel: str | None) -> None:
        self._plans = {}
        if self.waiting.sleepers:
            self.waiting.note_change(channel)

    # The exit under way

    @property
    def exit_asked(self) -> bool:
        """True after a call of `exit` or `restart` since the bus was last started."""
        return self.exit_under_way.is_asked

    @property
    def deadline(self) -> float | None:
        """The deadline of the exit under way, in seconds of `time.monotonic`; None without one."""
        return self.exit_under_way.deadline

    @property
    def failed(self) -> bool:
        """True if a listener failed during the exit, or during the start that led to it."""
        return self.exit_under_way.has_failed

    # Reports, which a subclass may override

    def report_failed_start(self, error: BaseException) -> None:
        """Report the error of a failed start, before the ``stop`` listeners run: they may hang."""
        self.exit_under_way.start_error = error
        message = "Shutting down due to error in start listener:"
        if not isinstance(error, ChannelFailures):
            self.log(f"{message} {error!r}", ERROR)
        elif self.plan("log"):  # which has the tracebacks
            is_expected = all(isinstance(each, Refusal) for each in error.get_instances())
            self.log(f"{message} {error}", INFO if is_expected else ERROR)
        else:
            write_to_stderr(message, *error.__notes__)

    def report_hanging(self, text: str) -> None:
        """Report the name and the stack of what hangs, just before the process ends."""
        write_to_stderr(text)
