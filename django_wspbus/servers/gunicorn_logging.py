"""gunicorn's logs under the project's LOGGING, but for those that OPTIONS send elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from .. import conf


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

    return ProjectLogger
