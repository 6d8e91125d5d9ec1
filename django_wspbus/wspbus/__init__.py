"""The Web Site Process Bus: a state machine and a messenger for one process.

The state is that of the process; its methods move it, and publish to the listeners of the
channel of that name. Any other channel may be used freely::

                        O
                        |
                        V
       STOPPING --> STOPPED --> EXITING -> X
          A   A         |
          |    \\___     |
          |        \\    |
          |         V   V
        STARTED <-- STARTING

The idea and the interface are CherryPy's (``cherrypy.process.wspbus``): plugins written for that
bus work on this one. This file needs the standard library only.
"""

from __future__ import annotations

import atexit
import contextlib
import enum
import faulthandler
import itertools
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback as tracebacks
import warnings
import weakref
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial, update_wrapper
from operator import itemgetter
from typing import Any, ClassVar, NoReturn, TypeVar, overload

__all__ = ["Bus", "ChannelFailures", "Lifespan", "Refusal", "State", "states"]

EX_SOFTWARE = 70
"""The status of a process in which a listener failed (``sysexits.h``)."""

Listener = Callable[..., Any]
L = TypeVar("L", bound=Listener)

BUILT_IN_CHANNELS = ("start", "stop", "exit", "graceful", "log", "main")
ROLES = ("site", "worker")
# What happens to a process concerns those who serve in it, unless they say otherwise.
WORKER_CHANNELS = frozenset({"start", "stop", "exit", "graceful", "main"})

MOST_PLANS = 1000
LONGEST_POLL = 2**31 - 1

WITHOUT_GIL = 0.5
"""Seconds after its deadline at which an exit ends that holds the GIL, so that no Python code can end it."""


# Modules may change directory later; a restart needs the one in which the command line was valid.
def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return None


STARTUP_DIRECTORY = _working_directory()


class State(enum.Enum):
    STOPPED = enum.auto()
    STARTING = enum.auto()
    STARTED = enum.auto()
    STOPPING = enum.auto()
    EXITING = enum.auto()

    def __repr__(self) -> str:
        return f"states.{self.name}"


states = State


class Refusal(Exception):
    """What a listener raises for an expected failure: its message says it all, so no traceback is logged.

    On ``start`` it says that the process must not start: no listener after it runs. ``status`` is
    the exit status that a command should leave with.
    """

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class ChannelFailures(Exception):
    """The exceptions that the listeners of one channel raised; false while there are none.

    Printed as an uncaught exception, it shows the traceback of every one of them.
    """

    delimiter = "\n"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._exceptions: list[BaseException] = []

    def handle_exception(self) -> None:
        """Append the exception that is being handled."""
        error = sys.exception()
        if error is not None:
            self._exceptions.append(error)

    def get_instances(self) -> list[BaseException]:
        """Return the exceptions, in the order in which they were raised."""
        return self._exceptions[:]

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # read by whatever prints a traceback (PEP 678)
        return ["".join(tracebacks.format_exception(error)).rstrip() for error in self._exceptions]

    def __str__(self) -> str:
        return self.delimiter.join(map(repr, self._exceptions))

    __repr__ = __str__

    def __bool__(self) -> bool:
        return bool(self._exceptions)


class _Channels(dict[str, set[Listener]]):
    """A plain dict of sets, but for telling when an entry is replaced."""

    def __init__(self, entries: Mapping[str, set[Listener]], changed: Callable[[], None]) -> None:
        super().__init__(entries)
        self.changed = changed


def _tell_changes(name: str) -> None:
    change = getattr(dict, name)

    def method(self: _Channels, *args: Any, **kwargs: Any) -> Any:
        try:
            return change(self, *args, **kwargs)
        finally:
            self.changed()

    setattr(_Channels, name, method)


for _name in ("__setitem__", "__delitem__", "__ior__", "setdefault", "update", "pop", "popitem", "clear"):
    _tell_changes(_name)


class Lifespan:
    """A generator function as a pair of listeners: what comes before its ``yield`` starts, the rest stops."""

    def __init__(
        self, bus: Bus, function: Callable[[], Iterator[Any]], priority: float, role: str | None
    ) -> None:
        self.bus = bus
        self.priority = priority
        self.role = role
        self._open = contextlib.contextmanager(function)
        self._context: contextlib.AbstractContextManager[Any] | None = None
        update_wrapper(self, function)

    def __call__(self) -> Iterator[Any]:
        return self.__wrapped__()  # type: ignore[attr-defined,no-any-return]

    def __repr__(self) -> str:
        return f"<Lifespan {self.__qualname__}>"  # type: ignore[attr-defined]

    def subscribe(self) -> None:
        # Mirrored priority and order: what started last is the first to be undone.
        self.bus.subscribe("start", self.start, self.priority, role=self.role)
        self.bus._add("stop", self.stop, 100 - self.priority, -next(self.bus._serials), self.role)

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

    def forget(self) -> None:
        """In a forked child: what the parent started is the parent's to undo."""
        if self._context is not None:
            # Letting the generator go, be it as the interpreter ends, would run its ``finally``.
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._context))
            self._context = None


class _Sleeper:
    """A thread that sleeps until another, or a signal handler on top of anything, wakes it."""

    def __init__(self) -> None:
        self._lock = allocate_lock()  # a Condition is Python code, which a handler must not enter twice
        self._lock.acquire()

    def listen(self) -> None:
        """Whatever comes from now on is to wake it."""

    def sleep(self, seconds: float | None) -> bool:
        """Return whether it was woken."""
        return self._lock.acquire(timeout=-1 if seconds is None else seconds)

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # woken already
            self._lock.release()

    def close(self) -> None:
        """To be called when it has slept enough."""


class _MainSleeper(_Sleeper):
    """The main thread: it sleeps on a socket, to which the interpreter writes when a signal comes.

    On a lock it would sleep through one that comes after the interpreter has looked for signals and
    before the lock sleeps.
    """

    # It stays open, as a thread may wake it late; a forked child gets one of its own. A pair of sockets and
    # no pipe, as another process may peek into it.
    _pipe: ClassVar[tuple[int, int] | None] = None
    _previous: ClassVar[int] = -1  # where the interpreter wrote to before

    def __init__(self) -> None:
        self._took_over = False

    @classmethod
    def _open(cls) -> tuple[int, int]:
        if cls._pipe is None:
            reader, writer = socket.socketpair()
            cls._pipe = reader.detach(), writer.detach()
            for end in cls._pipe:
                os.set_blocking(end, False)
        return cls._pipe

    @classmethod
    def take_over(cls) -> bool:
        """Make the interpreter write to this socket; return whether it did not before."""
        writer = cls._open()[1]
        current = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        if current != writer:
            cls._previous = current
        return current != writer

    @classmethod
    def give_back(cls) -> None:
        _set_wakeup_fd(cls._open()[1], cls._previous)

    def listen(self) -> None:
        self._took_over = self.take_over() or self._took_over

    def sleep(self, seconds: float | None) -> bool:
        reader = self._open()[0]
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        if not poll.poll(None if seconds is None else min(math.ceil(seconds * 1000), LONGEST_POLL)):
            return False
        self._drain(reader)
        return True

    def _drain(self, reader: int) -> None:
        with contextlib.suppress(BlockingIOError):  # a wait in a signal handler has read it
            _write(self._previous, os.read(reader, 4096).strip(b"\0"))  # the numbers of the signals

    def wake(self) -> None:
        if self._pipe is not None:
            _write(self._pipe[1], b"\0")

    def close(self) -> None:
        if self._took_over:
            self.give_back()
            self._drain(self._open()[0])
        else:
            self.wake()  # the wait that this one is nested in: what it read was for both

    @classmethod
    def forget(cls) -> None:
        """In a forked child: leave the pipe to the parent."""
        if cls._pipe is not None:
            _set_wakeup_fd(cls._pipe[1], -1)
            for end in cls._pipe:
                os.close(end)
            cls._pipe, cls._previous = None, -1


class Bus:
    """Process state machine and messenger.

    All listeners of a channel run, in priority order (0 first, 50 if neither ``priority`` nor
    ``callback.priority`` says otherwise; equal ones as they subscribed), even if some fail: each
    failure is logged, then all are raised together. ``SystemExit`` and ``KeyboardInterrupt`` pass through.

    ``stop_timeout``: seconds that an exit may take in all, from the first ``stop`` listener to the
    end of the last thread; then what hangs is named on stderr, and the process ends with status 70.
    C code that hangs and holds the GIL ends it half a second later, with the stacks of all threads
    on stderr and status 1.

    Methods may be called from any thread, from listeners, and from signal handlers.
    """

    states = State

    def __init__(self, stop_timeout: float | None = None) -> None:
        self.stop_timeout = stop_timeout
        self.logs_failed_start = True
        """Whether failures of ``start`` are logged; the caller of `start` may report them instead."""
        self.report_failed_start: Callable[[BaseException], Any] | None = None
        """Called with the error of a failed start before the ``stop`` listeners run: they may hang."""
        self.report_hanging: Callable[[str], Any] = _print
        """Called with the name and the stack of what hangs, just before the process ends."""
        self.home: int | None = None
        """The identity of the thread that is going to be in `block`, where that is known before."""
        self.outlives_failed_start = False
        """Whether a start goes on to its end whatever fails, as there is something to lose by an exit."""
        self.listeners: dict[str, set[Listener]] = _Channels(
            {channel: set() for channel in BUILT_IN_CHANNELS}, self._forget_plans
        )
        self._order: dict[tuple[str, Listener], tuple[float, int, str | None]] = {}
        self._serials = itertools.count()
        self._plans: dict[str, tuple[Listener, ...]] = {}
        self._roles: frozenset[str] | None = None
        self._relinquished: tuple[frozenset[str] | None, list[tuple[Lifespan, Any]]] | None = None
        self._reset()
        _instances.append(weakref.ref(self, _instances.remove))

    def _reset(self) -> None:
        """Give the bus the state of a fresh process; it keeps its listeners."""
        self.state = State.STOPPED
        self.execv = False
        self._transition = threading.RLock()  # held by the thread that moves the state
        self._busy = False
        self._pending: deque[Callable[[], None]] = deque()
        self._deferred: deque[Callable[[], Any]] = deque()
        self._waiters: dict[_Sleeper, str | None] = {}
        self._blocking: int | None = None
        self._block_is_over = False
        self._exit_asked = False
        self._exiting: int | None = None
        self._handed_over = False
        self._deadline: float | None = None
        self._exit_began: float | None = None
        self._expected: float | None = None  # when a signal asked for an exit
        self._watcher: _Sleeper | None = None
        self._start_error: BaseException | None = None
        self._running: tuple[str, Listener] | None = None
        self._failed = False
        self._failed_start: ChannelFailures | None = None
        self._guarded = False
        self._carried_on = False
        self._asked: dict[str, deque[Callable[[Exception | None], Any]]] = {
            "graceful": deque(),
            "restart": deque(),
        }

    def _forget_parent(self) -> None:
        """In a forked child: inherit the listeners and nothing else."""
        self._reset()
        self._plans = {}
        owners = [
            getattr(callback, "__self__", None) for channel, callback in self._order if channel == "stop"
        ]
        lifespans = [owner for owner in owners if isinstance(owner, Lifespan)]
        if self._relinquished is None:  # else this is the second fork of a daemon
            self._relinquished = self._roles, [(lifespan, lifespan._context) for lifespan in lifespans]
        if self._roles is not None:
            self._roles = frozenset()
        for lifespan in lifespans:
            lifespan.forget()

    # Roles

    @property
    def roles(self) -> frozenset[str] | None:
        """The roles this process plays, of "site" and "worker"; None: whoever listens is called."""
        return self._roles

    @roles.setter
    def roles(self, roles: Iterable[str] | None) -> None:
        if roles is not None:
            roles = frozenset(roles)
            for role in roles:
                _check_role(role, ROLES)
        self._roles = roles
        self._forget_plans()

    def _plays(self, role: str | None, channel: str) -> bool:
        if role is None:
            role = "worker" if channel in WORKER_CHANNELS else "any"
        return self._roles is None or role == "any" or role in self._roles

    # Listeners

    @overload
    def subscribe(
        self, channel: str, callback: None = None, priority: float | None = None, *, role: str | None = None
    ) -> Callable[[L], L]: ...

    @overload
    def subscribe(
        self, channel: str, callback: L, priority: float | None = None, *, role: str | None = None
    ) -> L: ...

    def subscribe(
        self,
        channel: str,
        callback: Any = None,
        priority: float | None = None,
        *,
        role: str | None = None,
    ) -> Any:
        """Add a listener to a channel; without ``callback``, return a decorator that does.

        ``role``: "site", "worker" or "any", the processes in which it is called. Left out it means
        "worker" on start, stop, exit, graceful and main, and "any" on every other channel.
        An unknown role is a ValueError.
        """
        if callback is None:
            return partial(self.subscribe, channel, priority=priority, role=role)
        if role is not None:
            _check_role(role, (*ROLES, "any"))
        if priority is None:
            priority = getattr(callback, "priority", 50)
        self._add(channel, callback, priority, next(self._serials), role)
        return callback

    def _add(self, channel: str, callback: Listener, priority: float, serial: int, role: str | None) -> None:
        # Each step is atomic, and the plans go last: no lock for a signal handler to wait on.
        self._order[channel, callback] = (priority, serial, role)
        listeners = self.listeners.get(channel)
        if listeners is None:
            listeners = dict.setdefault(self.listeners, channel, set())
        listeners.add(callback)
        self._plans = {}
        if self._waiters:
            for waiter, polled in list(self._waiters.items()):
                if polled == channel:
                    waiter.wake()

    def unsubscribe(self, channel: str, callback: Listener) -> None:
        """Remove a listener from a channel, if it is there."""
        listeners = self.listeners.get(channel)
        if listeners is not None:
            listeners.discard(callback)
            self._order.pop((channel, callback), None)
            self._plans = {}

    def lifespan(
        self,
        function: Callable[[], Iterator[Any]] | float | None = None,
        priority: float | None = None,
        role: str | None = None,
    ) -> Any:
        """Decorate a generator function of one ``yield``: run it up to there at start, and on at stop.

        It goes on only where it had come that far. Lifespans stop in the reverse of the order in
        which they start: one of start priority p stops at 100 - p. Returns a `Lifespan`.
        """
        if not callable(function):
            return partial(self.lifespan, priority=function if priority is None else priority, role=role)
        if priority is None:
            priority = getattr(function, "priority", 50)
        lifespan = Lifespan(self, function, priority, role)
        lifespan.subscribe()
        return lifespan

    def of_role(self, role: str) -> list[tuple[str, Listener]]:
        """Return the channel and the callback of each listener that was subscribed for a role."""
        return [
            (channel, callback)
            for (channel, callback), (_, _, subscribed_for) in list(self._order.items())
            if subscribed_for == role and callback in self.listeners.get(channel, ())
        ]

    def _forget_plans(self) -> None:
        self._plans = {}
        self._wake()  # whoever waits may have a channel to poll now, or none

    def plan(self, channel: str) -> tuple[Listener, ...]:
        """Return the listeners that a publication on a channel calls in this process, in order."""
        # Whoever changes the listeners puts a new dict in place of this one: a plan that they
        # overtake is stored where nobody looks.
        plans = self._plans
        plan = plans.get(channel)
        if plan is not None:
            return plan
        listeners = self.listeners.get(channel)
        if listeners is None:
            if len(plans) < MOST_PLANS:  # the names of channels have no end
                plans[channel] = ()
            return ()
        chosen = []
        for callback in tuple(listeners):
            priority, serial, role = self._order.get((channel, callback)) or (
                getattr(callback, "priority", 50),
                0,
                None,
            )
            if self._plays(role, channel):
                chosen.append((priority, serial, callback))
        chosen.sort(key=itemgetter(0, 1))
        plan = plans[channel] = tuple(callback for _, _, callback in chosen)
        return plan

    def publish(self, channel: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Call the listeners of a channel; return what they returned, in priority order.

        Raises `ChannelFailures`, after all have run, if some failed.
        """
        # The hot path of a site: one cached tuple, one try for the whole loop.
        try:
            callbacks = self._plans[channel]
        except KeyError:
            callbacks = self.plan(channel)
        if not callbacks:
            return []
        output: list[Any] = []
        if kwargs:  # apart, as f(**kwargs) costs a dict for each listener, even if empty
            return self._call_rest(channel, callbacks, output, args, kwargs)
        try:
            for callback in callbacks:
                output.append(callback(*args))
            return output
        except BaseException as failure:
            error = failure
        # Out of the handler, lest the failures that follow carry this one as their context.
        try:
            return self._call_rest(channel, callbacks[len(output) :], output, args, kwargs, error)
        finally:
            del error  # whose traceback refers to this frame

    def _call_rest(
        self,
        channel: str,
        callbacks: tuple[Listener, ...],
        output: list[Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        error: BaseException | None = None,
    ) -> list[Any]:
        """Call the listeners one by one; the first, if an ``error`` is given, has failed with it."""
        failures = ChannelFailures()
        if error is not None:
            self._note_failure(failures, channel, callbacks[0], error)
            callbacks = callbacks[1:]
        for callback in callbacks:
            try:
                output.append(callback(*args, **kwargs))
            except BaseException as failure:
                self._note_failure(failures, channel, callback, failure)
        if failures:
            raise failures
        return output

    def _note_failure(
        self, failures: ChannelFailures, channel: str, callback: Listener, error: BaseException
    ) -> None:
        """Log an error and add it to ``failures``; raise it if it is to pass through."""
        if channel == "start" and self.outlives_failed_start and isinstance(error, SystemExit):
            error = RuntimeError(f"{callback!r} has tried to end the process: {error!r}.")
        if not isinstance(error, Exception):
            _spoil(error, bool(failures))
            raise error
        failures._exceptions.append(error)
        if channel == "start" and not self.logs_failed_start:
            return
        # What fails to log cannot be logged.
        if channel != "log" and self.plan("log"):
            # The refusal of a start is for whoever started the bus, and catches it.
            self._log_error(
                f"Error in {channel!r} listener {callback!r}", error, 20 if channel == "start" else 40
            )

    def _log_error(self, message: str, error: BaseException, level_of_refusal: int = 40) -> None:
        if isinstance(error, Refusal):
            self.log(str(error), level=level_of_refusal)
        else:
            self.log(message + "\n" + "".join(tracebacks.format_exception(error)), level=40)

    def _drop(self, message: str, failures: ChannelFailures) -> None:
        """End failures that nobody is to catch: each was logged, unless there is nobody to log to."""
        if not self.plan("log"):
            _print(message, *failures.__notes__)

    def log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """Publish a message and its level, as in `logging`, on ``log``.

        With ``traceback``, that of the exception being handled is appended. A log listener that
        fails is told on stderr, and stops nobody.
        """
        if not self.plan("log"):
            return
        if traceback:
            msg += "\n" + tracebacks.format_exc()
        try:
            self.publish("log", msg, level)
        except ChannelFailures as failures:
            _print(f"{msg}\nA log listener failed:", *failures.__notes__)

    # Transitions

    def start(self) -> None:
        """Run the ``start`` listeners: STOPPED, STARTING, STARTED.

        If one fails, the bus stops and exits, and `ChannelFailures` is raised. An exit asked for
        meanwhile takes effect between two listeners: then start() returns, and the bus has exited.
        """
        self._perform(self._start)

    def stop(self) -> None:
        """Run the ``stop`` listeners: STOPPING, STOPPED."""
        self._perform(self._stop)

    def graceful(self) -> None:
        """Run the ``graceful`` listeners: renew what serves.

        While a thread is in `block` it is that thread that runs them, and another one that asks
        waits; those who ask before they have begun share one run. If some fail, `ChannelFailures`
        is raised for each who asked.
        """
        self._ask("graceful")

    def exit(self) -> None:
        """Stop, then run the ``exit`` listeners: STOPPING, STOPPED, EXITING.

        All of them run, whatever fails; failures are logged, and make `block` raise SystemExit(70).
        During a transition in another thread that one goes on to the exit, and only the main thread
        waits for it.
        """
        if self._exit_asked:
            self.execv = False  # told to restart and then to exit: exit
        self._ask_exit()

    def restart(self) -> None:
        """Exit, and have the thread in `block` execute the process anew, command line and all.

        Listeners of ``before_restart`` may refuse that while the bus is STARTED: at the first that
        fails nothing else happens, and `ChannelFailures` is raised, as by `graceful`.
        """
        if self.state is State.STARTED and not self._exit_asked and self.plan("before_restart"):
            self._ask("restart")
            return
        if not self._exit_asked:
            self.execv = True
        self._ask_exit()

    def request(self, what: str, done: Callable[[Exception | None], Any]) -> None:
        """Ask the thread in `block` for what `graceful` or `restart` ("what") do, without waiting for it.

        ``done(error)`` is called in that thread, ``error`` being None if all went well; never, if an
        exit comes first.
        """
        self._asked[what].append(done)
        self.defer(partial(self._perform, partial(self._grant, what)))

    def _ask(self, what: str) -> None:
        home = self._blocking or self.home
        if home is None or self._block_is_over:
            self._perform(self._graceful if what == "graceful" else self._try_restart)
            return
        outcome: list[Exception | None] = []
        if home == threading.get_ident():
            self._asked[what].append(outcome.append)
            self._perform(partial(self._grant, what))  # which may be at the end of what is under way
        else:
            self.request(what, outcome.append)
            # Not to the end of an exit: one of its listeners may be joining this very thread.
            self._wait(lambda: outcome or self._exit_asked)
            if not outcome and not self.execv:
                raise Refusal("The bus was told to exit.")
        if outcome and outcome[0] is not None:
            raise outcome[0]

    def _grant(self, what: str) -> None:
        """Do, once for all of them, what has been asked for up to now."""
        if self._exit_asked:
            return
        asked = []
        while self._asked[what]:
            asked.append(self._asked[what].popleft())
        if not asked:  # an earlier run was for them as well
            return
        error: Exception | None = None
        try:
            if what == "graceful":
                self._graceful()
            else:
                self._try_restart()
        except Exception as failure:
            error = failure
            if isinstance(failure, ChannelFailures):
                self._drop(f"Errors in {what!r} listeners:", failure)
        finally:
            for done in asked:
                done(error)
            self._wake()

    def _try_restart(self) -> None:
        failures = ChannelFailures()
        listeners = iter(self.plan("before_restart"))
        self._call_each("before_restart", listeners, failures, lambda: bool(failures) or self._exit_asked)
        if failures:
            raise failures
        if not self._exit_asked:
            self._exit_asked = self.execv = True
            self._pending.append(self._exit)

    def _ask_exit(self) -> None:
        self._exit_asked = True
        self._wake()
        here = threading.current_thread()
        if here is threading.main_thread():
            self._perform(self._exit)
        elif self._exiting not in (None, here.ident):
            self.log("Bus is exiting already")
        else:
            # Not to be waited for: a listener of what is under way may be joining this very thread.
            self._handed_over = True
            self._take_over()

    def _take_over(self) -> None:
        """Run the exit that a thread has handed over, unless another is in a transition: then it will."""
        while self._handed_over:
            transition = self._transition  # a listener may fork: the child gets another
            if not transition.acquire(blocking=False):
                return
            try:
                if self._handed_over:
                    self._handed_over = False
                    self._perform(self._exit)
            finally:
                transition.release()

    def _perform(self, operation: Callable[[], None]) -> None:
        """Run a transition after the one that another thread is in, or at the end of our own."""
        try:
            with self._transition:
                if self._busy:  # we are in a listener, or in a signal handler that interrupted one
                    self._pending.append(operation)
                    return
                try:
                    self._run(operation)
                finally:
                    # Looked at once more after each: a handler may have appended up to the last moment.
                    while self._pending:
                        self._run_pending(self._pending.popleft())
                    if self._carried_on:
                        self._carried_on = False
                        self._transition.release()
        finally:
            self._take_over()

    def _run_pending(self, operation: Callable[[], None]) -> None:
        try:
            self._run(operation)
        except ChannelFailures as failures:
            if operation != self._start:  # which reports for itself
                self._drop(f"Errors in {operation.__name__.lstrip('_')!r} listeners:", failures)

    def _run(self, operation: Callable[[], None]) -> None:
        self._busy = True
        try:
            operation()
        finally:
            self._busy = False

    def _start(self) -> None:
        before = self.state
        if before in (State.STARTING, State.STARTED):
            self.log(f"Bus is {before.name} already")
            return
        if before is State.EXITING:
            self.execv = False  # of an exit that is over
        self._guard()
        self._exit_asked = self._failed = False
        self._deadline = self._exit_began = self._failed_start = self._start_error = None
        try:
            self._enter(State.STARTING)
            try:
                self._call_all("start", until=self._exit_is_asked)
            except ChannelFailures as failures:
                if not self.outlives_failed_start:
                    raise
                self._failed_start = failures
        except BaseException as error:
            if self.state is not State.STARTING:
                raise  # a forked child leaves: the start was its parent's
            self._failed = isinstance(error, ChannelFailures)
            self._exit_asked = True
            self._start_error = error
            try:
                self._report_failed_start(error)
            finally:
                self._exit()
            _spoil(error, self._failed)
            raise
        if not self._exit_asked:
            self._enter(State.STARTED)
        elif self._exit not in self._pending:
            self._exit()  # asked for by another thread

    def _report_failed_start(self, error: BaseException) -> None:
        message = "Shutting down due to error in start listener:"
        if self.report_failed_start is not None:
            self.report_failed_start(error)
        elif not isinstance(error, ChannelFailures):
            self.log(f"{message} {error!r}", level=40)
        elif not self.logs_failed_start:
            pass
        elif self.plan("log"):
            expected = all(isinstance(each, Refusal) for each in error.get_instances())
            self.log(f"{message} {error}", level=20 if expected else 40)
        else:
            _print(message, *error.__notes__)

    def _stop(self) -> None:
        try:
            self._enter(State.STOPPING)
            self._call_all("stop")
        finally:
            if self.state is State.STOPPING:  # and not a forked child that leaves
                self._enter(State.STOPPED)

    def _graceful(self) -> None:
        self.log("Bus graceful")
        self._call_all("graceful")

    def _exit(self) -> None:
        if self.state is State.EXITING:
            self.log("Bus is EXITING already")
            return
        self._exit_asked = True
        self._exiting = threading.get_ident()
        self._handed_over = False
        self._exit_began = time.monotonic()
        if self.stop_timeout is not None:
            self._deadline = (self._expected or self._exit_began) + self.stop_timeout
        interruptions: list[BaseException] = []
        try:
            with self._watchdog():
                self._enter(State.STOPPING, interruptions)
                self._call_to_the_end("stop", interruptions)
                self._enter(State.STOPPED, interruptions)
                self._enter(State.EXITING, interruptions)
                self._call_to_the_end("exit", interruptions)
                # Not strictly a state, but it beats seeing "Waiting for child threads" and then nothing.
                with _put_off(interruptions):
                    self.log("Bus EXITED")
        finally:
            self._exiting = self._expected = None
            self._unguard()
        for interruption in interruptions:
            _spoil(interruption, self._failed)
            raise interruption

    def _call_to_the_end(self, channel: str, interruptions: list[BaseException]) -> None:
        """Publish for an exit: all listeners run, whatever they raise."""
        failures = ChannelFailures()
        state, callbacks = self.state, iter(self.plan(channel))
        while True:
            try:
                self._call_each(channel, callbacks, failures)
                break
            except BaseException as error:
                if isinstance(error, Exception) or self.state is not state:
                    raise  # as for the state: a forked child leaves, and the exit is its parent's
                interruptions.append(error)
        if failures:
            self._failed = True
            self._drop(f"Errors in {channel!r} listeners:", failures)

    def _call_all(self, channel: str, until: Callable[[], bool] | None = None) -> None:
        """Publish for a transition, which ``until`` may end early."""
        failures = ChannelFailures()
        self._call_each(channel, iter(self.plan(channel)), failures, until)
        if failures:
            raise failures

    def _call_each(
        self,
        channel: str,
        callbacks: Iterator[Listener],
        failures: ChannelFailures,
        until: Callable[[], bool] | None = None,
    ) -> None:
        pid, state, handled = os.getpid(), self.state, sys.exception()
        for callback in callbacks:
            if until is not None and until():
                return
            self._running = (channel, callback)
            self._relinquished = None
            try:
                callback()
            except BaseException as error:
                _cut_context(error, handled)
                self._note_failure(failures, channel, callback, error)
                if channel == "start" and isinstance(error, Refusal) and not self.outlives_failed_start:
                    return
            finally:
                self._running = None
            if os.getpid() != pid:
                pid = os.getpid()
                self._carry_on(state)

    def _carry_on(self, state: State) -> None:
        """In a forked child whose listener returned: take the place of the parent, as a daemon does."""
        self._roles, opened = self._relinquished or (self._roles, [])
        for lifespan, context in opened:
            lifespan._context = context
        self.state = state
        self._plans = {}
        self._busy = True
        self._transition.acquire()
        self._carried_on = True
        self._guard()

    def _enter(self, state: State, interruptions: list[BaseException] | None = None) -> None:
        self.state = state
        if state is State.EXITING:
            self._block_is_over = True
        self._wake()
        with _put_off(interruptions):
            self.log(f"Bus {state.name}")

    @property
    def exit_asked(self) -> bool:
        """Whether the bus has been told to exit since it was last started."""
        return self._exit_asked

    @property
    def deadline(self) -> float | None:
        """When the exit under way has to be over, as of `time.monotonic`; None: there is no such time."""
        return self._deadline

    @property
    def exit_began(self) -> float | None:
        """When the exit under way has begun, as of `time.monotonic`."""
        return self._exit_began

    @property
    def failed_start(self) -> ChannelFailures | None:
        """What failed during a start that was completed all the same."""
        return self._failed_start

    @property
    def failed(self) -> bool:
        """Whether a listener failed during the exit, or during the start that led to it."""
        return self._failed

    def _exit_is_asked(self) -> bool:
        self._run_deferred()
        return self._exit_asked

    # Waiting

    def wait(self, state: State | Iterable[State], interval: float = 0.1, channel: str | None = None) -> None:
        """Wait for one of the given states, publishing to ``channel`` every ``interval`` seconds.

        It wakes at once, and while nobody listens on the channel it does not wake before.
        """
        wanted = {state} if isinstance(state, State) else set(state)
        self._wait(lambda: self.state in wanted, interval=interval, channel=channel)

    def wait_for(
        self, condition: Callable[[], Any], timeout: float | None = None, *, despite_exit: bool = False
    ) -> bool:
        """Wait, in a listener, until ``condition()`` is true; return whether it is.

        False comes at the deadline, and as soon as an exit is asked for during a start, unless
        ``despite_exit`` is true. A thread that makes the condition true calls `wake`. In the main thread
        deferred functions run meanwhile.
        """

        def is_over() -> Any:
            return condition() or (self._exit_asked and self.state is State.STARTING and not despite_exit)

        self._wait(is_over, timeout=timeout)
        return bool(condition())

    def wake(self) -> None:
        """Make each thread in `wait_for` look at its condition again."""
        self._wake()

    def _wait(
        self,
        done: Callable[[], Any],
        *,
        timeout: float | None = None,
        interval: float = 0.1,
        channel: str | None = None,
    ) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        waiter = _sleeper()
        try:
            while True:
                waiter.listen()
                self._waiters[waiter] = channel  # again, as a fork forgets the waiters
                self._run_deferred()
                if done():
                    return
                pause = interval if channel is not None and self.plan(channel) else None
                if deadline is not None:
                    pause = deadline - time.monotonic()
                    if pause <= 0:
                        return
                if not waiter.sleep(pause) and channel is not None:
                    try:
                        self.publish(channel)
                    except ChannelFailures as failures:  # the wait goes on
                        self._drop(f"Errors in {channel!r} listeners:", failures)
        finally:
            self._waiters.pop(waiter, None)
            waiter.close()

    def _wake(self) -> None:
        for waiter in list(self._waiters):
            waiter.wake()

    def defer(self, function: Callable[[], Any]) -> None:
        """Have a function called by the thread that is in `block`; safe in a signal handler.

        What is deferred during a start in the main thread runs between two of its listeners.
        """
        self._deferred.append(function)
        self._wake()

    def _run_deferred(self) -> None:
        if threading.get_ident() != (self._blocking or threading.main_thread().ident):
            return
        while self._deferred:
            function = self._deferred.popleft()
            try:
                function()
            except Exception as error:
                message = f"Error in deferred {function!r}"
                if self.plan("log"):
                    self._log_error(message, error)
                else:
                    _print(message, "".join(tracebacks.format_exception(error)))

    def block(self, interval: float = 0.1) -> None:
        """Wait for EXITING, KeyboardInterrupt or SystemExit, then for the threads that are not daemons.

        To be called by the main thread. Raises SystemExit(70) if a listener failed during the exit;
        after `restart` it does not return, but executes the process anew.
        """
        self._blocking = threading.get_ident()
        self._block_is_over = False
        try:
            try:
                # An exit ends it, even if another thread has moved the bus on since.
                self._wait(
                    lambda: self.state is State.EXITING or self._block_is_over,
                    interval=interval,
                    channel="main",
                )
            except (KeyboardInterrupt, OSError):
                self.log("Keyboard Interrupt: shutting down bus")
                self.exit()
            except SystemExit as error:
                self.log("SystemExit raised: shutting down bus")
                self.exit()
                _spoil(error, self._failed)
                raise
            with self._transition:  # the thread that exits still has exit listeners to run
                pass
            with self._watchdog():
                self._join_threads()
            self._run_deferred()  # an exit that was asked for meanwhile goes before a restart
        finally:
            self._blocking = None
        if self.execv:
            self._do_execv()
        if self._failed:
            raise SystemExit(EX_SOFTWARE)

    def _join_threads(self) -> None:
        self.log("Waiting for child threads to terminate...")
        while threads := _other_threads():  # they may start others
            self.log(f"Waiting for thread {threads[0].name}.")
            threads[0].join()

    @contextlib.contextmanager
    def _watchdog(self) -> Generator[None]:
        """End the process if the body runs past the deadline of the exit."""
        if self._deadline is None:
            yield
            return
        remaining = max(self._deadline - time.monotonic(), 0.05)
        timer = threading.Timer(remaining, self.end_hanging, [threading.get_ident()])
        timer.name = "Bus watchdog"
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # no new thread while the interpreter ends
            timer.start()
        _end_without_gil(remaining + WITHOUT_GIL)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            timer.cancel()
            if timer.is_alive():
                timer.join()

    def expect_exit(self) -> None:
        """Count the time of an exit from now on; for a signal handler that asks for one by `defer`.

        Whatever keeps the thread in `block` from it, a ``start`` listener for instance, is ended like an
        exit that hangs. To be named, it needs `watch_exits`.
        """
        if self.stop_timeout is None or self._expected is not None or self._exiting is not None:
            return
        if self.state is not State.EXITING:
            self._expected = time.monotonic()
            _end_without_gil(self.stop_timeout + WITHOUT_GIL)
            if self._watcher is not None:
                self._watcher.wake()

    def keep_signals(self) -> int:
        """Make the interpreter write the numbers of all signals to a socket; return the other end of it.

        The main thread reads them whenever it waits. Another process may peek into the socket: the
        interpreter writes without the GIL. To be called in the main thread.
        """
        _MainSleeper.take_over()
        return _MainSleeper._open()[0]

    def leave_signals(self) -> None:
        """Undo `keep_signals`."""
        _MainSleeper.give_back()

    def watch_exits(self) -> None:
        """Start the thread that names what keeps the bus from an exit that it expects."""
        if self.stop_timeout is not None and self._watcher is None:
            self._watcher = _Sleeper()
            thread = threading.Thread(target=self._watch_exits, args=[self._watcher], name="Bus exit watch")
            thread.daemon = True
            thread.start()

    def unwatch_exits(self) -> None:
        """End that thread."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.wake()

    def _watch_exits(self, watcher: _Sleeper) -> None:
        while watcher.sleep(None) and self._watcher is watcher:
            if self._expected is not None and self.stop_timeout is not None:
                remaining = self._expected + self.stop_timeout - time.monotonic()
                self._wait(lambda: self._expected is None or self._exiting is not None, timeout=remaining)
                if self._expected is not None and self._exiting is None:
                    self.end_hanging(self._blocking or self.home or threading.main_thread().ident)

    def end_hanging(self, ident: int | None) -> NoReturn:
        """End the process with status 70, and name what hangs in a thread: a listener, or its stack alone."""
        _end_without_gil(2)  # naming it must not hang, either
        lines = [
            *self._reasons_of_start(),
            f"The bus did not exit within {self.stop_timeout or 0:.3g} seconds.",
        ]
        running = self._running
        if running is not None:
            lines += [f"The {running[0]!r} listener {running[1]!r} hangs:", *_stack(ident)]
        elif self.state is State.EXITING and self._exiting is None and (threads := _other_threads()):
            for thread in threads:
                lines += [f"The thread {thread.name} hangs:", *_stack(thread.ident)]
        else:  # in a log listener, say
            lines += ["The exit hangs:", *_stack(ident)]
        with contextlib.suppress(BaseException):
            self.report_hanging("\n".join(lines))
        with contextlib.suppress(BaseException):
            self.publish("abort")
        os._exit(EX_SOFTWARE)

    def _reasons_of_start(self) -> list[str]:
        """Return why the bus exits, if that is a failed start which is not reported yet."""
        if self._start_error is None or self.report_failed_start is not None:
            return []
        errors = [self._start_error]
        if isinstance(self._start_error, ChannelFailures):
            errors = self._start_error.get_instances()
        if self.plan("log"):  # which has the others already
            errors = [error for error in errors if isinstance(error, Refusal)]
        return [
            str(error) if isinstance(error, Refusal) else f"The start failed: {error!r}" for error in errors
        ]

    def start_with_callback(
        self, func: Callable[..., Any], args: Any = None, kwargs: Mapping[str, Any] | None = None
    ) -> threading.Thread:
        """Start the bus; call ``func`` in a new thread once it is STARTED. Return that thread.

        If the bus exits instead, the thread just ends.
        """
        tried = threading.Event()

        def call() -> None:
            self._wait(
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
            self._wake()
        return thread

    @contextlib.contextmanager
    def running(self, *roles: str) -> Generator[Bus]:
        """Start and stop the bus around a block, playing the given roles meanwhile.

        Inside a bus that runs and plays them, it does nothing. If the bus is told to exit while it
        starts, the block does not run: RuntimeError.
        """
        for role in roles:
            _check_role(role, ROLES)
        with self._transition:  # a start under way in another thread is waited for
            runs = self.state in (State.STARTING, State.STARTED)
        if runs:
            missing = [role for role in roles if not self._plays(role, "start")]
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
                raise RuntimeError("The bus was told to exit while it was starting.")
            try:
                yield self
            finally:
                if self.state is not State.EXITING:
                    self.stop()
        finally:
            self._unguard()
            self.roles = before

    # The ends of a process

    def _clean_exit(self, pid: int) -> None:
        if pid != os.getpid() or self.state is State.EXITING:
            return
        try:
            warnings.warn(
                f"The main thread is exiting, but the Bus is in the {self.state!r} state; "
                "shutting it down automatically now. You must either call bus.block() after start(), "
                "or call bus.exit() before the main thread exits.",
                RuntimeWarning,
                stacklevel=1,
            )
        finally:  # a warning may be an error
            self.exit()

    def _guard(self) -> None:
        if not self._guarded:
            atexit.register(self._clean_exit, os.getpid())
            self._guarded = True

    def _unguard(self) -> None:
        atexit.unregister(self._clean_exit)
        self._guarded = False

    def _do_execv(self) -> NoReturn:
        self.publish("execv")  # a listener may execute the next program itself
        arguments = [sys.executable, *sys.orig_argv[1:]]
        if STARTUP_DIRECTORY is not None:
            os.chdir(STARTUP_DIRECTORY)
        self.log(f"Re-spawning {' '.join(arguments)}")
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or None
                stream.flush()
        os.execv(sys.executable, arguments)


def _check_role(role: str, known: tuple[str, ...]) -> None:
    if role not in known:
        raise ValueError(f"Unknown role {role!r}: it must be one of {', '.join(map(repr, known))}.")


@contextlib.contextmanager
def _put_off(interruptions: list[BaseException] | None) -> Generator[None]:
    """Collect SystemExit and KeyboardInterrupt, if there is a list for them."""
    try:
        yield
    except BaseException as error:
        if interruptions is None or isinstance(error, Exception):
            raise
        interruptions.append(error)


def _spoil(error: BaseException, failed: bool) -> None:
    """Replace the status 0 of a SystemExit by 70 if a listener failed."""
    if failed and isinstance(error, SystemExit) and not error.code:
        error.code = EX_SOFTWARE


def _cut_context(error: BaseException, handled: BaseException | None) -> None:
    """Drop the exception already being handled from the error's context."""
    while handled is not None and error.__context__ is not None:
        if error.__context__ is handled:
            error.__context__ = None
            return
        error = error.__context__


def _sleeper() -> _Sleeper:
    if threading.current_thread() is threading.main_thread():
        with contextlib.suppress(OSError, ValueError):  # too many open files; not the main interpreter
            sleeper = _MainSleeper()
            sleeper.listen()
            return sleeper
    return _Sleeper()


def _write(descriptor: int, data: bytes) -> None:
    if data and descriptor != -1:
        with contextlib.suppress(OSError):  # full: whoever reads it is awake; or closed meanwhile
            os.write(descriptor, data)


def _set_wakeup_fd(ours: int, previous: int) -> None:
    """Give the interpreter back the descriptor that it had, unless a handler has changed it since."""
    with contextlib.suppress(ValueError, OSError):  # closed since
        current = signal.set_wakeup_fd(previous, warn_on_full_buffer=False)
        if current != ours:
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)


def _print(*lines: str) -> None:
    with contextlib.suppress(Exception):  # stderr may be closed, or None
        sys.stderr.write("\n".join((*lines, "")))
        sys.stderr.flush()


def _end_without_gil(seconds: float) -> None:
    """End the process after some seconds, also while C code holds the GIL: with stacks, and status 1."""
    with contextlib.suppress(RuntimeError, ValueError):  # no thread to be had
        faulthandler.dump_traceback_later(max(seconds, 0.05), exit=True, file=2)


def _stack(ident: int | None) -> list[str]:
    """Return the stack of a thread, from what the bus has called on."""
    frame = sys._current_frames().get(ident or 0)
    frames = tracebacks.extract_stack(frame) if frame else []
    ours = [index for index, each in enumerate(frames) if each.filename == __file__]
    called = frames[ours[-1] + 1 :] if ours else []
    return [line.rstrip() for line in tracebacks.format_list(called or frames)]


def _other_threads() -> list[threading.Thread]:
    """Return the threads to wait for before the process ends."""
    skipped = (threading.current_thread(), threading.main_thread())
    return [thread for thread in threading.enumerate() if thread not in skipped and not thread.daemon]


_instances: list[weakref.ref[Bus]] = []


def _forget_parents() -> None:
    _MainSleeper.forget()
    for reference in _instances:
        bus = reference()
        if bus is not None:
            bus._forget_parent()


os.register_at_fork(after_in_child=_forget_parents)
