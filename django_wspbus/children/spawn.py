"""Starting the child of a server from the site process."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import IO, Any, NoReturn

from .. import conf
from ..development.debuggers import reserved_descriptors
from ..successor import start
from ..successor.order import Order
from ..successor.program import SYSTEMD_FIRST
from ..successor.values import scratch_file
from ..system.terminal import options_of_child


def spawn_server(
    alias: str,
    run: str,
    descriptors: Sequence[int],
    told: Mapping[str, Any] = MappingProxyType({}),
    patch: str | None = None,
) -> tuple[subprocess.Popen[bytes], socket.socket, IO[bytes]]:
    """Start the child of a server: ``function(start, pair)`` of ``run``, "module:function".

    ``start`` has "alias", "run" and what else is ``told``; ``patch``: "gevent" if the child is to be patched
    before it imports anything of the project. Returns the process, the site's end of the pair that joins
    them, and the file in which the process says why it did not get as far as that function.
    """
    ours, theirs = socket.socketpair()
    report = scratch_file()
    child = {"alias": alias, "run": run, "patch": patch, **told}
    try:
        with (
            theirs,
            options_of_child(reads=conf.is_debug()) as options,
            reserved_descriptors(len(descriptors)) as reserved,
        ):
            others = {"pair": theirs.fileno(), "report": report.fileno()}
            process = start.spawn(
                {"child": child},
                ("serve", alias),
                sockets=descriptors,
                descriptors=others,
                patch=patch,
                options=options,
                reserved=reserved,
            )
    except BaseException:
        ours.close()
        report.close()
        raise
    return process, ours, report


def run_child(order: Order, overrides: Mapping[str, Any]) -> None:
    """In the child: run the function of its server.

    ``overrides``: what the command line lays over the settings.
    """
    pair = socket.socket(fileno=order.descriptors["pair"])
    child = {
        **order.values["child"],
        "overrides": overrides,
        "sockets": order.sockets,
        "report": order.descriptors["report"],
    }
    module, _, function = child["run"].partition(":")
    getattr(importlib.import_module(module), function)(child, pair)


def start_again(child: Mapping[str, Any], pair: socket.socket, patch: str | None) -> NoReturn:
    """In the child: execute the command once more, with another patch.

    ``child``: what its function got as ``start``.
    """
    sockets = range(SYSTEMD_FIRST, SYSTEMD_FIRST + child["sockets"])
    descriptors = {"pair": pair.fileno(), "report": child["report"]}
    start.execute(
        {"child": {**child, "patch": patch}},
        ("serve", child["alias"]),
        sockets=sockets,
        descriptors=descriptors,
        patch=patch,
    )


def read_report(report: IO[bytes]) -> tuple[int, str] | None:
    """Return the status and the reason that a child has reported which did not get as far as its function."""
    report.seek(0)
    written = report.read()
    if not written:
        return None
    values = json.loads(written)
    return values["status"], values["refused"]
