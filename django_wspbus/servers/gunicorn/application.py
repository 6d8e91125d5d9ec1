"""gunicorn's interface to the program that embeds it."""

from __future__ import annotations

from typing import Any

from gunicorn.app.base import BaseApplication

from ...application.loading import load
from ...wspbus import Refusal
from .arbiter import SiteArbiter
from .failing import give_up
from .hooks import Hooks
from .signals import accept_signals
from .worker_class import patch_for


class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's application. Failures are reported to the site."""

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks
        super().__init__()

    def load_config(self) -> None:
        try:
            self.hooks.configure(self.cfg)
            patch = patch_for(self.cfg.settings["worker_class"].get())
        except Refusal as refusal:
            give_up(self.hooks.site, str(refusal))
        except Exception:  # of a configuration file, or of gunicorn, which would print it
            give_up(self.hooks.site)
        if patch != self.hooks.child.start.patch:
            self.hooks.child.start_again(patch)

    def run(self) -> None:
        try:
            SiteArbiter(self, self.hooks).run()
        except RuntimeError as error:  # as gunicorn's own method
            raise SystemExit(f"Error: {error}") from error

    def load(self) -> Any:
        accept_signals()
        try:
            self.hooks.application = load(self.hooks.server, self.hooks.settings.static_files)
        except Refusal as refusal:
            give_up(self.hooks.site, str(refusal), pair=self.hooks.child.pair)
        return self.hooks.application
