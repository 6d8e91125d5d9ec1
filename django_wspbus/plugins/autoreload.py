"""Autoreload: Django's own reloader in the worker, and a site that starts again when a file changes."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from django.utils import autoreload
from django.utils.translation import get_language

from ..conf import Autoreload
from ..development.debuggers import holds_terminal
from ..development.reloading.reloaders import (
    PollingReloader,
    TooManyWatches,
    changed_since,
    forget_bytecode,
    newest_change,
)
from ..development.watching.files import LONGEST, QUIET, QUIET_FOR_MANY, digest
from ..development.watching.mounts import Mounts
from ..process.site import SiteUnreachable
from ..project import libraries
from ..project.tracebacks import shown
from ..wspbus import Bus
from ..wspbus.plugin import Plugin

logger = logging.getLogger("django_wspbus")
django_logger = logging.getLogger("django.utils.autoreload")

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
    reloader it is; ``poll``: as POLL of AUTORELOAD.
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
        poll: bool | None = None,
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
        self._poll = poll
        self._has_failed = False
        self._is_own = False
        """Whether to do without what a package has put in the place of Django's reloader."""
        self._reason = ""
        self._noticed = 0.0
        self._reloader: autoreload.BaseReloader | None = None
        self._changed: Path | None = None
        self._found: dict[Path, str] = {}

    @classmethod
    def of(cls, bus: Bus, settings: Autoreload | None, **told: Any) -> Autoreloader:
        """Make one of the setting AUTORELOAD; None: an edit has turned it off while the site reloads."""
        settings = settings or Autoreload()
        files, folders = settings.extra_files, settings.extra_dirs
        return cls(bus, extra_files=files, extra_dirs=folders, poll=settings.poll, **told)

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
            reloader = self._reloader = self._make_reloader()
            self._prepare(reloader)
            autoreload.autoreload_started.connect(self._extend)
            try:
                reloader.run(threading.main_thread())
            except SystemExit:
                self._reload(reloader)
            except TooManyWatches:
                self._poll = True
                self._reason = ", as the limit fs.inotify.max_user_watches is reached"
            except Exception:
                if self._stopping.is_set():
                    return
                self._replace(reloader)
            finally:
                autoreload.autoreload_started.disconnect(self._extend)

    def _make_reloader(self) -> autoreload.BaseReloader:
        reloader = make_reloader(self._poll, is_own=self._is_own)
        if self.announces:
            name = type(reloader).__name__
            reason = self._reason or why(reloader, self._poll, self._folders())
            django_logger.info("Watching for file changes with %s%s", name, reason)
        return reloader

    def _folders(self) -> set[str]:
        files = [*libraries.project_files(), *(str(file.absolute()) for file in self.extra_files)]
        return {os.path.dirname(file) for file in files} | {str(path.absolute()) for path in self.extra_dirs}

    def _replace(self, reloader: autoreload.BaseReloader) -> None:
        """Do without a reloader that has failed: with our own, which polls if that fails, too."""
        name = type(reloader).__name__
        self._reason = f", as {name} has failed"
        if type(reloader) is PollingReloader:
            if not self._has_failed:
                logger.exception("Autoreload: %s has failed; it is tried again every second.", name)
            self._has_failed = True
            self._stopping.wait(1)
        else:
            logger.exception("Autoreload: %s has failed; another one takes its place.", name)
            self._poll = True if self._is_own else self._poll
            self._is_own = True

    def _prepare(self, reloader: Any) -> None:
        """Make the reloader look at what has changed before it began to watch."""
        notify = reloader.notify_file_changed

        def notify_file_changed(path: Path) -> None:
            self._changed = path
            self._noticed = time.monotonic()
            try:
                notify(path)
            except Exception:  # the receiver may be the project's
                logger.exception("Autoreload: a receiver of file_changed failed at %s.", shown(str(path)))

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
        """Wait until all is written: a formatter or git writes more than one file."""
        deadline = time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            count, last = newest_change(reloader)
            passed = min((time.time_ns() - last) / 1e9, time.monotonic() - self._noticed)
            left = (QUIET if count < 2 else QUIET_FOR_MANY) - passed
            if left <= 0 or self._stopping.wait(left):
                return

    def _wait_for_debugger(self, changed: list[str]) -> None:
        if holds_terminal():
            told = f"Changed: {', '.join(changed)}. Starting again once the debugger has ended."
            self.bus.log(told, level=30)  # or who has saved would wait for it
            while holds_terminal() and not self._stopping.wait(HELD):
                pass


def make_reloader(poll: bool | None = None, *, is_own: bool = False) -> autoreload.BaseReloader:
    """Return the reloader that Django, or a package that has replaced it, has for this machine.

    Where Django's only polls, the kernel reports changes to ours, if it can. ``poll``: True has ours poll
    everywhere, None where changes raise no events, False nowhere. ``is_own``: not that of a package.
    """
    if poll:
        return PollingReloader()
    reloader: autoreload.BaseReloader = autoreload.get_reloader()
    if type(reloader) is not autoreload.StatReloader and not is_own:
        return reloader
    with contextlib.suppress(ImportError, OSError):  # not installed; no such system; too many instances
        from ..development.reloading.inotify import InotifyReloader

        return InotifyReloader(is_suspected=poll is None)
    return PollingReloader()


def why(reloader: autoreload.BaseReloader, poll: bool | None, folders: Iterable[str]) -> str:
    """Return why it is this reloader, as the end of a sentence; nothing where that is no question."""
    if poll:
        return ', as WSPBUS["AUTORELOAD"]["POLL"] is True'
    if type(reloader) is PollingReloader:
        return ", as inotify cannot be had"
    mounts = Mounts()
    silent = ", ".join(sorted({str(mount) for folder in folders if (mount := mounts.silent(folder))}))
    if poll is False or not silent:
        return ""
    if hasattr(reloader, "armed"):
        return f", and by polling of {silent}, where changes raise no events"
    return f'. It may miss changes of {silent}: then set WSPBUS["AUTORELOAD"]["POLL"] to True'
