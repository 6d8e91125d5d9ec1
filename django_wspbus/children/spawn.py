"""Starting the child of a server from the site process."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, NoReturn

from .. import conf
from ..development.debuggers import reserved_descriptors
from ..successor import start as successor
from ..successor.order import Order
from ..successor.program import SYSTEMD_FIRST
from ..successor.values import scratch_file
from ..system.terminal import options_of_child

MOST_WORKERS = 1000
"""A higher number is a mistake, and would exhaust the machine."""


@dataclass(frozen=True, slots=True)
class ChildStart:
    """The task of a child."""

    alias: str
    """The alias of its server."""
    run: str
    """The function that it runs, as "module:function": it is called with a `StartedChild`."""
    patch: str | None = None
    """"gevent" if the child is patched before it imports anything of the project."""
    workers: int | None = None
    """The number of its workers; None: that of the settings."""
    watches_files: bool = False
    """True if its workers ask the site to restart when a file changes."""
    stdout: str | None = None
    """The file of its standard output, if the site is a daemon with such a file."""
    stderr: str | None = None
    """The same for standard error."""

    @property
    def outputs(self) -> dict[int, Path | None]:
        """The files of its standard streams, by descriptor: see `system.log_files.reopen`."""
        return {
            number: None if path is None else Path(path)
            for number, path in ((1, self.stdout), (2, self.stderr))
        }


@dataclass(frozen=True, slots=True)
class StartedChild:
    """The argument of the function that a child runs."""

    start: ChildStart
    overrides: Mapping[str, Any]
    """Settings that the command line overrides."""
    sockets: int
    """The number of listening sockets, from descriptor 3 on."""
    pair: socket.socket
    """The child's end of the pair of sockets that joins it with the site."""
    refusal: int
    """The descriptor of the file in which `successor.runner` reports a failure before this point."""

    def start_again(self, patch: str | None) -> NoReturn:
        """Execute the command once more, with another patch."""
        order = {"child": asdict(replace(self.start, patch=patch))}
        successor.execute(
            order,
            _label(self.start),
            sockets=range(SYSTEMD_FIRST, SYSTEMD_FIRST + self.sockets),
            descriptors={"pair": self.pair.fileno(), "report": self.refusal},
            patch=patch,
        )


def spawn_server(
    start: ChildStart, descriptors: Sequence[int]
) -> tuple[subprocess.Popen[bytes], socket.socket, IO[bytes]]:
    """Start the child of a server.

    Return the process, the site's end of the pair of sockets that joins them, and the file in which the
    process reports a failure before it runs its function.
    """
    ours, theirs = socket.socketpair()
    refusal = scratch_file()
    try:
        with (
            theirs,
            options_of_child(reads=conf.is_debug()) as options,
            reserved_descriptors(len(descriptors)) as reserved,
        ):
            process = successor.spawn(
                {"child": asdict(start)},
                _label(start),
                sockets=descriptors,
                descriptors={"pair": theirs.fileno(), "report": refusal.fileno()},
                patch=start.patch,
                options=options,
                reserved=reserved,
            )
    except BaseException:
        ours.close()
        refusal.close()
        raise
    return process, ours, refusal


def _label(start: ChildStart) -> tuple[str, str]:
    """Return the words that the command line of the child shows."""
    return "serve", start.alias


def run_child(order: Order, overrides: Mapping[str, Any]) -> None:
    """In the child: run the function of its server."""
    pair = socket.socket(fileno=order.descriptors["pair"])
    start = ChildStart(**order.values["child"])
    module, _, function = start.run.partition(":")
    child = StartedChild(start, overrides, order.sockets, pair, order.descriptors["report"])
    getattr(importlib.import_module(module), function)(child)


def read_refusal(file: IO[bytes]) -> tuple[str, int] | None:
    """Return the reason and the status of a child that failed before it ran its function, if it did."""
    file.seek(0)
    written = file.read()
    if not written:
        return None
    values = json.loads(written)
    return values["refused"], values["status"]
