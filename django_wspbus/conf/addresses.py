"""The addresses that a server listens on, as BIND has them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

FORMS = '"host:port", "[::1]:8000", ":8000", "unix:/run/site.sock", "systemd" or "systemd:NAME"'

_INET = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<host>[^:\[\]/\s]*)):(?P<port>[^:]*)")
_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Address:
    """One parsed address: ``kind`` is "inet", "inet6", "unix" or "systemd"."""

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""
    name: str | None = None

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "systemd":
            return "systemd" if self.name is None else f"systemd:{self.name}"
        return f"[{self.host}]:{self.port}" if self.kind == "inet6" else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        return self.host in ("0.0.0.0", "::")

    def clashes_with(self, other: Address) -> bool:
        """Return whether only one of the two can be bound."""
        if self.kind != other.kind:
            return False
        if self.kind in ("unix", "systemd"):
            return self == other
        same_host = self.host == other.host or self.is_wildcard or other.is_wildcard
        return same_host and self.port == other.port != 0


def parse(text: str) -> Address:
    """Parse one address; a ValueError says in a sentence what is wrong with it."""
    if text == "systemd":
        return Address("systemd")
    if text.startswith("systemd:"):
        name = text.removeprefix("systemd:")
        if not name:
            raise ValueError(f"{text!r} lacks the name after the colon.")
        return Address("systemd", name=name)
    if text.startswith("unix:"):
        return _parse_unix(text)
    return _parse_inet(text)


def _parse_unix(text: str) -> Address:
    path = text.removeprefix("unix:")
    if path.startswith("//"):
        path = path.removeprefix("//")  # as in unix:///run/site.sock
    if not path.startswith("/"):
        raise ValueError(f"{text!r} lacks an absolute path, as in unix:/run/site.sock.")
    if len(path.encode()) > 107:
        raise ValueError(f"{text!r} is longer than the 107 bytes that a Unix socket's path may have.")
    return Address("unix", path=path)


def _parse_inet(text: str) -> Address:
    match = _INET.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an address.")
    port = match["port"]
    if not port.isascii() or not port.isdigit():
        raise ValueError(f"{text!r} has no port number after the colon.")
    if int(port) > 65535:
        raise ValueError(f"{text!r} has a port out of range: it must be from 0 to 65535.")
    if match["ipv6"] is not None:
        try:
            host = str(ipaddress.IPv6Address(match["ipv6"]))
        except ValueError:
            raise ValueError(f"{text!r} has no IPv6 address between the brackets.") from None
        return Address("inet6", host, int(port))
    return Address("inet", _host(match["host"], text), int(port))


def _host(host: str, text: str) -> str:
    if host in ("", "0", "*"):
        return "0.0.0.0"
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError(f"{text!r} has no IPv4 address before the colon.") from None
    if not _HOST.fullmatch(host):
        raise ValueError(f"{text!r} has no host name before the colon.")
    return host.lower()
