"""Faulty deploys, the error that each causes, and functions that apply them to a running site."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.processes import RunningSite

from .conftest import configure
from .load import (
    Load,
    Shop,
    addresses_of,
    attempt,
    await_that,
    await_value,
    await_version,
    pids,
    status_of,
    version_of,
)

SYNTAX = "\ndef (:\n"
EXCEPTION = "\nraise RuntimeError('broken on purpose')\n"
LISTENER = """

@bus.subscribe("start", role="worker")
def broken():
    {}
"""
PAGE = """

def version(request):
    {}
"""


class Fault(NamedTuple):
    """The text to append to a file, the reason that the site then reports, and whether with a traceback."""

    file: str
    source: str
    reason: str
    has_traceback: bool = True


FAULTS = {
    "settings-syntax": Fault("settings.py", SYNTAX, "SyntaxError: invalid syntax"),
    "settings-exception": Fault("settings.py", EXCEPTION, "RuntimeError: broken on purpose"),
    "settings-hosts": Fault("settings.py", "\nALLOWED_HOSTS = []\n", "ALLOWED_HOSTS: it is empty", False),
    "settings-asgi": Fault(
        "settings.py",
        "\nWSGI_APPLICATION = 'django.core.handlers.asgi.ASGIHandler'\n",
        "WSGI_APPLICATION: django.core.handlers.asgi.ASGIHandler is not a WSGI application",
        False,
    ),
    "models-syntax": Fault("shop/models.py", SYNTAX, "SyntaxError: invalid syntax"),
    "models-exception": Fault("shop/models.py", EXCEPTION, "RuntimeError: broken on purpose"),
    "models-exit": Fault("shop/models.py", "\nraise SystemExit(5)\n", "status 5", False),
    "urls-syntax": Fault("shop/urls.py", SYNTAX, "SyntaxError: invalid syntax"),
    "urls-exception": Fault("shop/urls.py", EXCEPTION, "RuntimeError: broken on purpose"),
    "views-syntax": Fault("shop/views.py", SYNTAX, "SyntaxError: invalid syntax"),
    "views-exception": Fault("shop/views.py", EXCEPTION, "RuntimeError: broken on purpose"),
    # AppConfig.ready imports them.
    "ready-syntax": Fault("shop/listeners.py", SYNTAX, "SyntaxError: invalid syntax"),
    "ready-exception": Fault("shop/listeners.py", EXCEPTION, "RuntimeError: broken on purpose"),
    "start-exception": Fault(
        "shop/listeners.py",
        LISTENER.format("raise RuntimeError('broken on purpose')"),
        "RuntimeError: broken on purpose",
    ),
    "start-exit": Fault(
        "shop/listeners.py", LISTENER.format("import os; os._exit(9)"), "died before it was ready", False
    ),
    "warmup-exception": Fault(
        "shop/views.py",
        PAGE.format("raise RuntimeError('broken on purpose')"),
        "RuntimeError: broken on purpose",
    ),
    "warmup-503": Fault(
        "shop/views.py", PAGE.format("return JsonResponse({}, status=503)"), "answered 503", False
    ),
}
"""Faults that a site with ``WARMUP = ["/version/"]`` meets."""

HANG = Fault(
    "shop/models.py", "\nimport time\n\nwhile True:\n    time.sleep(0.01)\n", 'WSPBUS["READY_TIMEOUT"]', False
)


def rows(names: Iterable[str], first: int) -> list[Any]:
    """Return names as the rows of a table, all but the first few of them for the second tier."""
    first_tier, extended = list(names)[:first], list(names)[first:]
    return [*first_tier, *(pytest.param(name, marks=pytest.mark.extended) for name in extended)]


@contextlib.contextmanager
def broken(shop: Shop, fault: Fault) -> Iterator[None]:
    """Deploy a new version with a fault; repair it at the end of the block."""
    path = shop.root / fault.file
    good = path.read_text()
    shop.deploy()
    path.write_text(good + fault.source)
    try:
        yield
    finally:
        path.write_text(good)


class Serving(NamedTuple):
    shop: Shop
    site: RunningSite
    addresses: list[str]


@contextlib.contextmanager
def serve(folder: Path, server: dict[str, Any]) -> Iterator[Serving]:
    """Run a site of one server on a TCP and a Unix socket, for all faults of a kind."""
    shop = Shop(folder)
    with tempfile.TemporaryDirectory() as short:  # a short path, for the Unix socket
        bind = ["127.0.0.1:0", f"unix:{short}/site.sock"]
        configure(shop, {"default": {**server, "BIND": bind}}, WARMUP=["/version/"], PIDFILE="site.pid")
        with shop.serve("-v2") as site:
            yield Serving(shop, site, addresses_of(site))
            assert site.stop() == 0
            assert site.members() == []


def fail_and_recover(serving: Serving, fault: Fault, *, method: str) -> None:
    """Call "graceful" or "restart" of the site with a fault on disk, and then without."""
    shop, site, addresses = serving
    old, address = version_of(addresses[0]), addresses[0]
    what, done = {
        "graceful": ("reload", "Reloaded after"),
        "restart": ("restart", "^Quit with"),
    }[method]
    workers = set(status_of(address)["servers"]["default"].get("workers", [site.pid]))
    before = pids(site)
    seen, times = len(site.lines), len([line for line in site.lines if re.search(done, line)])
    with Load(addresses, keep_alive=1, one_shot=1, slow=0, think=0.05) as load:
        with broken(shop, fault):
            load.wait_for_all()
            error = attempt(address, method)["error"].replace("\\n", "\n")
            failed = time.monotonic()
            load.wait_for_all(lambda answer: answer.began > failed)
        answers = load.finish()

    assert f"The {what} failed; the old code keeps serving: " in error
    assert fault.reason in error
    assert error.count("Traceback (most recent call last)") == fault.has_traceback
    assert {answer.pid for answer in answers} <= workers
    assert {answer.version for answer in answers} == {old}
    await_value(lambda: pids(site), before)
    status = status_of(address)
    assert status["condition"] == "ready"
    assert fault.reason in status["last_failure"]
    assert (shop.root / "site.pid").read_text() == f"{site.pid}\n"

    assert "error" not in attempt(address, method)
    site.wait_for_line(done, count=times + 1)
    await_version(address, shop.version)
    output = "\n".join(site.lines[seen:])
    assert output.count("Traceback (most recent call last)") == fault.has_traceback
    assert output.count(f"The {what} failed") == 1
    # Once above the traceback, and once as its last line.
    assert output.count(fault.reason) == 1 + fault.has_traceback
    assert status_of(address)["last_failure"] is None
    await_that(lambda: len(pids(site)) == len(before), site.members)


def give_up_what_hangs(site: RunningSite, shop: Shop, address: str, method: str) -> None:
    """Call a method of a site with a short READY_TIMEOUT while boots hang, and again when they do not."""
    before = pids(site)
    with Load(address, keep_alive=1, one_shot=1, slow=0, think=0.1) as load, broken(shop, HANG):
        error = attempt(address, method)["error"]
        failed = time.monotonic()
        load.wait_for_all(lambda answer: answer.began > failed)
        assert {answer.pid for answer in load.finish()} <= before
    assert HANG.reason in error
    await_value(lambda: pids(site), before)
    # Try again if the machine is too slow for the short timeout.
    await_that(lambda: HANG.reason not in attempt(address, method).get("error", ""))
    await_version(address, shop.version)
    assert "Traceback" not in site.output
