"""gunicorn's logs under the project's LOGGING, except those that OPTIONS send elsewhere.

Under DEBUG its request lines are those of Django's own server, in the same colours.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from ... import conf

ACCESS_OPTIONS = ("accesslog", "access_log_format")

requests = logging.getLogger("django.server")


def project_logger(cfg: Any, options: Mapping[str, Any]) -> type[Any]:
    """Return a logger class for gunicorn: the one it would take, with its loggers left to the project.

    A log for which OPTIONS name a file, a level or a format is gunicorn's own, as asked.
    """
    base: type[Any] = cfg.logger_class  # or the one that statsd wants
    own_config = any(
        options.get(name) for name in ("logconfig", "logconfig_dict", "logconfig_json", "syslog")
    )
    if own_config or options.get("capture_output"):
        return base
    own_errors = options.get("errorlog") is not None
    own_access = options.get("accesslog") is not None
    is_access_configured = any(options.get(name) is not None for name in ACCESS_OPTIONS)
    has_request_lines = (
        conf.is_debug() and not is_access_configured and not conf.logging_names("gunicorn.access")
    )
    if not own_errors:
        cfg.set("errorlog", None)
    project_level = logging.getLogger("gunicorn.error").level

    class ProjectLogger(base):  # type: ignore[misc]
        def setup(self, cfg: Any) -> None:
            super().setup(cfg)
            if not own_errors:
                self.error_log.propagate = True
                if "loglevel" not in options:
                    self.error_log.setLevel(project_level)
            if not own_access:
                self.access_log.propagate = True

        @property
        def access_log_enabled(self) -> bool:
            named = not own_access and conf.logging_names("gunicorn.access")
            return named or bool(super().access_log_enabled)

        def access(self, resp: Any, req: Any, environ: Mapping[str, Any], request_time: Any) -> None:
            super().access(resp, req, environ, request_time)
            if has_request_lines:
                log_request(resp, req, environ)

    return ProjectLogger


def log_request(resp: Any, req: Any, environ: Mapping[str, Any]) -> None:
    """Log a request as Django's own server does: to ``django.server``, at a level that its status says."""
    status = int(str(resp.status).split(None, 1)[0])
    # gunicorn does not count what the kernel sends from a file.
    size = resp.sent or (environ["REQUEST_METHOD"] != "HEAD" and resp.response_length) or 0
    request_line = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} {environ['SERVER_PROTOCOL']}"
    level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
    requests.log(
        level,
        '"%s" %s %s',
        *(request_line, status, size),
        extra={
            "request": req,
            "status_code": status,
            "server_time": time.strftime("%d/%b/%Y %H:%M:%S"),
        },
    )
