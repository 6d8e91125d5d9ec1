"""The plugin that owns the control socket of a site, over which clients on this machine ask and order it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

from ..conf.addresses import Address
from ..control import address
from ..control.calls import Action, Calls
from ..control.server import ControlServer
from ..sockets.binding import bind, explain
from ..successor.state import ControlState, WaitingClient
from ..system.ownership import NO_OWNER, Owner, unlink_same
from ..wspbus import Bus
from ..wspbus.plugin import Plugin

TIME_TO_END = 1.0
"""Seconds that the exit of the bus waits for the server."""

UMASK = 0o177
"""The umask of a socket in a file: only its owner may connect."""


class ControlSocket(Plugin):
    """Answers the requests of clients in threads of the site process; see `control.server`.

    ``control``: True for a socket that needs no configuration, the path of a file, or False. ``owner``: the
    user that the site becomes. ``handed_over``: the socket that an earlier program of this process has handed
    over. Without a control socket the site serves all the same.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        control: bool | Path,
        answer: Action,
        *,
        owner: Owner = NO_OWNER,
        handed_over: ControlState | None = None,
    ) -> None:
        super().__init__(bus)
        self.calls = Calls(answer, self._failed)
        self._path = str(control.absolute()) if isinstance(control, Path) else None
        self._is_wanted = control is not False
        self._pid = os.getpid()  # a forked process must not remove the file
        self._owner = owner
        self._handed_over = handed_over
        self.waiting: list[WaitingClient] = []
        """The clients to hand over to the next program."""
        self._socket: socket.socket | None = None
        self._file: tuple[str, tuple[int, int]] | None = None
        """The file of the socket, with its device and inode."""
        self._follows_forks = False
        self._server: ControlServer | None = None
        self._thread: threading.Thread | None = None

    # Start

    def bind(self) -> None:
        """Bind the file of a path, while this process may still be root."""
        self._adopt()
        if self._path is None or self._socket is not None:
            return
        place = Address("unix", path=self._path)
        try:
            bound = bind(place, address.BACKLOG, umask=UMASK, owner=self._owner, named=[])
        except OSError as error:
            self._warn(explain(error, place, [], self._owner))
        else:
            self._socket = bound.socket
            self._file = None if bound.inode is None else (self._path, bound.inode)

    def _adopt(self) -> None:
        """Take over the socket of the program before, if the setting is the same."""
        state, self._handed_over = self._handed_over, None
        if state is None:
            return
        sock = socket.socket(fileno=state.descriptor)
        self._file = address.file_of(sock) if state.path is None else state.file
        if self._is_wanted and state.path == self._path:
            self._socket = sock
            return
        sock.close()
        self._unlink()

    def start(self) -> None:
        if not self._is_wanted or self._server is not None:
            return
        try:
            if self._socket is None and self._path is None:
                self._socket, _ = address.listen(os.getpid())
                self._file = address.file_of(self._socket)
            if self._socket is None:
                return
            # Again, after the change of user: clients see the user that this process has now.
            self._socket.listen(address.BACKLOG)
            self._follow_forks()
            self._server = ControlServer(self._socket, self.calls.begin, self._failed)
        except OSError as error:
            self._warn((error.strerror or str(error)).lower())
            self.close()  # else clients would wait in its queue
            return
        # A daemon thread, because no client must keep the process alive.
        self._thread = threading.Thread(target=self._server.run, name="Control", daemon=True)
        self._thread.start()

    start.priority = 31  # type: ignore[attr-defined]  # after the change of user

    def _follow_forks(self) -> None:
        if not self._follows_forks:
            self._follows_forks = True
            os.register_at_fork(after_in_child=self._close_in_child)

    def _close_in_child(self) -> None:
        """In a process that Python forks: close the copy, which would keep the name of an ended site."""
        if self._socket is not None:
            self._socket.close()

    def _warn(self, reason: str) -> None:
        where = "The control socket" if self._path is None else f"The control socket {self._path}"
        self.bus.log(
            f"{where} cannot be made: {reason}. The site serves without it, and `wspbus` does not find it.",
            level=30,
        )

    def _failed(self, action: str = "") -> None:
        what = f"the action {action!r}" if action else "a client of the control socket"
        self.bus.log(f"Error while answering {what}", level=40, traceback=True)

    # The end

    def exit(self) -> None:
        if not self.bus.execv:  # until the process is replaced, a restart may still become an exit
            self.close()

    exit.priority = 95  # type: ignore[attr-defined]  # a site that exits shows its state until then

    def close(self) -> None:
        """Stop listening. Clients whose requests are running keep their connections."""
        self._end_server()
        if self._socket is not None:
            self._socket.close()
            self._unlink()
            self._socket = None

    def abort(self) -> None:
        """Remove the file of the socket before the process ends at once."""
        self._unlink()

    def _end_server(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.end()
            self._thread.join(TIME_TO_END)
        self._server = self._thread = None

    def _unlink(self) -> None:
        if self._file is not None and os.getpid() == self._pid:
            with contextlib.suppress(OSError):  # after a change of user it may stay
                unlink_same(*self._file)
            self._file = None

    def take_waiting(self) -> list[WaitingClient]:
        """Return the clients to hand over to the next program, each once."""
        clients, self.waiting = self.waiting, []
        return clients

    def hand_over(self) -> ControlState | None:
        """Return the state for the next program; until that listens, clients wait in the queue."""
        self._end_server()
        if self._socket is None:
            return None
        descriptor, self._socket = self._socket.detach(), None
        inode = None if self._file is None else self._file[1]
        return ControlState(descriptor, self._path, inode, self.take_waiting())

    def subscribe(self) -> None:
        super().subscribe()
        self.bus.subscribe("start", self.bind, 20.5, role=self.role)

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.bus.unsubscribe("start", self.bind)
        self.close()
