"""The plugin that owns the sockets of a site: it binds them before anything serves, and closes them last."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from ..children.dry_run import PlannedSocket
from ..conf.addresses import Address, parse
from ..sockets.binding import bind, explain
from ..sockets.bound import Bound, name_of
from ..sockets.systemd import PassedSockets
from ..successor.state import SocketState
from ..system.ownership import NO_OWNER, Owner
from ..wspbus import Bus, Refusal
from ..wspbus.plugin import Plugin


class Sockets(Plugin):
    """Binds the addresses of every holder at start, and closes them at exit, not at stop.

    ``binds``: holder -> (addresses, backlog). The holder is the alias of a server, or the path of the setting
    that wants the addresses. ``umask``: that of Unix sockets; None is 0, as in gunicorn, so that a proxy of
    another user may connect. ``owner``: the user that Unix sockets are for. ``handed_over``: the sockets that
    another program has handed over. ``is_lent``: whether another process holds the sockets as well, and keeps
    them when this process ends.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        binds: Mapping[str, tuple[Iterable[Address], int]],
        *,
        umask: int | None = None,
        owner: Owner = NO_OWNER,
        handed_over: Iterable[SocketState] = (),
        is_lent: bool = False,
    ) -> None:
        super().__init__(bus)
        self.binds = binds
        self.umask = umask or 0
        self.owner = owner
        self.bound: dict[str, list[Bound]] = {}
        self.passed = PassedSockets([])
        self._is_lent = is_lent
        self._kept: set[tuple[str, str]] | None = None  # holder and address; None: all of them
        self._is_complete = False
        self._planned: list[Address] = []  # by the next program
        self._handed_over = list(handed_over)

    # Binding

    def adopt(self) -> None:
        """Take over the sockets of the program before at once, because clients may wait in their queues."""
        # First by holder and address; then by address alone, as a server may have got another name.
        for is_same_holder in (True, False):
            for holder, (addresses, backlog) in self.binds.items():
                for address in addresses:
                    if not self._has(holder, address):
                        self._adopt(holder, address, backlog, is_same_holder=is_same_holder)
        for state in self._handed_over:
            os.close(state.descriptor)
        self._handed_over = []

    def _adopt(self, holder: str, address: Address, backlog: int, *, is_same_holder: bool) -> None:
        for state in self._handed_over:
            if state.address == str(address) and (state.holder == holder or not is_same_holder):
                self._handed_over.remove(state)
                self.bound.setdefault(holder, []).append(Bound.adopt(state, address, backlog))
                return

    def start(self) -> None:
        if self._is_complete:  # they outlive a stop
            return
        self.passed = PassedSockets.take()
        self.passed.match(address for addresses, _ in self.binds.values() for address in addresses)
        for holder, (addresses, backlog) in self.binds.items():
            missing = [address for address in addresses if not self._has(holder, address)]
            for address in missing:
                self.bound.setdefault(holder, []).extend(self._bind(holder, address, backlog))
        self._is_complete = True
        for sock in self.passed.others(bound.socket for _, bound in self._all()):
            reason = "that no BIND asks for: its clients wait in vain"
            self.bus.log(f"systemd has passed a socket on {name_of(sock)} {reason}.", level=30)

    start.priority = 20  # type: ignore[attr-defined]

    def _bind(self, holder: str, address: Address, backlog: int) -> list[Bound]:
        named = [*(address for addresses, _ in self.binds.values() for address in addresses), *self._planned]
        try:
            if address.kind == "systemd":
                claimed = {each.name for each in named if each.name is not None}
                passed = self.passed.named(address.name, claimed)
                return [Bound(address, sock, is_passed=True) for sock in passed]
            if (sock := self.passed.at(address)) is not None:
                return [Bound(address, sock, is_passed=True)]
            return [bind(address, backlog, umask=self.umask, owner=self.owner, named=named)]
        except OSError as error:
            subject = holder if _is_setting(holder) else f"The server {holder!r}"
            reason = explain(error, address, (bound for _, bound in self._all()), self.owner)
            raise Refusal(f"{subject} cannot listen on {address}: {reason}.") from error

    # What is bound

    def of(self, holder: str) -> list[Bound]:
        return self.bound.get(holder, [])

    def descriptors(self, holder: str) -> list[int]:
        return [each.socket.fileno() for each in self.of(holder)]

    def own(self) -> list[Bound]:
        """Return the open sockets that belong to this process alone: neither systemd's nor lent ones."""
        return [bound for _, bound in self._own()]

    def of_servers(self) -> list[Bound]:
        """Return those of `own` on which servers serve."""
        return [bound for holder, bound in self._own() if not _is_setting(holder)]

    def unwanted(self) -> list[Bound]:
        """Return those of `of_servers` for which the next program has no server."""
        return [
            bound
            for holder, bound in self._own()
            if not _is_setting(holder) and not self._is_kept(holder, bound)
        ]

    def _all(self) -> Iterator[tuple[str, Bound]]:
        return ((holder, bound) for holder, bounds in self.bound.items() for bound in bounds)

    def _own(self) -> list[tuple[str, Bound]]:
        if self._is_lent:
            return []
        return [(holder, each) for holder, each in self._all() if not each.is_passed and each.is_open]

    def _has(self, holder: str, address: Address) -> bool:
        return address in [bound.address for bound in self.of(holder)]

    # The end

    def take_back(self) -> None:
        """Own the sockets alone: the process that holds them as well serves no client on them any more."""
        self._is_lent = False

    def exit(self) -> None:
        if not self.bus.execv:  # until the process is replaced, a restart may still become an exit
            self.close()

    exit.priority = 90  # type: ignore[attr-defined]

    def close(self) -> None:
        self.passed.close()
        for bound in self.own():
            bound.close()
        if self._is_lent:
            for _, bound in self._all():
                bound.socket.close()
        self.bound = {}
        self._is_complete = False

    def abort(self) -> None:
        """Remove the files of Unix sockets before the process ends at once."""
        for bound in self.own():
            bound.unlink()

    # Over a restart

    def addresses(self) -> list[str]:
        """Return the addresses of all sockets, as BIND has them."""
        return [str(bound.address) for _, bound in self._all()]

    def states(self) -> list[SocketState]:
        """Return the sockets that this process has bound, and that the next program wants."""
        return [
            SocketState(holder, str(bound.address), bound.inode, bound.socket.fileno())
            for holder, bound in self._all()
            if not bound.is_passed and self._is_kept(holder, bound)
        ]

    def hand_over(self) -> list[SocketState]:
        """Return the sockets that the next program wants, and close the others."""
        states = self.states()
        descriptors = {each.descriptor for each in states}
        for bound in self.own():
            if bound.socket.fileno() not in descriptors:
                bound.close()
        self.passed.hand_over()
        return states

    def detach(self) -> list[SocketState]:
        """Hand over all sockets, and own none of them any more; their descriptors stay open."""
        states = self.hand_over()
        for _, bound in self._all():
            bound.socket.detach()
        self.bound = {}
        return states

    def add(self, planned: Iterable[PlannedSocket]) -> list[tuple[str, Bound]]:
        """Bind the planned sockets of the next program that are not bound yet, and return these."""
        added: list[tuple[str, Bound]] = []
        planned = list(planned)
        self._planned = [parse(each.address) for each in planned]
        try:
            for each, address in zip(planned, self._planned, strict=True):
                if address.kind != "systemd" and not self._has(each.holder, address):
                    (bound,) = self._bind(each.holder, address, each.backlog)
                    self.bound.setdefault(each.holder, []).append(bound)
                    added.append((each.holder, bound))
        except BaseException:
            self.drop(added)
            raise
        return added

    def drop(self, added: Iterable[tuple[str, Bound]]) -> None:
        """Close sockets that `add` has bound."""
        for holder, bound in added:
            self.bound[holder].remove(bound)
            bound.close()

    def keep(self, planned: Iterable[PlannedSocket]) -> None:
        """Hand over no other sockets than these."""
        self._kept = {(each.holder, each.address) for each in planned}

    def _is_kept(self, holder: str, bound: Bound) -> bool:
        return self._kept is None or (holder, str(bound.address)) in self._kept


def _is_setting(holder: str) -> bool:
    return holder.startswith("WSPBUS[")
