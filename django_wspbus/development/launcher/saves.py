"""Changes that a developer has made, apart from those that the project makes itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from ..watching.files import digest

MOST_REPEATS = 8
"""Boots in a row during which a file may change: a developer does not save it during more of them."""


class Saves:
    """Distinguishes saves of the developer from files that the project writes whenever it boots.

    A change during a boot counts unless the boot before has left the same contents. A file that changes
    during each boot counts `MOST_REPEATS` times; ``say(line)`` then warns the developer.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._before: dict[str, str] = {}
        """{path: digest} of files that changed during the boot before this one."""
        self._written: dict[str, str] = {}
        """The same of this boot."""
        self._repeats: dict[str, int] = {}
        """{path: number of boots in a row, up to this one, during which the file changed}."""

    def begin_boot(self) -> None:
        self._repeats = {path: self._repeats[path] for path in self._written}
        self._before, self._written = self._written, {}

    def reasons(self, paths: Iterable[str], booted: int | None) -> list[str]:
        """Return the changed files that count.

        ``booted``: the end of the last boot, as `time.time_ns`; None: it has not ended.
        """
        return [path for path in paths if self._counts(path, booted)]

    def _counts(self, path: str, booted: int | None) -> bool:
        if booted is not None and not _is_older(path, booted):
            for known in (self._before, self._written, self._repeats):
                known.pop(path, None)
            return True
        if path not in self._written:
            self._repeats[path] = self._repeats.get(path, 0) + 1
        self._written[path] = digest(path)
        if self._written[path] == self._before.get(path):
            return False
        if self._repeats[path] == MOST_REPEATS + 1:
            self._say(
                f"{path} changed during {MOST_REPEATS} boots in a row, as if the project wrote it: "
                "its changes during boots are ignored from now on."
            )
        return self._repeats[path] <= MOST_REPEATS


def _is_older(path: str, moment: int) -> bool:
    """Return True if a file exists, and was last changed before a moment."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return max(status.st_mtime_ns, status.st_ctime_ns) <= moment
    return False
