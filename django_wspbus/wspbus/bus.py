"""The life of a process: it starts, reloads, restarts, stops and exits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from .core import Core
from .ending import AtExit, execute_anew, join_other_threads
from .failures import EX_SOFTWARE, mark_as_failed
from .forking import follow_forks
from .lifespan import Lifespan
from .messenger import ROLES, check_role
from .requests import Done, Requests
from .states import State
from .transitions import Transitions
from .waiting import Home
from .watchdog import Watchdog


class Bus(Core):
    """Process state machine and messenger.

    ``stop_timeout``: the seconds that an exit may take, from the first ``stop`` listener to the end of the
    last thread. After that the bus names the listener or thread that hangs on stderr, and ends the process
    with status 70. If C code hangs and holds the GIL, the process ends half a second later, with the stacks
    of all threads on stderr and status 1.

    Methods may be called from any thread, from listeners, and from signal handlers.
    """

    states = State

    def __init__(self, stop_timeout: float | None = None) -> None:
        super().__init__(stop_timeout)
        self.watchdog = Watchdog(self)
        self.at_exit = AtExit(self.exit, lambda: self.state)
        self.transitions = Transitions(self, self.watchdog, self.at_exit)
        self.requests = Requests(self, self.transitions)
        follow_forks(self, self.at_exit)

    def begin(self) -> None:
        super().begin()
        self.watchdog.begin()
        self.requests.begin()

    # The life of a process

    def start(self, *, blocks: bool = False, despite_failures: bool = False) -> None:
        """Run the ``start`` listeners: STOPPED, STARTING, STARTED.

        If one fails, the bus stops and exits, and start() raises `ChannelFailures`. After a call
        of exit() meanwhile the bus exits between two listeners, and start() returns.

        ``blocks``: this thread is going to call `block`; it already runs the operations that other threads
        ask for. ``despite_failures``: all listeners run, even if some fail, because an exit would lose
        something; `failed_start` holds the failures.
        """
        if blocks:
            self.waiting.home = Home()
        try:
            self.turns.take(partial(self.transitions.start, despite_failures))
        except BaseException:
            if blocks:
                self.waiting.home = None
            raise

    def stop(self) -> None:
        """Run the ``stop`` listeners: STOPPING, STOPPED."""
        self.turns.take(self.transitions.stop)

    def graceful(self) -> None:
        """Run the ``graceful`` listeners, which replace what serves.

        While a thread is in `block`, that thread runs them, and other threads that call this wait for it.
        Calls that come before they begin share one run. If some fail, each call raises `ChannelFailures`.
        """
        self.requests.ask("graceful")

    def restart(self) -> None:
        """Exit; the thread in `block` then replaces the process, command line and all.

        While the bus is STARTED, a listener of ``before_restart`` may refuse that by an exception. Then the
        bus stays STARTED, and restart() raises `ChannelFailures`, as `graceful` does.
        """
        if self.state is State.STARTED and not self.exit_asked and self.plan("before_restart"):
            self.requests.ask("restart")
            return
        if not self.exit_asked:
            self.execv = True
        self.requests.ask_exit()

    def exit(self) -> None:
        """Stop, then run the ``exit`` listeners: STOPPING, STOPPED, EXITING.

        All of them run, even if some fail; the bus logs the failures, and `block` raises SystemExit(70).
        If another thread is in a transition, that thread exits the bus at its end. Only the main thread
        waits for that.
        """
        if self.exit_asked:
            self.execv = False  # an exit after a restart is no restart
        self.requests.ask_exit()

    def request(self, what: str, done: Done) -> None:
        """Ask the thread in `block` for a "graceful" or a "restart" (``what``), without waiting for it.

        That thread calls ``done(error)``, with None if all went well. It does not call it if the bus exits
        first.
        """
        self.requests.add(what, done)

    def block(self, interval: float = 0.1, *, replace: Callable[[], object] | None = None) -> None:
        """Wait for EXITING, KeyboardInterrupt or SystemExit, then for the threads that are not daemons.

        The main thread calls this. It raises SystemExit(70) if a listener failed during the exit. After a
        `restart` it calls ``replace()``, which replaces the process and does not return. By default the
        process executes its own command line again.
        """
        home = self.waiting.home = Home()
        try:
            self._wait_for_exit(home, interval)
            self.turns.wait()  # another thread may still be running exit listeners
            with self.watchdog.watch(self.deadline):
                join_other_threads(self.log)
            self.waiting.run_deferred()  # an exit that came meanwhile wins over a restart
        finally:
            self.waiting.home = None
        if self.execv:
            self.publish("execv")
            (replace or partial(execute_anew, self.log))()
        if self.failed:
            raise SystemExit(EX_SOFTWARE)

    def _wait_for_exit(self, home: Home, interval: float) -> None:
        try:
            # An exit ends the wait, even if another thread has started the bus again since.
            self.waiting.wait(
                lambda: self.state is State.EXITING or home.is_leaving, interval=interval, channel="main"
            )
        except (KeyboardInterrupt, OSError):
            self.log("Keyboard Interrupt: shutting down bus")
            self.exit()
        except SystemExit as error:
            self.log("SystemExit raised: shutting down bus")
            self.exit()
            if self.failed:
                mark_as_failed(error)
            raise

    def start_with_callback(
        self, func: Callable[..., Any], args: Any = None, kwargs: Mapping[str, Any] | None = None
    ) -> threading.Thread:
        """Start the bus; call ``func`` in a new thread once it is STARTED. Return that thread.

        If the bus exits instead, the thread ends without a call.
        """
        tried = threading.Event()

        def call() -> None:
            self.waiting.wait(
                lambda: self.state is State.STARTED or (tried.is_set() and self.state is State.EXITING)
            )
            if self.state is State.STARTED:
                func(*(args or ()), **(kwargs or {}))

        thread = threading.Thread(target=call)
        thread.name = "Bus Callback " + thread.name
        thread.start()
        try:
            self.start()
        finally:
            tried.set()
            self.wake()
        return thread

    @contextlib.contextmanager
    def running(self, *roles: str) -> Generator[Bus]:
        """Start and stop the bus around a block, playing the given roles meanwhile.

        Inside a bus that runs and plays them, it does nothing. If the bus is asked to exit while it
        starts, the block does not run: RuntimeError.
        """
        for role in roles:
            check_role(role, ROLES)
        self.turns.wait()  # a start under way in another thread
        runs = self.state in (State.STARTING, State.STARTED)
        if runs:
            missing = [role for role in roles if not self.plays(role, "start")]
            if missing:
                raise RuntimeError(f"The bus is running already, without the role {missing[0]!r}.")
            yield self
            return
        before = self.roles
        if before is not None:
            self.roles = before.union(roles)
        try:
            self.start()
            exited = self.state is State.EXITING
            if exited:
                raise RuntimeError("The bus exited while it was starting, because it was asked to.")
            try:
                yield self
            finally:
                if self.state is not State.EXITING:
                    self.stop()
        finally:
            self.at_exit.unregister()
            self.roles = before

    def lifespan(
        self,
        function: Callable[[], Iterator[Any]] | float | None = None,
        priority: float | None = None,
        role: str | None = None,
    ) -> Any:
        """Decorate a generator function with one ``yield``: it runs to there at start, and on at stop.

        It runs on only if it has reached the ``yield``. Lifespans stop in the reverse order of their starts:
        one that starts with priority p stops with 100 - p. Return a `Lifespan`.
        """
        if not callable(function):
            return partial(self.lifespan, priority=function if priority is None else priority, role=role)
        lifespan = Lifespan(self, function, priority, role)
        lifespan.subscribe()
        return lifespan

    # Waiting

    def wait(self, state: State | Iterable[State], interval: float = 0.1, channel: str | None = None) -> None:
        """Wait for one of the given states, publishing to ``channel`` every ``interval`` seconds.

        It returns as soon as the bus has the state, and does not wake before if the channel has no listener.
        """
        wanted = {state} if isinstance(state, State) else set(state)
        self.waiting.wait(lambda: self.state in wanted, interval=interval, channel=channel)

    def wait_for(
        self, condition: Callable[[], Any], timeout: float | None = None, *, despite_exit: bool = False
    ) -> bool:
        """Wait, in a listener, until ``condition()`` is true; return whether it is.

        It returns False after ``timeout`` seconds, and, unless ``despite_exit`` is true, as soon as exit()
        is called during a start. A thread that makes the condition true calls `wake`. The main thread
        runs deferred functions while it waits.
        """

        def is_over() -> Any:
            return condition() or (self.exit_asked and self.state is State.STARTING and not despite_exit)

        self.waiting.wait(is_over, timeout=timeout)
        return bool(condition())

    def defer(self, function: Callable[[], Any]) -> None:
        """Call a function in the thread that is in `block`; safe in a signal handler.

        During a start in the main thread it is called between two listeners.
        """
        self.waiting.defer(function)
