"""Deploys that cannot serve: what is wrong with them, and what is to be told of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from .load import Shop

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
    """What is added to the end of a file, and what the reason says then; whether with a traceback."""

    file: str
    source: str
    told: str
    has_traceback: bool = True


FAULTS = {
    "settings-syntax": Fault("settings.py", SYNTAX, "SyntaxError: invalid syntax"),
    "settings-exception": Fault("settings.py", EXCEPTION, "RuntimeError: broken on purpose"),
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
"""Each is to be met by a site with ``WARMUP = ["/version/"]``."""

HANG = Fault("shop/models.py", "\nimport time\n\ntime.sleep(60)\n", 'WSPBUS["READY_TIMEOUT"]', False)


@contextlib.contextmanager
def broken(shop: Shop, fault: Fault) -> Iterator[None]:
    """Deploy a new version that has a fault, which is mended in the end."""
    path = shop.root / fault.file
    good = path.read_text()
    shop.deploy()
    path.write_text(good + fault.source)
    try:
        yield
    finally:
        path.write_text(good)
