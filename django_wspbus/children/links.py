"""The site's connections to the processes of a child."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence

from ..process.messages import Link, Message, Received, await_event
from ..process.outbox import Offered
from ..process.pairs import take_in
from ..process.switchboard import Switchboard
from ..process.worker_orders import Missed, as_message
from ..successor.state import LinkState

TIME_TO_HEAR = 1
"""Seconds within which the last messages of processes that have ended arrive."""


class Links:
    """The pair of sockets that joins the site and a child, and the links that come over it.

    It calls, in the thread of the switchboard: ``heard(link, messages)`` for messages; ``ended(link)`` when
    the process at its other end is gone; ``all_ended()`` when no process of the child is left.
    """

    def __init__(
        self,
        pair: socket.socket,
        switchboard: Switchboard,
        *,
        heard: Callable[[Link, list[Received]], None],
        ended: Callable[[Link], None],
        all_ended: Callable[[], None],
    ) -> None:
        self.pair = pair
        self.switchboard = switchboard
        self._heard = heard
        self._ended = ended
        self._all_ended = all_ended
        self._links: dict[int, Link] = {}
        self._pair_ended = False
        self._silent = threading.Event()  # no process is left that could send anything

    def listen(self) -> None:
        """Listen to the processes from now on, also to those whose links were adopted."""
        self.switchboard.watch(self.pair.fileno(), self._take_in)
        for link in list(self._links.values()):
            self._heard(link, link.received())
            self._listen_to(link)

    def order(self, order: bytes) -> None:
        """Give an order: see `orders`. OSError if the child has ended."""
        self.pair.send(order, socket.MSG_DONTWAIT)

    def post(self, descriptor: int, message: Message) -> None:
        """Send a message to one of the processes without waiting for it; it is lost if that has ended."""
        if (link := self._links.get(descriptor)) is not None:
            with contextlib.suppress(OSError):
                self.switchboard.post(link, message)

    def offer(self, descriptor: int, orders: Sequence[Offered]) -> None:
        """Send orders to one of the processes; while that does not read, the oldest are dropped."""
        if (link := self._links.get(descriptor)) is not None:
            with contextlib.suppress(OSError):
                self.switchboard.offer(link, orders, lambda lost: as_message(Missed(lost)))

    def close(self) -> None:
        for descriptor in (self.pair.fileno(), *self._links):
            self.switchboard.forget(descriptor)
        for link in list(self._links.values()):
            link.close()
        self._links.clear()
        self.pair.close()

    def hear_last(self) -> None:
        """Wait until the last messages of processes that have ended have been read."""
        self._silent.wait(TIME_TO_HEAR)

    def hear_now(self, descriptor: int) -> None:
        """Read the messages that have arrived over a link, before its turn."""
        link = self._links.get(descriptor)
        while link is not None and descriptor in self._links and await_event(link, select.POLLIN, 0):
            self._hear(link)

    def _take_in(self) -> None:
        link = take_in(self.pair)
        if link is not None:
            self._listen_to(link)
            return
        self.switchboard.forget(self.pair.fileno())
        self._pair_ended = True
        self._note_silence()
        self._all_ended()

    def _listen_to(self, link: Link) -> None:
        self._links[link.fileno()] = link
        self.switchboard.watch(link.fileno(), lambda: self._hear(link), link)

    def _hear(self, link: Link) -> None:
        messages = link.receive()
        if messages is not None:
            self._heard(link, messages)
            return
        self.switchboard.forget(link.fileno())
        self._links.pop(link.fileno(), None)
        self._ended(link)
        link.close()
        self._note_silence()

    def _note_silence(self) -> None:
        if self._pair_ended and not self._links:
            self._silent.set()

    # Over a restart of the site

    def hand_over(
        self,
        unanswered: Callable[[Link], list[Message]],
        workers: dict[int, int],
        listeners: dict[int, int],
        ready: set[int],
    ) -> list[LinkState]:
        """Return the links for the next program, which can `adopt` them; the switchboard must be paused."""
        states = []
        for descriptor, link in self._links.items():
            received, unsent = map(b64encode, link.hand_over(unanswered(link)))
            state = LinkState(
                descriptor,
                link.name,
                received.decode(),
                unsent.decode(),
                worker=workers.get(descriptor),
                listener=listeners.get(descriptor),
                is_ready=descriptor in ready,
            )
            states.append(state)
        return states

    def adopt(self, state: LinkState) -> None:
        received, unsent = b64decode(state.received), b64decode(state.unsent)
        sock = socket.socket(fileno=state.descriptor)
        self._links[state.descriptor] = Link(sock, state.name, received=received, unsent=unsent)
