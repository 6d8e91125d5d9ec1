"""Messages that are part of a transaction of the project's database."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from django.db import connections

from .. import conf
from ..conf import FleetSettings
from .engines import make_engine
from .envelope import Draft, Sender, Signer


def send_in_transaction(settings: FleetSettings, channel: str, args: list[Any], using: str | None) -> None:
    """Send a message with the commit of the transaction under way; see `Engine.send_in_transaction`."""
    engine = make_engine(settings)
    sender = Sender(engine.name, socket.gethostname(), os.getpid(), "")
    draft = Draft.to(None, "message", args, channel=channel)
    alias = using or settings.options.get("database", "default")
    data = Signer(conf.secret_keys(), engine.name).sign(draft, sender, _time(alias))
    engine.send_in_transaction([(None, data)], using)


def _time(alias: str) -> float:
    """Return the time of a database; that of this machine if it cannot be the engine."""
    if alias not in connections or connections[alias].vendor != "postgresql":
        return time.time()
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
        return float(cursor.fetchone()[0])
