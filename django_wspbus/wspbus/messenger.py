"""Publish and subscribe: channels and their listeners, by priority and role.

A program that does not need the states of a process can use a `Messenger` alone.
"""

from __future__ import annotations

import itertools
import traceback as tracebacks
from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter
from typing import Any, TypeVar, overload

from .calls import Calls
from .channels import Channels, Listener
from .failures import ChannelFailures, Refusal, format_traceback, write_to_stderr

L = TypeVar("L", bound=Listener)

BUILT_IN_CHANNELS = ("start", "stop", "exit", "graceful", "log", "main")
ROLES = ("site", "worker", "leader")
WORKER_CHANNELS = frozenset({"start", "stop", "exit", "graceful", "main"})
"""Channels whose listeners have the role "worker" unless they name another."""

MOST_PLANS = 1000
_add, _discard = set.add, set.discard  # which report no change
INFO, ERROR = 20, 40


Subscription = tuple[float, int, str | None]
"""The priority of a listener, a serial number for the order within it, and the role."""


class Subscriptions:
    """All subscriptions of a messenger at one moment."""

    def __init__(self, messenger: Messenger) -> None:
        self.listeners = {channel: set(callbacks) for channel, callbacks in messenger.listeners.items()}
        self.details = dict(messenger._subscriptions)


class Messenger:
    """Calls the listeners of a channel whenever something is published on it.

    All listeners of a channel run, even if some fail: each failure is logged, then all are raised together.
    ``SystemExit`` and ``KeyboardInterrupt`` pass through. Listeners run in the order of their priorities, 0
    first, and with equal priorities in the order of their subscriptions. The default is the attribute
    ``priority`` of the listener, or 50.

    Methods may be called from any thread, from listeners, and from signal handlers.
    """

    def __init__(self) -> None:
        self._plans: dict[str, tuple[Listener, ...]] = {}
        self._subscriptions: dict[tuple[str, Listener], Subscription] = {}
        self.serials = itertools.count()
        self._roles: frozenset[str] | None = None
        self.listeners = Channels(BUILT_IN_CHANNELS, self._note_change)

    # Roles

    @property
    def roles(self) -> frozenset[str] | None:
        """The roles this process plays, of `ROLES`. None: listeners of all roles are called."""
        return self._roles

    @roles.setter
    def roles(self, roles: Iterable[str] | None) -> None:
        if roles is not None:
            roles = frozenset(roles)
            for role in roles:
                check_role(role, ROLES)
        self._roles = roles
        self._note_change(None)

    def plays(self, role: str | None, channel: str) -> bool:
        """Return whether listeners of a role are called on a channel in this process."""
        if role is None:
            role = "worker" if channel in WORKER_CHANNELS else "any"
        return self._roles is None or role == "any" or role in self._roles

    # Subscriptions

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

        ``role``: "site", "worker", "leader" or "any", the processes in which it is called. Left out it means
        "worker" on start, stop, exit, graceful and main, and "any" on every other channel.
        An unknown role is a ValueError.
        """
        if callback is None:
            return partial(self.subscribe, channel, priority=priority, role=role)
        if role is not None:
            check_role(role, (*ROLES, "any"))
        if priority is None:
            priority = getattr(callback, "priority", 50)
        self.add(channel, callback, (priority, next(self.serials), role))
        return callback

    def add(self, channel: str, callback: Listener, subscription: Subscription) -> None:
        """Add a listener to a channel; safe in a signal handler."""
        # Each step is atomic, and the plans go last: no lock for a signal handler to wait on.
        self._subscriptions[channel, callback] = subscription
        _add(self.listeners.get(channel) or self.listeners.open(channel), callback)
        self._note_change(channel)

    def unsubscribe(self, channel: str, callback: Listener) -> None:
        """Remove a listener from a channel, if it is there."""
        listeners = self.listeners.get(channel)
        if listeners is not None:
            _discard(listeners, callback)
            self._subscriptions.pop((channel, callback), None)
            self._plans = {}

    def of_role(self, role: str) -> list[tuple[str, Listener]]:
        """Return the channel and the callback of each listener that was subscribed for a role."""
        return [
            (channel, callback)
            for (channel, callback), (_, _, subscribed_for) in list(self._subscriptions.items())
            if subscribed_for == role and callback in self.listeners.get(channel, ())
        ]

    def subscriptions(self) -> Subscriptions:
        """Return all subscriptions, for `restore`."""
        return Subscriptions(self)

    def restore(self, subscriptions: Subscriptions) -> None:
        """Return to the subscriptions of an earlier moment."""
        self._subscriptions = dict(subscriptions.details)
        self.listeners.clear()
        for channel, callbacks in subscriptions.listeners.items():
            self.listeners.setdefault(channel, callbacks)

    def _note_change(self, channel: str | None) -> None:
        """Drop the plans, as the listeners of a channel (None: of any) have changed."""
        self._plans = {}

    # Publications

    def plan(self, channel: str) -> tuple[Listener, ...]:
        """Return the listeners that a publication on a channel calls in this process, in order."""
        # A change of the listeners replaces this dict: a plan that is out of date goes into the old one.
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
            priority, serial, role = self._subscriptions.get((channel, callback)) or (
                getattr(callback, "priority", 50),
                0,
                None,
            )
            if self.plays(role, channel):
                chosen.append((priority, serial, callback))
        chosen.sort(key=itemgetter(0, 1))
        plan = tuple(callback for _, _, callback in chosen)
        if self.listeners.reports(channel):
            plans[channel] = plan
        return plan

    def publish(self, channel: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Call the listeners of a channel; return what they returned, in priority order.

        Raises `ChannelFailures`, after all have run, if some failed.
        """
        # Sites publish often, so this path has one cached tuple, and one try for the whole loop.
        try:
            callbacks = self._plans[channel]
        except KeyError:
            callbacks = self.plan(channel)
        if not callbacks:
            return []
        output: list[Any] = []
        try:
            if kwargs:  # apart, as f(**kwargs) costs a dict for each listener, even if empty
                for callback in callbacks:
                    output.append(callback(*args, **kwargs))
            else:
                for callback in callbacks:
                    output.append(callback(*args))
            return output
        except BaseException as failure:
            error = failure
        # Outside the handler, so that this error does not become the context of later ones.
        try:
            calls = Calls(self, channel, callbacks[len(output) :], args, kwargs, output)
            calls.run(error)
            calls.raise_failures()
            return output
        finally:
            del error  # whose traceback refers to this frame

    # Messages

    def log(self, msg: str = "", level: int = INFO, traceback: bool = False) -> None:
        """Publish a message and its level, as in `logging`, on ``log``.

        With ``traceback``, that of the exception being handled is appended. The failure of a log listener is
        written to stderr, and goes no further.
        """
        if not self.plan("log"):
            return
        if traceback:
            msg += "\n" + tracebacks.format_exc()
        try:
            self.publish("log", msg, level)
        except ChannelFailures as failures:
            write_to_stderr(f"{msg}\nA log listener failed:", *failures.__notes__)

    def report(self, message: str, error: BaseException, level: int = ERROR) -> None:
        """Log an error with its traceback, or write it to stderr if there is no log listener."""
        if not self.plan("log"):
            write_to_stderr(message, format_traceback(error))
        elif isinstance(error, Refusal):
            self.log(str(error), level)
        else:
            self.log(f"{message}\n{format_traceback(error)}\n", ERROR)

    def report_failure(self, channel: str, listener: Listener, error: Exception) -> None:
        """Log the failure of a listener, before `publish` raises it. A subclass may report it in another way.

        Not called for a failing log listener, or without any log listener.
        """
        # The program that starts the bus expects and reports a refusal of the start.
        level = INFO if channel == "start" else ERROR
        self.report(f"Error in {channel!r} listener {listener!r}", error, level)

    def report_uncaught(self, failures: ChannelFailures) -> None:
        """Write failures that no caller gets to stderr, unless they are in the log."""
        if not self.plan("log"):
            write_to_stderr(f"Errors in {failures.channel!r} listeners:", *failures.__notes__)


def check_role(role: str, known: tuple[str, ...]) -> None:
    """Raise ValueError if a role is not one of those known."""
    if role not in known:
        raise ValueError(f"Unknown role {role!r}: it must be one of {', '.join(map(repr, known))}.")
