"""Autoreload: Django's own reloader in the worker, and a site that starts again when a file changes."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from django.utils import autoreload
from django.utils.translation import get_language

from ..conf import Autoreload
from ..debuggers import holds_terminal
from ..plugin import Plugin
from ..site import SiteUnreachable
from ..tracebacks import shown
from ..wspbus import Bus
from .reloaders import PollingReloader, TooManyWatches, changed_since, digest, forget_bytecode, newest_change

logger = logging.getLogger("django_wspbus")
django_logger = logging.getLogger("django.utils.autoreload")

QUIET, QUIET_OF_MANY = 0.02, 0.15
"""Seconds without a change after which an editor has written its file; a formatter, or git, all of them."""

MOST_UNREST = 2.0
MOST_REPEATS = 8
"""Boots in a row during which a file may change: more are not made by somebody who saves it."""
HELD = 0.2
"""Seconds between two looks whether a debugger still holds the terminal."""


class Autoreloader(Plugin):
    """Has the site started again when a file that it was made of changes.

    ``since``: when the boot of this process began, as `time.time_ns`; ``seen``: {path: digest} of files
    that were found changed during the boot before, as they are written by the boot itself; ``repeats``:
    {path: number of boots in a row, up to that one, during which it was changed}. A receiver of Django's
    ``file_changed`` that returns True takes care of a file itself. ``announces``: whether to say which
    reloader it is.
    """

    role = "worker"

    def __init__(
        self,
        bus: Bus,
        *,
        extra_files: Iterable[Path] = (),
        extra_dirs: Mapping[Path, str] = MappingProxyType({}),
        since: int | None = None,
        seen: Mapping[str, str] = MappingProxyType({}),
        repeats: Mapping[str, int] = MappingProxyType({}),
        announces: bool = True,
    ) -> None:
        super().__init__(bus)
        self.extra_files = extra_files
        self.extra_dirs = extra_dirs
        self.since = since
        self.seen = dict(seen)
        self.repeats = dict(repeats)
        self.announces = announces
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._booted = 0
        self._polls = False
        self._reloader: autoreload.BaseReloader | None = None
        self._changed: Path | None = None
        self._found: dict[Path, str] = {}

    @classmethod
    def of(cls, bus: Bus, settings: Autoreload | None, **told: Any) -> Autoreloader:
        """Make one of the setting AUTORELOAD; None: an edit has turned it off while the site reloads."""
        settings = settings or Autoreload()
        return cls(bus, extra_files=settings.extra_files, extra_dirs=settings.extra_dirs, **told)

    def start(self) -> None:
        if self._thread is None:
            self._stopping.clear()
            self._booted = time.time_ns()
            self._thread = threading.Thread(target=self._run, name="Autoreloader", daemon=True)
            self._thread.start()

    start.priority = 80  # type: ignore[attr-defined]

    def stop(self) -> None:
        self._stopping.set()
        if self._reloader is not None:
            self._reloader.stop()
        self._thread = None  # it may be the one that has asked for this

    stop.priority = 20  # type: ignore[attr-defined]

    def _run(self) -> None:
        get_language()  # Django watches the files of translations once it has had to do with any
        while not self._stopping.is_set():
            reloader = self._reloader = make_reloader(polls=self._polls)
            if self.announces:
                self.announces = False
                django_logger.info("Watching for file changes with %s", type(reloader).__name__)
            self._prepare(reloader)
            autoreload.autoreload_started.connect(self._extend)
            try:
                reloader.run(threading.main_thread())
            except SystemExit:
                self._reload(reloader)
            except TooManyWatches:
                self._polls = True
            except Exception:
                if self._stopping.is_set():
                    return
                logger.exception("Autoreload does not work at present.")
                self._stopping.wait(1)
            finally:
                autoreload.autoreload_started.disconnect(self._extend)

    def _prepare(self, reloader: Any) -> None:
        """Have the reloader look at what has changed before it began to watch."""
        notify = reloader.notify_file_changed

        def notify_file_changed(path: Path) -> None:
            self._changed = path
            notify(path)

        reloader.notify_file_changed = notify_file_changed
        if hasattr(reloader, "armed"):
            reloader.armed = lambda: self._look_back(reloader)
            return
        tick = reloader.tick

        def looking_back() -> Iterator[None]:
            self._look_back(reloader)
            ticker = tick()
            yield next(ticker)
            self._look_back(reloader)  # when it did begin to watch, only this reloader knows
            yield from ticker

        reloader.tick = looking_back

    def _extend(self, sender: autoreload.BaseReloader, **kwargs: Any) -> None:
        for file in self.extra_files:
            sender.extra_files.add(file.absolute())
        for folder, glob in self.extra_dirs.items():
            sender.watch_dir(folder, glob)

    def _look_back(self, reloader: Any) -> None:
        if self.since is None:
            return
        self._found = changed_since(reloader, self.since)
        for path, found in self._found.items():
            if self.seen.get(str(path)) == found:
                continue
            self.seen[str(path)] = found  # whatever comes of it, it is told once
            if self.repeats.get(str(path), 0) < MOST_REPEATS or not self._is_of_boot(path):
                reloader.notify_file_changed(path)
            elif self.repeats[str(path)] == MOST_REPEATS:
                logger.warning(
                    "Autoreload: %s changes during each start, as if the project wrote it. "
                    "That is no reason to start again any more.",
                    shown(str(path)),
                )

    def _reload(self, reloader: autoreload.BaseReloader) -> None:
        changed = [shown(str(self._changed))] if self._changed is not None else []
        self._settle(reloader)
        self._wait_for_debugger(changed)
        if self._stopping.is_set():
            return
        forget_bytecode(reloader)
        try:
            self.bus.site.publish("autoreload", changed, *self._bequest())  # type: ignore[attr-defined]
        except (SiteUnreachable, RuntimeError) as error:
            logger.error("Autoreload: %s", error)
        self._stopping.wait()

    def _bequest(self) -> tuple[dict[str, str], dict[str, int]]:
        """Return what the next process is to know of this one's boot: as ``seen`` and ``repeats``."""
        # What has changed since is what somebody has saved.
        found = {str(path): known for path, known in self._found.items() if digest(path) == known}
        of_boot = [str(path) for path in self._found if self._is_of_boot(path)]
        return found, {path: self.repeats.get(path, 0) + 1 for path in of_boot}

    def _is_of_boot(self, path: Path) -> bool:
        """Whether a file may have been written by the boot; else, it is somebody who has seen its end."""
        with contextlib.suppress(OSError):
            return path.stat().st_mtime_ns <= self._booted
        return False

    def _settle(self, reloader: autoreload.BaseReloader) -> None:
        """Wait until whoever writes has finished: a formatter or git writes more than one file."""
        deadline = time.monotonic() + MOST_UNREST
        while time.monotonic() < deadline:
            count, last = newest_change(reloader)
            quiet = QUIET if count < 2 else QUIET_OF_MANY
            left = quiet - (time.time_ns() - last) / 1e9
            if left <= 0 or self._stopping.wait(left):
                return

    def _wait_for_debugger(self, changed: list[str]) -> None:
        if holds_terminal():
            told = f"Changed: {', '.join(changed)}. Starting again once the debugger has ended."
            self.bus.log(told, level=30)  # or who has saved would wait for it
            while holds_terminal() and not self._stopping.wait(HELD):
                pass


def make_reloader(polls: bool = False) -> autoreload.BaseReloader:
    """Return the reloader that Django, or a package that has replaced it, has for this machine.

    But where Django's only polls, it is one to which the kernel tells what has changed, if it can be had,
    and if it is not said that it ``polls``.
    """
    reloader: autoreload.BaseReloader = autoreload.get_reloader()
    if type(reloader) is not autoreload.StatReloader:
        return reloader
    with contextlib.suppress(ImportError, OSError):  # no such extra; no such system; too many instances
        from .inotify import InotifyReloader

        if not polls:
            return InotifyReloader()
    return PollingReloader()
