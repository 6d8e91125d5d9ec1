"""The log files of gunicorn's processes, which reopen them at SIGUSR1."""

from __future__ import annotations

import os
from _thread import start_new_thread
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

from ...process.reports import FilesReopened
from ...system.log_files import reopen


def reopening_logger(
    base: type[Any], outputs: Mapping[int, Path | None], report: Callable[[FilesReopened], None]
) -> type[Any]:
    """Return a logger class for gunicorn whose ``reopen_files`` neither truncates a file nor loses a record.

    gunicorn calls that method at SIGUSR1. Its own skips the handlers of the root logger, opens files in their
    own mode, and closes a file even if it cannot be opened again. In a worker it runs in a signal handler,
    which may interrupt the write of a record.

    ``outputs``: descriptor -> path, as in `reopen`; ``report`` sends the result to the site.
    """
    master = os.getpid()
    extends = getattr(base, "reopen_files", None) not in (None, Logger.reopen_files)

    class ReopeningLogger(base):  # type: ignore[misc]
        def reopen_files(self) -> None:
            if os.getpid() == master:  # its main loop calls this
                self._reopen_and_report()
            else:
                start_new_thread(self._reopen_and_report, ())  # a Thread has locks that this thread may hold

        def _reopen_and_report(self) -> None:
            captured = getattr(self, "logfile", None)  # with ``capture_output``, for both standard streams
            if captured is None:
                result = reopen(outputs)
            else:
                result = reopen(dict.fromkeys((captured.fileno(), 1, 2), Path(captured.name)))
            if extends:
                super().reopen_files()
            report(FilesReopened(os.getpid(), result.files, result.failures))

    return ReopeningLogger
