"""The listeners by channel: a dict of sets that reports each change, as programs change it directly.

CherryPy's plugins assign and change the sets of ``bus.listeners``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any, TypeVar

Listener = Callable[..., Any]
Class = TypeVar("Class", bound=type)


def _reporting(*names: str) -> Callable[[Class], Class]:
    """Make these methods of a built-in class call ``self.changed()`` when they have run."""

    def decorate(cls: Class) -> Class:
        for name in names:
            setattr(cls, name, _reported(getattr(cls, name)))
        return cls

    return decorate


def _reported(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def change(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        finally:
            self.changed()

    return change


@_reporting(
    *("add", "discard", "remove", "pop", "clear"),
    *("update", "difference_update", "intersection_update", "symmetric_difference_update"),
    *("__ior__", "__isub__", "__iand__", "__ixor__"),
)
class Listeners(set[Listener]):
    """The listeners of one channel: a set that reports each change."""

    changed: Callable[[], None] = staticmethod(lambda: None)  # of a copy, which belongs to no channel


@_reporting("__setitem__", "__delitem__", "__ior__", "update", "pop", "popitem", "clear")
class Channels(dict[str, set[Listener]]):
    """The listeners of all channels. ``changed`` is called with the channel; None: any may have changed.

    A set that a program assigns is stored as it is, so that the program may go on changing it, and cannot
    report its changes: see `reports`. ``setdefault`` stores and returns a set that does.
    """

    def __init__(self, channels: Iterable[str], changed: Callable[[str | None], None]) -> None:
        self._changed = changed
        super().__init__({channel: self._make(channel) for channel in channels})

    def changed(self) -> None:
        self._changed(None)

    def reports(self, channel: str) -> bool:
        """Return whether the set of a channel reports its changes; if not, a caller reads it each time."""
        listeners = self.get(channel)
        return listeners is None or isinstance(listeners, Listeners)

    def open(self, channel: str) -> set[Listener]:
        """Return the set of a channel, which is made if there is none; that alone is no change."""
        return dict.setdefault(self, channel, self._make(channel))

    def setdefault(self, channel: str, default: Iterable[Listener] = ()) -> set[Listener]:
        """Return the set of a channel, which is made with the listeners of ``default`` if there is none."""
        if channel not in self:
            dict.setdefault(self, channel, self._make(channel, default))
            self.changed()
        return self[channel]

    def _make(self, channel: str, listeners: Iterable[Listener] = ()) -> Listeners:
        made = Listeners(listeners)
        made.changed = partial(self._changed, channel)
        return made
