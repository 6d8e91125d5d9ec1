"""The policy by which workers retire: RECYCLE, REQUEST_TIMEOUT, and settings of gunicorn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...conf.findings import Problem
from ...process.reports import RetirementPolicy

if TYPE_CHECKING:
    from ...conf import ServerSettings

DEFAULT_TIMEOUT = 30
"""gunicorn's default of its ``timeout``, in seconds."""


def take_policy(settings: ServerSettings, cfg: Any) -> RetirementPolicy:
    """Return the policy of a server, and turn off gunicorn's own ``max_requests``, which it includes."""
    recycle = settings.recycle
    policy = RetirementPolicy(
        requests=recycle.requests or cfg.max_requests or None,
        requests_jitter=cfg.max_requests_jitter,
        memory=recycle.memory,
        age=recycle.age,
        request_timeout=settings.request_timeout,
    )
    cfg.set("max_requests", 0)
    cfg.set("max_requests_jitter", 0)
    return policy


def check_policy(settings: ServerSettings) -> Iterable[Problem]:
    """Find options of gunicorn that contradict RECYCLE or REQUEST_TIMEOUT."""
    options = settings.options
    yield from check_requests(settings.path("OPTIONS"), settings, options)
    timeout = options.get("timeout", DEFAULT_TIMEOUT)
    # A configuration file, which a check does not run, may set any of them: see `check_timeout_in_force`.
    if "config" not in options and is_sync(options) and isinstance(timeout, int):
        yield from check_timeout(settings.path("OPTIONS", "timeout"), settings, timeout)


def check_timeout(path: str, settings: ServerSettings, timeout: int) -> Iterable[Problem]:
    """Find a timeout of a sync worker, set at ``path``, that is not above REQUEST_TIMEOUT."""
    limit = settings.request_timeout
    if limit is not None and 0 < timeout <= limit:
        message = f"gunicorn ends a sync worker that answers a request for {timeout} seconds."
        hint = f"Set it to more than REQUEST_TIMEOUT, which is {limit:g}, or to 0 for never."
        yield Problem("W002", path, message, hint)


def check_timeout_in_force(settings: ServerSettings, cfg: Any) -> Iterable[Problem]:
    """Find the same where OPTIONS name a configuration file, once gunicorn has read it."""
    from gunicorn.workers.sync import SyncWorker  # not while gunicorn cannot be imported: see `numbers`

    options = settings.options
    if "config" in options and issubclass(cfg.worker_class, SyncWorker):
        path = settings.path("OPTIONS", "timeout" if "timeout" in options else "config")
        yield from check_timeout(path, settings, cfg.timeout)


def check_requests(path: str, settings: ServerSettings, options: Mapping[str, Any]) -> Iterable[Problem]:
    """Find a number of requests that is set twice; ``path``: that of the options."""
    if settings.recycle.requests is not None and options.get("max_requests"):
        other = settings.path("RECYCLE", "REQUESTS")
        yield Problem(
            "E021", f'{path}["max_requests"]', f"{other} says this as well.", "Leave one of them out."
        )


def is_sync(options: Mapping[str, Any]) -> bool:
    """Return whether gunicorn takes its sync worker, as it does by default, but not for several threads."""
    name = options.get("worker_class") or "sync"
    return (
        isinstance(name, str)
        and name.endswith(("sync", "SyncWorker"))
        and options.get("threads", 1) in (1, "1")
    )
