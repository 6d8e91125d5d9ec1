"""The policy by which workers retire: RECYCLE, REQUEST_TIMEOUT, and settings of gunicorn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...process.reports import RetirementPolicy

if TYPE_CHECKING:
    from ...conf import ServerSettings


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
