"""Requests to a site: see `finding` for the site, and `protocol` for the replies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from .address import Name
from .conversation import ControlError, Conversation, StillOpen
from .finding import GONE, HELLO_TIMEOUT, FoundSite, why_silent
from .protocol import Error, Reply, Request, Result

ANSWER_TIMEOUT = 10.0
"""Seconds for each reply to a request that needs no long time."""

END_TIMEOUT = 60.0
"""Seconds for the process of a site to end after the last reply to a stop, if its PID shows nothing.

It has none in another namespace of PIDs.
"""

CHECK_INTERVAL = 10.0
"""Seconds without a reply, after which a client without a timeout checks whether the site lives."""

MOST_UNANSWERED = 6
"""Checks in a row that may fail: a restarted site needs some time to execute its next program."""


def ask(
    site: FoundSite,
    action: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = ANSWER_TIMEOUT,
) -> Iterator[Reply]:
    """Send a request and yield the replies, as they come. The last is a `Result` or an `Error`.

    ``timeout``: seconds until each reply; None: as long as it takes while the site lives. `ControlError` if
    no reply comes. After a stop, the last reply comes when the process has ended.
    """
    try:
        conversation = Conversation(site.name, timeout=HELLO_TIMEOUT)
    except GONE:
        raise ControlError(f"The site with the PID {site.pid} has ended.") from None
    except (OSError, ControlError) as error:
        raise ControlError(f"The site with the PID {site.pid} {why_silent(error)}.") from None
    with contextlib.closing(conversation):
        conversation.send(Request(action, dict(arguments or {})))
        while True:
            reply = _await_reply(conversation) if timeout is None else conversation.receive(timeout)
            if isinstance(reply, Result | Error):
                if action == "stop":
                    _await_end(conversation)
                yield reply
                return
            yield reply


def _await_reply(conversation: Conversation) -> Reply:
    """Return the next reply, however long it takes; `ControlError` if the site does not live any more."""
    unanswered = 0
    while not conversation.has_more(CHECK_INTERVAL):
        trouble = _ping(conversation.name)
        unanswered = unanswered + 1 if trouble else 0
        if unanswered > MOST_UNANSWERED:
            raise ControlError(trouble)
    return conversation.receive(ANSWER_TIMEOUT)


def _await_end(conversation: Conversation) -> None:
    """Wait until the site closes the connection, as long as its process lives."""
    while is_running(conversation.pid):
        with contextlib.suppress(StillOpen):
            conversation.await_end(CHECK_INTERVAL)
            return
    conversation.await_end(END_TIMEOUT)


def is_running(pid: int) -> bool:
    """Return whether there is a process with a PID; 0 is none."""
    try:
        if pid > 0:
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


def _ping(name: Name) -> str:
    """Return why the process that answers requests does not live; "" if it does."""
    try:
        with contextlib.closing(Conversation(name, timeout=HELLO_TIMEOUT)) as conversation:
            conversation.send(Request("ping"))
            reply = conversation.receive(HELLO_TIMEOUT)
    except (OSError, ControlError) as error:
        return f"The site does not answer any more: {error}"
    return reply.text if isinstance(reply, Error) else ""
