"""The site that a command is meant for, and the list of those that it could be meant for."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..control.client import ask
from ..control.conversation import ControlError, is_allowed
from ..control.finding import (
    DOES_NOT_ANSWER,
    HAS_ENDED,
    FoundSite,
    SeveralSites,
    SilentSite,
    SiteNotFound,
    at,
    choose,
    find,
)
from ..control.protocol import Result
from .blocks import Block, Line, Text
from .results import sites
from .status import in_a_word
from .text import as_text

LOOK = (
    "If it runs: use its network namespace (docker exec), be its user or root (sudo -u USER), "
    "and see that CONTROL is not False; name it with --socket if it is a path."
)

STATUS_TIMEOUT = 1.0
"""Seconds for each site of a list to report its state."""


class Own(NamedTuple):
    """The project of ``manage.py``, whose site is meant where no option names one."""

    settings: str
    directories: Sequence[str]
    """That of the script, then that in which it runs: the first in which a site runs counts."""


def chosen(options: argparse.Namespace, own: Own | None = None) -> FoundSite:
    """Return the site that the options name, or else the only one; `ControlError` if there is not one."""
    if options.socket is not None:
        site = at(options.socket)
        if site.trouble == HAS_ENDED:
            raise SiteNotFound(f"No site listens at {options.socket!r}.", [])
        return choose([site], pid=options.pid, project=options.project)
    found = find()
    if own is None or options.pid is not None or options.project is not None:
        return choose(found, pid=options.pid, project=options.project)
    try:
        return choose(found, project=own.settings)
    except SeveralSites as several:
        for directory in own.directories:
            if here := [site for site in several.sites if site.is_called(directory)]:
                return choose(here)
        raise


def explanation(error: ControlError) -> Iterator[Block]:
    """Yield the reason why no site was chosen, and the sites that there are."""
    yield Text(str(error), indent=0)
    if isinstance(error, SiteNotFound | SeveralSites) and error.sites:
        yield sites(list(rows(error.sites)))
    if isinstance(error, SiteNotFound):
        yield Line(LOOK)
    if isinstance(error, SilentSite) and error.site.trouble == DOES_NOT_ANSWER:
        yield Line("The action `stacks` shows what its process is doing.")


def rows(found: Iterable[FoundSite]) -> Iterator[list[str]]:
    for site in found:
        pid = as_text(site.pid or None)
        yield [pid, as_text(site.project), user_name(site.uid), as_text(site.directory), state(site)]


def as_values(error: ControlError) -> list[dict[str, Any]]:
    """Return the sites of an error for JSON."""
    if not isinstance(error, SiteNotFound | SeveralSites):
        return []
    return [
        {
            "pid": site.pid or None,
            "project": site.project or None,
            "user": user_name(site.uid),
            "directory": site.directory or None,
            "state": state(site),
        }
        for site in error.sites
    ]


def state(site: FoundSite) -> str:
    """Return the state of a site in a few words."""
    if not is_allowed(site.uid):
        return f"refused: belongs to {user_name(site.uid)}"
    if site.trouble:
        return site.trouble
    try:
        for reply in ask(site, "status", timeout=STATUS_TIMEOUT):
            if isinstance(reply, Result) and isinstance(reply.value, Mapping):
                return in_a_word(reply.value)
    except ControlError:
        pass
    return "does not answer"


def user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container need not know the users of another one
        return f"uid {uid}"
