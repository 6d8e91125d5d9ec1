"""The directories that a site writes to, for the sandbox of its unit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..conf import Settings
from ..conf.written import written_directories
from ..plugins.privileges import log_files

SERVER_FILES = ("accesslog", "errorlog", "pidfile")
"""The OPTIONS of gunicorn that name files that it writes."""

SERVER_DIRECTORIES = ("worker_tmp_dir",)


def writable_paths(settings: Settings, directory: str) -> list[str]:
    """Return the directories that a site writes to, sorted; ``directory``: that in which it is started.

    A directory within another one of them is left out.
    """
    paths = {os.path.normpath(os.path.join(directory, path)) for path in _paths(settings)}
    return sorted(path for path in paths if not any(_is_in(path, each) for each in paths))


def _paths(settings: Settings) -> Iterator[str]:
    yield from written_directories()
    files = [path for path, _ in log_files()]
    for path in (settings.pidfile, settings.control):
        files += [str(path)] if isinstance(path, Path) else []
    for server in settings.servers.values():
        options = server.options
        files += [str(options[name]) for name in SERVER_FILES if options.get(name, "-") not in ("-", None)]
        yield from (str(options[name]) for name in SERVER_DIRECTORIES if options.get(name))
    yield from map(os.path.dirname, files)


def _is_in(path: str, folder: str) -> bool:
    return path != folder and path.startswith(folder.rstrip(os.sep) + os.sep)
