"""Binding the addresses of a site, and the reasons if one cannot be bound."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable
from typing import Any

from ..conf.addresses import Address
from ..system.ownership import Folder, Owner
from .bound import Bound

BACKLOG = 2048
"""Default length of the queue of clients at a listening socket."""

WILDCARDS = {"0.0.0.0", "::"}


def bind(address: Address, backlog: int, *, umask: int, owner: Owner, named: Iterable[Address]) -> Bound:
    """Bind an address and listen; `explain` gives the reason of an OSError in words.

    ``umask`` and ``owner``: for the file of a Unix socket. ``named``: all addresses of the site.
    """
    if address.kind == "unix":
        return _bind_unix(address, backlog, umask, owner)
    # A socket on :: serves IPv4, too, unless the site has a socket of IPv4 on the same port.
    is_ipv6_only = address.host == "::" and any(
        each.kind == "inet" and each.port == address.port for each in named if address.port
    )
    return _bind_inet(address, backlog, is_ipv6_only)


def explain(error: OSError, address: Address, bounds: Iterable[Bound], owner: Owner) -> str:
    """Return the reason why an address could not be bound; ``bounds``: the sockets this site has bound."""
    if error.errno == errno.EADDRINUSE:
        other = _own_conflict(address, bounds)
        if other is not None:
            return f"this site listens on {other.address} already"
        return "the address is in use by another process"
    if error.errno == errno.EACCES and address.port:
        return "permission denied (ports below 1024 need root)"
    if error.errno == errno.EACCES and os.geteuid() == 0 and owner.uid > 0:
        return f"permission denied to uid {owner.uid}, as which root binds where other users may write"
    return (error.strerror or str(error)).lower()


def _own_conflict(address: Address, bounds: Iterable[Bound]) -> Bound | None:
    """Return the socket of this site that occupies an address, if there is one."""
    if address.kind not in ("inet", "inet6"):
        return None
    host, port = resolve(address)[1][:2]
    for bound in bounds:
        if bound.socket.family == socket.AF_UNIX:
            continue
        own_host, own_port = bound.socket.getsockname()[:2]
        if own_port == port and (own_host == host or {own_host, host} & WILDCARDS):
            return bound
    return None


def _bind_inet(address: Address, backlog: int, is_ipv6_only: bool) -> Bound:
    family, resolved = resolve(address)
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


def resolve(address: Address) -> tuple[int, Any]:
    """Return the family and the numeric form of an address of IP; IPv6 if its host has no IPv4 address."""
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
    """Remove the socket file of a dead process; refuse any other file."""
    try:
        status = folder.status()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise OSError(errno.EEXIST, "a file that is no socket has this name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            folder.unlink_same((status.st_dev, status.st_ino))
            return
        except PermissionError:
            reason = f"uid {os.geteuid()} may not replace the socket of uid {status.st_uid}"
            raise OSError(errno.EEXIST, f"{reason}: remove it") from None
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ETIMEDOUT):  # a full queue has a live process
                raise
    raise OSError(errno.EADDRINUSE, "another process listens there")
