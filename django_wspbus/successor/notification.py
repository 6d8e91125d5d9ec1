"""Messages to the service manager that has started this process: the protocol of sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Self

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""The environment variables by which a service manager says where and when it wants messages."""

SEND_TIMEOUT = 1.0
"""Seconds to wait for a service manager whose queue is full."""

LONGEST_STATUS = 300
"""Characters of a text to show."""


class ServiceManager:
    """The service manager, such as systemd, as the ``environment`` of a process names it.

    A message that cannot be sent is lost: no fault of the service manager harms the site.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name if name.startswith("/") else ""
        self._watchdog = environment.get("WATCHDOG_USEC", "")
        self._watched = environment.get("WATCHDOG_PID", "")
        self._socket: socket.socket | None = None

    @classmethod
    def take(cls) -> Self:
        """Return the service manager of this process, hidden from the processes that this one starts."""
        return cls({name: os.environ.pop(name, "") for name in VARIABLES})

    @property
    def is_there(self) -> bool:
        """True if there is a service manager that wants messages."""
        return bool(self._address)

    def watchdog(self, pid: int | None) -> float | None:
        """Return the seconds within which the process ``pid`` has to show that it lives; None: no limit.

        ``pid``: None for a daemon, which replaces the process that the limit is for.
        """
        if not self._watchdog.isdigit() or (pid is not None and self._watched not in ("", str(pid))):
            return None
        return int(self._watchdog) / 1e6 or None

    def send(self, *fields: str) -> bool:
        """Send fields such as "READY=1" in one message; return whether the service manager has it."""
        if not self._address:
            return False
        try:
            if self._socket is None:  # kept, because later the process may have no free descriptor
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.settimeout(SEND_TIMEOUT)
            self._socket.sendto("\n".join(fields).encode(errors="replace"), self._address)
        except (OSError, ValueError):  # ValueError: the address holds a null character
            return False
        return True

    def close(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()


def status(text: str) -> str:
    """Return the field that shows a text in ``systemctl status``: its first line, cut."""
    return f"STATUS={(text.splitlines() or [''])[0][:LONGEST_STATUS]}"


def extended(seconds: float) -> str:
    """Return the field that lets a start, reload or stop take so many seconds from now."""
    return f"EXTEND_TIMEOUT_USEC={microseconds(seconds)}"


def watched(seconds: float) -> str:
    """Return the field that sets the time within which the process has to show that it lives."""
    return f"WATCHDOG_USEC={microseconds(seconds)}"


def microseconds(seconds: float) -> int:
    return int(seconds * 1_000_000)
