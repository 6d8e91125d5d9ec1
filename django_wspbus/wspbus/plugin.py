"""The base class of plugins: a method named after a channel listens on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .bus import Bus


class Plugin:
    """An object whose methods listen on the channels of the same name.

    The attribute ``priority`` of a method replaces the default of 50. The attribute ``role`` of the plugin or
    its class ("site", "worker", "leader", "any") says in which processes it works. A plugin that can check
    its options has a method ``check()`` that returns Django check messages.
    """

    role: str | None = None

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    def subscribe(self) -> None:
        """Listen with every method that is named after a channel of the bus."""
        for channel, method in listeners_of(self):
            self.bus.subscribe(channel, method, role=self.role)

    def unsubscribe(self) -> None:
        """Listen no longer."""
        for channel, method in listeners_of(self):
            self.bus.unsubscribe(channel, method)


def listeners_of(plugin: Plugin) -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield the methods of a plugin that are named after a channel of its bus, each with the channel."""
    for channel in list(plugin.bus.listeners):
        method = getattr(plugin, channel, None)
        if callable(method):
            yield channel, method
