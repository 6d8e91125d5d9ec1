"""Another host for tests: a network namespace, and a pair of devices that connects it with the system's."""

from __future__ import annotations

import os
import secrets
import subprocess
from types import TracebackType
from typing import Self

import pytest

from ..engines import find

NOWHERE = "02:00:00:00:00:01"
"""The address of no device."""


class Network:
    """The way to another host, as a context manager; processes that run `within` it are on that host.

    ``near`` and ``far``: the addresses of the two hosts, of a network that is for examples (RFC 5737).
    """

    def __init__(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root makes network namespaces")
        self._ip = find("ip")
        self.name = f"wspbus-{secrets.token_hex(4)}"
        first = 4 * secrets.randbelow(64)
        self.near, self.far = f"203.0.113.{first + 1}", f"203.0.113.{first + 2}"
        self._here, self._there = f"w{self.name[-8:]}a", f"w{self.name[-8:]}b"

    @property
    def within(self) -> list[str]:
        """The beginning of a command that runs on the other host."""
        return [find("nsenter"), f"--net=/run/netns/{self.name}", "--"]

    def __enter__(self) -> Self:
        self._run("netns", "add", self.name)
        try:
            pair = ["type", "veth", "peer", "name", self._there, "netns", self.name]
            self._run("link", "add", self._here, *pair)
            for options, device, address in self._ends():
                self._run(*options, "address", "add", f"{address}/30", "dev", device)
                self._run(*options, "link", "set", device, "up")
            self._run("-n", self.name, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("netns", "delete", self.name)  # and so the devices

    def cut(self) -> None:
        """Lose all packets in both directions, without a word to either host."""
        for (options, device, _), (*_, other) in zip(self._ends(), reversed(self._ends()), strict=True):
            entry = ["replace", other, "lladdr", NOWHERE, "dev", device, "nud", "permanent"]
            self._run(*options, "neighbour", *entry)

    def mend(self) -> None:
        """Lose no packets any more."""
        for (options, device, _), (*_, other) in zip(self._ends(), reversed(self._ends()), strict=True):
            self._run(*options, "neighbour", "delete", other, "dev", device)

    def _ends(self) -> list[tuple[list[str], str, str]]:
        return [([], self._here, self.near), (["-n", self.name], self._there, self.far)]

    def _run(self, *arguments: str) -> None:
        subprocess.run([self._ip, *arguments], check=True, timeout=30)
