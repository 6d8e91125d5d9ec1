"""The transitions of a bus: what each does once it is its turn."""

from __future__ import annotations

import contextlib

from .core import Core
from .ending import AtExit, Exit
from .failures import ChannelFailures, mark_as_failed
from .states import State, check_move
from .transition_calls import RestartCalls, StartCalls, TransitionCalls
from .watchdog import Watchdog


class Transitions:
    """The operations that move a bus from state to state and call its listeners. `turns.Turns` runs them."""

    def __init__(self, bus: Core, watchdog: Watchdog, at_exit: AtExit) -> None:
        self._bus = bus
        self._watchdog = watchdog
        self._at_exit = at_exit

    def start(self, despite_failures: bool = False) -> None:
        bus, before = self._bus, self._bus.state
        if before in (State.STARTING, State.STARTED):
            bus.log(f"Bus is {before.name} already")
            return
        if before is State.EXITING:
            bus.execv = False  # of an exit that is over
        self._at_exit.register()
        bus.exit_under_way = Exit()
        bus.failed_start = None
        bus.starts_despite_failures = despite_failures
        try:
            self._enter(State.STARTING)
            calls = StartCalls(bus, despite_failures=despite_failures)
            calls.run()
            if not despite_failures:
                calls.raise_failures()
            bus.failed_start = calls.failures or None
        except BaseException as error:
            if bus.state is State.STARTING:  # else a forked child exits in a listener of its parent
                self._give_up_start(error)
            raise
        finally:
            bus.starts_despite_failures = False
        if not bus.exit_asked:
            self._enter(State.STARTED)
        elif not bus.turns.is_pending(self.exit):
            self.exit()  # asked for by another thread, which has not handed it over yet

    def _give_up_start(self, error: BaseException) -> None:
        ending = self._bus.exit_under_way
        ending.is_asked = True
        ending.has_failed = isinstance(error, ChannelFailures)
        try:
            self._bus.report_failed_start(error)
        finally:
            self.exit()
        if ending.has_failed:
            mark_as_failed(error)

    def stop(self) -> None:
        try:
            self._enter(State.STOPPING)
            self._call(TransitionCalls(self._bus, "stop"))
        finally:
            if self._bus.state is State.STOPPING:  # else a forked child exits in a listener of its parent
                self._enter(State.STOPPED)

    def graceful(self) -> None:
        self._bus.log("Bus graceful")
        self._call(TransitionCalls(self._bus, "graceful"))

    def restart(self) -> None:
        self._call(RestartCalls(self._bus))
        if not self._bus.exit_asked:
            self._bus.exit_under_way.is_asked = self._bus.execv = True
            self._bus.turns.hand_over(self.exit)

    def exit(self) -> None:
        bus, ending = self._bus, self._bus.exit_under_way
        if bus.state is State.EXITING:
            bus.log("Bus is EXITING already")
            return
        ending.begin(bus.stop_timeout, self._watchdog.expected)
        try:
            with self._watchdog.watch(ending.deadline):
                self._enter(State.STOPPING, ending)
                self._call_to_the_end("stop", ending)
                self._enter(State.STOPPED, ending)
                self._enter(State.EXITING, ending)
                self._call_to_the_end("exit", ending)
                # Not strictly a state, but it beats seeing "Waiting for child threads" and then nothing.
                with ending.put_off():
                    bus.log("Bus EXITED")
        finally:
            ending.thread = self._watchdog.expected = None
            self._at_exit.unregister()
        ending.raise_interruption()

    def _enter(self, state: State, ending: Exit | None = None) -> None:
        bus = self._bus
        if ending is None:  # an exit must reach its end even if a listener has changed the state
            check_move(bus.state, state)
        bus.state = state
        if state is State.EXITING and bus.waiting.home is not None:
            bus.waiting.home.is_leaving = True
        bus.waiting.wake()
        with contextlib.nullcontext() if ending is None else ending.put_off():
            bus.log(f"Bus {state.name}")

    def _call(self, calls: TransitionCalls) -> None:
        calls.run()
        calls.raise_failures()

    def _call_to_the_end(self, channel: str, ending: Exit) -> None:
        """Call all listeners of a channel for an exit, also after SystemExit and KeyboardInterrupt."""
        calls = TransitionCalls(self._bus, channel)
        while True:
            try:
                calls.run()
                break
            except BaseException as error:
                if isinstance(error, Exception) or self._bus.state is not calls.state:
                    raise  # another state: a forked child exits in a listener of its parent
                ending.interruptions.append(error)
        if calls.failures:
            ending.has_failed = True
            self._bus.report_uncaught(calls.failures)
