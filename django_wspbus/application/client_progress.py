"""Bytes that clients send or take are progress, too: of a slow upload, a large response, or a file."""

from __future__ import annotations

import array
import fcntl
import random
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable

from ..process.slots import InFlight
from .in_flight import RequestsInFlight

LOOKS, CLOSE_LOOKS = 5, 50
"""Looks in one REQUEST_TIMEOUT. The second number holds while a request is without progress for half of it:
the numbers of a Unix socket rise and fall as a client takes bytes, so two looks may find the same ones."""

SHORTEST_INTERVAL = 0.02
"""Seconds between two looks at least."""

# Of Linux's struct tcp_info: tcpi_bytes_acked and tcpi_bytes_received.
TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
TCP_COUNTS = struct.Struct("@QQ")
TCP_COUNTS_AT = 120


class ClientProgress:
    """A thread that notes which requests make progress because bytes move, and counts those that are stuck.

    ``note_stuck(count)`` is called after each look. ``timeout``: seconds without progress.
    ``is_debugged(thread)``: whether a developer holds a thread in a debugger, which counts as progress.
    """

    def __init__(
        self,
        requests: RequestsInFlight,
        timeout: float,
        note_stuck: Callable[[int], object],
        is_debugged: Callable[[int], bool] = lambda thread: False,
    ) -> None:
        self._requests = requests
        self._timeout = timeout
        self._note_stuck = note_stuck
        self._is_debugged = is_debugged
        self._moved: dict[int, tuple[int, object]] = {}

    def start(self) -> None:
        threading.Thread(target=self._run, name="Client progress", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(self.look())

    def look(self) -> float:
        """Note the progress; return the seconds until the next look."""
        now = time.monotonic()
        stuck, interval = 0, self._timeout / LOOKS
        moved, self._moved = self._moved, {}
        for request in self._requests.all():
            idle = now - request.progressed
            if idle >= self._timeout / 2 and self._has_moved(request, moved):
                self._requests.progress(request.slot)
            elif idle >= self._timeout:
                stuck += 1
            else:
                is_close = idle >= self._timeout / 2
                longest = self._timeout / CLOSE_LOOKS * random.uniform(0.5, 1.5) if is_close else interval
                interval = min(interval, longest, self._timeout - idle)
        self._note_stuck(stuck)
        return max(interval, SHORTEST_INTERVAL)

    def _has_moved(self, request: InFlight, before: dict[int, tuple[int, object]]) -> bool:
        if self._is_debugged(request.thread):
            return True
        sock: socket.socket | None = self._requests.socket_of(request.slot)
        moved = None if sock is None else moved_bytes(sock)
        if moved is None:
            return False
        self._moved[request.slot] = request.serial, moved
        serial, moved_before = before.get(request.slot, (None, None))
        return serial == request.serial and moved_before != moved


def moved_bytes(sock: socket.socket) -> tuple[int, int] | None:
    """Return numbers that change when the client takes bytes, or the application those of the client.

    Over a Unix socket bytes that the application reads at once leave no trace. None: the socket is closed.
    """
    try:
        unread, unsent = _ask(sock, termios.FIONREAD), _ask(sock, termios.TIOCOUTQ)
        if TCP_INFO is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            info = sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, TCP_COUNTS_AT + TCP_COUNTS.size)
            if len(info) == TCP_COUNTS_AT + TCP_COUNTS.size:
                acknowledged, received = TCP_COUNTS.unpack_from(info, TCP_COUNTS_AT)
                return acknowledged, received - unread
    except (OSError, ValueError):
        return None
    return unsent, unread


def _ask(sock: socket.socket, request: int) -> int:
    answer = array.array("i", [0])
    fcntl.ioctl(sock, request, answer)
    return answer[0]
