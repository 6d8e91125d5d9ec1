"""The worker's side of autoreload: it reports its files to the launcher, and lets apps handle changes."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from django.core.signals import request_finished, request_started
from django.utils.autoreload import BaseReloader, autoreload_started, file_changed
from django.utils.translation import get_language

from ..conf import Autoreload, Settings, app_folders, is_debug
from ..development.debuggers import holds_terminal
from ..development.launch import CHANGED, WATCH
from ..development.watching.files import WatchList
from ..process.site import SiteUnreachable
from ..project import modules
from ..project.libraries import is_library_file
from ..project.tracebacks import shown
from ..wspbus import Bus
from ..wspbus.plugin import Plugin

logger = logging.getLogger("django_wspbus")
django_logger = logging.getLogger("django.utils.autoreload")

PYTHON = "**/*.py"

DEBUGGER_INTERVAL = 0.2
"""Seconds between two checks whether a debugger still holds the terminal."""


class Reloader(BaseReloader):
    """The sender of Django's signals, on which receivers call `watch_dir` to have more files watched."""


class Autoreloader(Plugin):
    """Reports the files of the worker, and restarts the site if one of them changes.

    The launcher watches these files, and asks about those that have changed. A receiver of Django's
    ``file_changed`` handles a file by returning True. ``poll``: POLL of AUTORELOAD.
    """

    role = "worker"

    def __init__(
        self,
        bus: Bus,
        *,
        extra_files: Iterable[Path] = (),
        extra_dirs: Mapping[Path, str] = MappingProxyType({}),
        poll: bool | None = None,
    ) -> None:
        super().__init__(bus)
        self.extra_files = extra_files
        self.extra_dirs = extra_dirs
        self.poll = poll
        self._reloader = Reloader()
        self._known: set[str] = set()
        """The files that have been reported."""
        self._modules = 0
        self._request = threading.local()
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        """The calls that the thread has to make; None ends it."""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, bus: Bus, settings: Settings) -> Autoreloader:
        """Return an Autoreloader for AUTORELOAD, which an edit may have turned off while the site reloads.

        The programs of PROCESSES may have loaded any Python code of the project.
        """
        autoreload = settings.autoreload or Autoreload()
        folders = dict(autoreload.extra_dirs)
        if any(program.runs(debug=is_debug()) for program in settings.processes.values()):
            found = {Path(each): PYTHON for each in app_folders() if not is_library_file(each)}
            folders = found | folders
        return cls(bus, extra_files=autoreload.extra_files, extra_dirs=folders, poll=autoreload.poll)

    def start(self) -> None:
        if self._thread is None:
            self._stopping.clear()
            self._modules = len(sys.modules)
            request_started.connect(self._note_start)
            request_finished.connect(self._note_end)
            self._thread = threading.Thread(target=self._run, name="Autoreloader", daemon=True)
            self._thread.start()

    start.priority = 80  # type: ignore[attr-defined]

    def stop(self) -> None:
        self._stopping.set()
        request_started.disconnect(self._note_start)
        request_finished.disconnect(self._note_end)
        self._calls.put(None)
        self._thread = None  # not joined, because it may have asked for this stop

    stop.priority = 20  # type: ignore[attr-defined]

    def subscribe(self) -> None:
        super().subscribe()
        self.bus.subscribe(CHANGED, self.ask_about, role=self.role)

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.bus.unsubscribe(CHANGED, self.ask_about)

    def ask_about(self, paths: Sequence[str]) -> None:
        """Ask the receivers about changed files, in the thread of this plugin."""
        self._calls.put(partial(self._answer, paths))

    def _note_start(self, **kwargs: Any) -> None:
        self._request.began = time.time_ns()

    def _note_end(self, **kwargs: Any) -> None:
        if len(sys.modules) != self._modules:  # the request has imported modules
            self._modules = len(sys.modules)
            began = getattr(self._request, "began", time.time_ns())
            self._calls.put(partial(self._report_imports, began))

    def _run(self) -> None:
        call: Callable[[], None] | None = self._begin
        while call is not None:
            try:
                call()
            except (SiteUnreachable, RuntimeError) as error:
                if not self._stopping.is_set():
                    logger.error("Autoreload: %s", error)
            call = self._calls.get()

    # What is watched

    def _begin(self) -> None:
        get_language()  # Django watches translations only once a translation has been activated
        self._log_failures(autoreload_started.send_robust(sender=self._reloader), "autoreload_started failed")
        self._report(self._watch_list())

    def _watch_list(self) -> WatchList:
        self._known = {os.path.abspath(file) for file in modules.files()}
        extra = {os.path.abspath(file) for file in (*self.extra_files, *self._reloader.extra_files)}
        globs = [
            [str(folder), glob] for folder, globs in self._reloader.directory_globs.items() for glob in globs
        ]
        globs += [[os.path.abspath(folder), glob] for folder, glob in self.extra_dirs.items()]
        return WatchList(sorted(self._known | extra), globs, self.poll)

    def _report_imports(self, began: int) -> None:
        """Report the files that a request has imported; ``began``: its start, as `time.time_ns`."""
        before = self._known
        self._known = before | {os.path.abspath(file) for file in modules.files()}
        if self._known != before:
            self._report(WatchList(sorted(self._known - before), [], self.poll), began)

    def _report(self, watched: WatchList, since: int | None = None) -> None:
        self.bus.site.publish(WATCH, asdict(watched), since)  # type: ignore[attr-defined]

    # What has changed

    def _answer(self, paths: Sequence[str]) -> None:
        """Restart the site unless receivers handle all these files."""
        changed = [path for path in paths if not self._is_handled(path)]
        if changed:
            django_logger.info("%s changed, reloading.", changed[0])
            changed = [shown(path) for path in changed]
            self._wait_for_debugger(changed)
            if not self._stopping.is_set():
                self.bus.site.publish("autoreload", changed)  # type: ignore[attr-defined]

    def _is_handled(self, path: str) -> bool:
        # Django resolves the paths of modules, but not those of templates.
        file = Path(path).resolve() if path in self._known else Path(path)
        answers = file_changed.send_robust(sender=self._reloader, file_path=file)
        self._log_failures(answers, f"file_changed failed at {shown(path)}")
        return any(answer and not isinstance(answer, Exception) for _, answer in answers)

    def _log_failures(self, answers: list[tuple[Any, Any]], what: str) -> None:
        for _, answer in answers:
            if isinstance(answer, Exception):  # the receiver may be the project's
                logger.error("Autoreload: a receiver of %s.", what, exc_info=answer)

    def _wait_for_debugger(self, changed: list[str]) -> None:
        if holds_terminal():
            text = f"Changed: {', '.join(changed)}. Restarting once the debugger has ended."
            self.bus.log(text, level=30)  # the developer who saved the file expects a restart
            while holds_terminal() and not self._stopping.wait(DEBUGGER_INTERVAL):
                pass
