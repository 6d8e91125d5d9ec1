"""Applications that are mounted beside the main one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .interfaces import Application, Environ


class Mounts:
    """Passes each request to the application at the longest prefix of its path, else to the main one."""

    def __init__(self, application: Application, mounts: Mapping[str, Application]) -> None:
        self.application = application
        # Servers pass the bytes of a path decoded as latin-1 (PEP 3333).
        encoded = {prefix.encode().decode("latin-1"): mounted for prefix, mounted in mounts.items()}
        self.mounts = sorted(encoded.items(), key=lambda mount: len(mount[0]), reverse=True)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        for prefix, application in self.mounts:
            if path == prefix or path.startswith(prefix + "/"):
                moved = {
                    **environ,
                    "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + prefix,
                    "PATH_INFO": path[len(prefix) :],
                }
                return application(moved, start_response)
        return self.application(environ, start_response)
