"""The functions that a child with gunicorn runs."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from gunicorn.errors import HaltServer

from ... import conf
from ...children.spawn import StartedChild
from ...process.asking import RemoteSite
from ...process.reports import Expected
from ...wspbus import Refusal
from .application import Application
from .failing import give_up
from .hooks import Hooks
from .signals import accept_signals


def run(child: StartedChild) -> None:
    """Serve until the site ends this child. Report an earlier failure to the site, and do not print it."""
    application = make_application(child)
    os.register_at_fork(after_in_parent=accept_signals)
    try:
        application.run()
    except HaltServer as halt:  # a worker failed to boot while gunicorn was stopping already
        raise SystemExit(halt.exit_status) from None


def check(child: StartedChild) -> NoReturn:
    """Load all that `run` would load, report the outcome to the site, and wait to be ended."""
    application = make_application(child)
    application.wsgi()
    application.hooks.site.report(Expected(workers=0))
    while True:
        signal.pause()


def make_application(child: StartedChild) -> Application:
    site = RemoteSite(child.pair, "master")
    alias = child.start.alias
    try:
        settings, problems = conf.read(child.overrides)
        if settings is None:
            raise Refusal("\n".join(problem.line for problem in problems if problem.is_error))
        if alias not in settings.servers:
            raise Refusal(
                f"the settings on disk have no server {alias!r} any more: restart the site if it is to go."
            )
        return Application(Hooks(child, settings, site))
    except Refusal as refusal:
        give_up(site, str(refusal))
    except Exception:  # the project's own code: anything may come
        give_up(site)
