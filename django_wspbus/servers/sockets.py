"""The sockets of a site: bound before anything serves, closed after everything has stopped."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..conf.addresses import Address, parse
from ..successor.program import SYSTEMD_FIRST
from ..successor.start import TYPED
from ..system.ownership import NO_OWNER, Folder, Owner, unlink_same
from ..wspbus import Bus, Refusal
from ..wspbus.plugin import Plugin

BACKLOG = 2048
LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
WILDCARDS = {"0.0.0.0", "::"}


@dataclass(slots=True)
class Bound:
    """A listening socket and the address that asked for it."""

    address: Address
    socket: socket.socket
    inode: tuple[int, int] | None = None
    is_filtered: bool = False
    """Whether the kernel drops the packets of new clients."""
    name: str = field(init=False)
    """The address as bound: the port is known, also if 0 was asked for."""

    def __post_init__(self) -> None:
        self.name = _name(self.socket)  # now, as it is asked for after the socket is closed, too

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        if self.socket.family == socket.AF_UNIX:
            return self.name
        name = self.name
        if name.startswith("0.0.0.0:"):
            name = "127.0.0.1" + name.removeprefix("0.0.0.0")
        elif name.startswith("[::]:"):
            name = "[::1]" + name.removeprefix("[::]")
        return f"http://{name}/"

    def close(self) -> None:
        self.socket.close()
        self.unlink()

    def unlink(self) -> None:
        """Remove a Unix socket's file, if it is still ours; after a change of user it may have to stay."""
        if self.inode is None:
            return
        with contextlib.suppress(OSError):
            unlink_same(self.address.path, self.inode)


class Sockets(Plugin):
    """Binds the addresses of every holder at start, and closes them at exit, not at stop.

    ``binds``: holder -> (addresses, backlog), the holder being a server's alias, or the path of the
    setting that wants them. ``umask``: that of Unix sockets; None is 0, so that a proxy of another
    user may connect, as it is in gunicorn. ``owner``: the user that Unix sockets are for.
    ``inherited``: what `held` told the program that this process executed before.
    """

    role = "site"

    def __init__(
        self,
        bus: Bus,
        binds: Mapping[str, tuple[Iterable[Address], int]],
        *,
        umask: int | None = None,
        owner: Owner = NO_OWNER,
        inherited: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(bus)
        self.binds = binds
        self.umask = umask or 0
        self.owner = owner
        self.bound: dict[str, list[Bound]] = {}
        self.passed = PassedSockets([])
        self.is_lent = False
        """Whether another process holds them too, and keeps them when this process ends."""
        self._kept: set[tuple[str, str]] | None = None  # holder and address; None: all of them
        self._is_complete = False
        self._wanted: list[Address] = []  # by the next program
        self._inherited = {(each["holder"], each["address"]): each for each in inherited}

    def adopt(self) -> None:
        """Take what was inherited, at once: whatever happens now, somebody may be waiting in its queue."""
        for holder, (addresses, backlog) in self.binds.items():
            for address in addresses:
                inherited = self._inherited.pop((holder, str(address)), None)
                if inherited is not None:
                    self.bound.setdefault(holder, []).append(_adopt(address, inherited, backlog))
        # What is left is of a holder that has another name now, or that there is no more.
        left = {address: inherited for (_, address), inherited in self._inherited.items()}
        for holder, (addresses, backlog) in self.binds.items():
            adopted = [bound.address for bound in self.of(holder)]
            for each in addresses:
                if each not in adopted and str(each) in left:
                    self.bound.setdefault(holder, []).append(_adopt(each, left.pop(str(each)), backlog))
        for inherited in left.values():
            os.close(inherited["descriptor"])

    def start(self) -> None:
        if self._is_complete:  # they outlive a stop
            return
        self.passed = PassedSockets.take()
        for holder, (addresses, backlog) in self.binds.items():
            adopted = [bound.address for bound in self.of(holder)]
            for address in addresses:
                if address not in adopted:
                    self.bound.setdefault(holder, []).extend(self.bind(holder, address, backlog))
        self._is_complete = True

    start.priority = 20  # type: ignore[attr-defined]

    def bind(self, holder: str, address: Address, backlog: int) -> list[Bound]:
        try:
            if address.kind == "systemd":
                return [Bound(address, sock) for sock in self.passed.named(address.name, self._claimed())]
            if address.kind == "unix":
                return [_bind_unix(address, backlog, self.umask, self.owner)]
            return [_bind_inet(address, backlog, self._is_ipv6_only(address))]
        except OSError as error:
            subject = holder if _is_setting(holder) else f"The server {holder!r}"
            reason = self._own_use(address) if error.errno == errno.EADDRINUSE else None
            reason = reason or _reason(error, address, self.owner)
            raise Refusal(f"{subject} cannot listen on {address}: {reason}.") from error

    def _is_ipv6_only(self, address: Address) -> bool:
        """Return whether the site has other sockets for IPv4 on the port of this wildcard of IPv6."""
        if address.host != "::" or not address.port:
            return False
        return any(each.kind == "inet" and each.port == address.port for each in self._addresses())

    def _own_use(self, address: Address) -> str | None:
        """Return why a socket of this very site is in the way, if one is."""
        if address.kind not in ("inet", "inet6"):
            return None
        host, port = _resolve(address)[1][:2]
        for bound in (each for bounds in self.bound.values() for each in bounds):
            if bound.socket.family == socket.AF_UNIX:
                continue
            own_host, own_port = bound.socket.getsockname()[:2]
            if own_port == port and (own_host == host or {own_host, host} & WILDCARDS):
                return f"this site listens on {bound.address} already"
        return None

    def _addresses(self) -> list[Address]:
        named = [address for addresses, _ in self.binds.values() for address in addresses]
        return [*named, *self._wanted]

    def _claimed(self) -> set[str]:
        return {address.name for address in self._addresses() if address.name is not None}

    def of(self, holder: str) -> list[Bound]:
        return self.bound.get(holder, [])

    def descriptors(self, holder: str) -> list[int]:
        return [each.socket.fileno() for each in self.of(holder)]

    def own(self) -> list[Bound]:
        """Return the open sockets that are this site's alone, and not systemd's, or lent."""
        if self.is_lent:
            return []
        bounds = [each for bounds in self.bound.values() for each in bounds]
        return [each for each in bounds if each.address.kind != "systemd" and each.socket.fileno() != -1]

    def of_servers(self) -> list[Bound]:
        """Return those of them that servers serve on."""
        aliases = [holder for holder in self.bound if not _is_setting(holder)]
        return [each for alias in aliases for each in self.bound[alias] if each in self.own()]

    def unwanted(self) -> list[Bound]:
        """Return those of them that the next program has no server for."""
        return [
            bound
            for holder, bounds in self.bound.items()
            for bound in bounds
            if bound in self.of_servers() and not self._is_kept(holder, bound)
        ]

    def exit(self) -> None:
        if self.bus.execv:  # until execv(), the restart may still become an exit
            return
        self.close()

    exit.priority = 90  # type: ignore[attr-defined]

    def close(self) -> None:
        self.passed.close()
        for bound in self.own():
            bound.close()
        for bounds in self.bound.values() if self.is_lent else ():
            for bound in bounds:
                bound.socket.close()
        self.bound = {}
        self._is_complete = False

    def abort(self) -> None:
        """Leave no file behind where the process is ended at once."""
        for bound in self.own():
            bound.unlink()

    # Over a restart

    def held(self) -> list[dict[str, Any]]:
        """Return the sockets that this process has bound, as `successor.inheritance.Inheritance` has them."""
        return [
            {
                "holder": holder,
                "address": str(bound.address),
                "descriptor": bound.socket.fileno(),
                "inode": bound.inode,
            }
            for holder, bounds in self.bound.items()
            for bound in bounds
            if bound.address.kind != "systemd" and self._is_kept(holder, bound)
        ]

    def hand_on(self) -> list[dict[str, Any]]:
        """Return those that the next program wants, and close the others."""
        held = self.held()
        descriptors = {each["descriptor"] for each in held}
        for bound in self.own():
            if bound.socket.fileno() not in descriptors:
                bound.close()
        self.passed.hand_on()
        return held

    def give_away(self) -> list[dict[str, Any]]:
        """Hand on all, as what executes the next program does not live to keep them open."""
        held = self.hand_on()
        for bounds in self.bound.values():
            for bound in bounds:
                bound.socket.detach()
        self.bound = {}
        return held

    def add(self, wanted: Iterable[Mapping[str, Any]]) -> list[tuple[str, Bound]]:
        """Bind what the next program wants besides; ``wanted``: all that it wants, as `keep` has it."""
        added: list[tuple[str, Bound]] = []
        wanted = list(wanted)
        self._wanted = [parse(each["address"]) for each in wanted]
        try:
            for each in wanted:
                holder, address = each["holder"], parse(each["address"])
                if address.kind != "systemd" and address not in [bound.address for bound in self.of(holder)]:
                    (bound,) = self.bind(holder, address, each["backlog"])
                    self.bound.setdefault(holder, []).append(bound)
                    added.append((holder, bound))
        except BaseException:
            self.drop(added)
            raise
        return added

    def drop(self, added: Iterable[tuple[str, Bound]]) -> None:
        """Close again what was added."""
        for holder, bound in added:
            self.bound[holder].remove(bound)
            bound.close()

    def keep(self, wanted: Iterable[Mapping[str, Any]]) -> None:
        """Hand on no others than these, ``{"holder", "address", "backlog"}`` each."""
        self._kept = {(each["holder"], each["address"]) for each in wanted}

    def _is_kept(self, holder: str, bound: Bound) -> bool:
        return self._kept is None or (holder, str(bound.address)) in self._kept


class PassedSockets:
    """The sockets that systemd, or another supervisor that speaks its protocol, passed to this process."""

    def __init__(self, sockets: list[tuple[str, socket.socket]]) -> None:
        self._sockets = sockets

    @classmethod
    def take(cls) -> PassedSockets:
        """Take what LISTEN_FDS promises, if LISTEN_PID says that it is for this process."""
        # Twisted removes the variables when it is imported, as daphne does in INSTALLED_APPS.
        given_first = (TYPED.environment.get(key, "") for key in LISTEN_VARIABLES)
        pid, count, names = map(os.environ.pop, LISTEN_VARIABLES, given_first)
        if pid != str(os.getpid()) or not count.isdigit():
            return cls([])
        given = names.split(":")
        sockets = []
        for index in range(int(count)):
            descriptor = SYSTEMD_FIRST + index
            name = given[index] if index < len(given) else ""
            try:
                os.set_inheritable(descriptor, False)
                sockets.append((name, socket.socket(fileno=descriptor)))
            except OSError as error:
                reason = f"descriptor {descriptor} is no socket: {error.strerror}"
                raise Refusal(f"LISTEN_FDS is {count}, but {reason}.") from error
        return cls(sockets)

    def named(self, name: str | None, claimed: set[str]) -> list[socket.socket]:
        """Return the sockets of a name; for None, those whose names nobody ``claimed``."""
        found = [
            sock
            for given, sock in self._sockets
            if (given == name if name is not None else given not in claimed)
        ]
        if not found:
            names = ", ".join(given or "one without a name" for given, _ in self._sockets) or "none"
            raise OSError(errno.ENOENT, f"systemd passed no such socket (it passed {names})")
        for sock in found:
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, "the socket that systemd passed does not listen")
        return found

    def hand_on(self) -> None:
        """Leave them to the program that this process is about to execute, as they came."""
        if self._sockets:
            names = ":".join(name for name, _ in self._sockets)
            values = (str(os.getpid()), str(len(self._sockets)), names)
            os.environ.update(zip(LISTEN_VARIABLES, values, strict=True))
        for _, sock in self._sockets:
            os.set_inheritable(sock.detach(), True)
        self._sockets = []

    def close(self) -> None:
        for _, sock in self._sockets:
            sock.close()
        self._sockets = []


def _name(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        path = sock.getsockname()
        return f"unix:{path if isinstance(path, str) else os.fsdecode(path)}"
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def _is_setting(holder: str) -> bool:
    return holder.startswith("WSPBUS[")


def _adopt(address: Address, inherited: Mapping[str, Any], backlog: int) -> Bound:
    sock = socket.socket(fileno=inherited["descriptor"])
    sock.listen(backlog)  # it may be another one now
    inode = inherited["inode"]
    return Bound(address, sock, inode and tuple(inode))


def _bind_inet(address: Address, backlog: int, is_ipv6_only: bool) -> Bound:
    family, resolved = _resolve(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_ipv6_only:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(resolved)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return Bound(address, sock)


def _resolve(address: Address) -> tuple[int, Any]:
    """Return the family and the numeric form of an address; a host name may have only an IPv6 address."""
    family = socket.AF_INET6 if address.kind == "inet6" else socket.AF_INET
    try:
        found = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)
    except socket.gaierror:
        if family == socket.AF_INET6:
            raise
        family = socket.AF_INET6
        found = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)
    return family, found[0][4]


def _bind_unix(address: Address, backlog: int, umask: int, owner: Owner) -> Bound:
    path = address.path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(umask)
    try:
        with owner.at(path) as folder:
            _remove_stale(path, folder)
            sock.bind(path)
            status = folder.status()
            inode = status.st_dev, status.st_ino
            try:
                if folder.is_safe:
                    ids = owner.uid, owner.gid
                    os.chown(folder.name, *ids, dir_fd=folder.descriptor, follow_symlinks=False)
                sock.listen(backlog)
            except BaseException:
                folder.unlink_same(inode)
                raise
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return Bound(address, sock, inode)


def _remove_stale(path: str, folder: Folder) -> None:
    """Remove the socket that a dead process left; refuse any other file."""
    try:
        status = folder.status()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise OSError(errno.EEXIST, "there is a file of that name which is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            folder.unlink_same((status.st_dev, status.st_ino))
            return
        except PermissionError:
            reason = f"a socket of uid {status.st_uid} is there, which uid {os.geteuid()} may not replace"
            raise OSError(errno.EEXIST, f"{reason}: remove it") from None
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ETIMEDOUT):  # a full backlog is a live one
                raise
    raise OSError(errno.EADDRINUSE, "another process listens there")


def _reason(error: OSError, address: Address, owner: Owner) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is in use by another process"
    if error.errno == errno.EACCES and address.port:
        return "permission denied (ports below 1024 need root)"
    if error.errno == errno.EACCES and os.geteuid() == 0 and owner.uid > 0:
        return f"permission denied to uid {owner.uid}, as which root binds where others may change files"
    return (error.strerror or str(error)).lower()
