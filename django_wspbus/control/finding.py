"""The sites on this machine, found by their control sockets, and the choice of one of them."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .address import Name, listed
from .conversation import ControlError, Conversation, FalseSite, is_allowed
from .protocol import MISUSED, Error, Request, Result

HELLO_TIMEOUT = 1.0
"""Seconds for a site to say which one it is."""

DOES_NOT_ANSWER = "does not answer: it is starting, or stopped, or C code holds the GIL"

HAS_ENDED = "has ended: nothing listens there"

GONE = (ConnectionRefusedError, FileNotFoundError)
"""The errors of a connection to a socket on which nothing listens."""


@dataclass(frozen=True, slots=True)
class FoundSite:
    """A site that listens on a control socket. Facts that are not known are empty."""

    name: Name
    uid: int
    """Its user."""
    pid: int
    """Its PID, in its own namespace of PIDs."""
    project: str = ""
    settings: str = ""
    directory: str = ""
    version: str = ""
    trouble: str = ""
    """The reason why it cannot be asked: it is another user's, or does not answer."""
    is_verified: bool = field(default=False, compare=False)
    """True if its socket belongs to the user that its name claims."""

    def is_called(self, project: str) -> bool:
        """Return whether this is the name of its project, its settings module or its directory."""
        if project and project in (self.project, self.settings):
            return True
        return bool(self.directory) and os.path.realpath(project) == os.path.realpath(self.directory)


class SiteNotFound(ControlError):
    """No site is the one that is meant. ``sites``: those that there are."""

    def __init__(self, text: str, sites: list[FoundSite]) -> None:
        super().__init__(text)
        self.sites = sites


class SeveralSites(ControlError):
    """Several sites are the one that is meant. ``sites``: those, and those that may not be asked."""

    def __init__(self, text: str, sites: list[FoundSite]) -> None:
        super().__init__(text, MISUSED)
        self.sites = sites


class SilentSite(ControlError):
    """The ``site`` that is meant cannot be asked."""

    def __init__(self, site: FoundSite) -> None:
        which = f"with the PID {site.pid}" if site.pid else f"at {site.name.text!r}"
        super().__init__(f"The site {which} {site.trouble}.")
        self.site = site


def find() -> list[FoundSite]:
    """Return the sites on this machine, in the network namespace of this process.

    Sites of other users, and those that do not answer, are among them, with the reason. `ControlError` if
    the system does not list its sockets.
    """
    try:
        names = listed()
    except OSError as error:
        raise ControlError(
            f"The sites cannot be found: {error.strerror}: {error.filename}. Name the socket with --socket."
        ) from None
    return greet(names)


def at(path: str) -> FoundSite:
    """Return the site that listens at a path: that of CONTROL, or "@" and the name of an abstract socket."""
    (site,) = greet([Name(path if path.startswith("@") else os.path.abspath(path))], is_chosen=True)
    return site


def choose(sites: Iterable[FoundSite], *, pid: int | None = None, project: str | None = None) -> FoundSite:
    """Return the one site that is meant; or raise `SiteNotFound`, `SeveralSites` or `SilentSite`."""
    everyone = list(sites)
    found = [
        site for site in everyone if pid in (None, site.pid) and (project is None or site.is_called(project))
    ]
    own = [site for site in found if is_allowed(site.uid)]
    # Any user may bind any name: what could not be verified must not keep the others from being chosen.
    own = [site for site in own if site.is_verified] or own
    if not own and pid is not None:
        own = found  # the error says whose it is
    if len(own) == 1:
        if own[0].trouble:
            raise SilentSite(own[0])
        return own[0]
    if own:
        raise SeveralSites(f"There are {len(own)} sites: choose one with {_distinguishing(own)}.", found)
    asked = [f"the PID {pid}"] if pid is not None else []
    asked += [f"the project {project!r}"] if project is not None else []
    which = f" with {' and '.join(asked)}" if asked else ""
    raise SiteNotFound(f"No site of this user{which} is running in this network namespace.", everyone)


def _distinguishing(sites: list[FoundSite]) -> str:
    """Return the options that tell sites apart."""
    if len({site.pid for site in sites}) == 1:
        return "--project, as their PIDs are equal"
    if len({(site.project, site.settings, site.directory) for site in sites}) == 1:
        return "--pid"
    return "--pid or --project"


# Saying hello


def greet(names: Iterable[Name], *, is_chosen: bool = False) -> list[FoundSite]:
    """Ask all sites for their introductions at the same time; return those that exist.

    ``is_chosen``: also return those that have ended.
    """
    greetings = [Greeting(name) for name in names]
    try:
        for each in greetings:
            each.begin()
        _await_answers([each for each in greetings if each.conversation is not None])
        for each in greetings:
            each.finish()
    finally:
        for each in greetings:
            each.close()
    return [each.site for each in greetings if is_chosen or not each.is_gone]


class Greeting:
    """A request for the facts of a ``site``."""

    def __init__(self, name: Name) -> None:
        self.site = FoundSite(name, os.geteuid() if name.uid is None else name.uid, name.pid or 0)
        self.conversation: Conversation | None = None
        self.is_gone = False

    def fileno(self) -> int:
        return -1 if self.conversation is None else self.conversation.fileno()

    def begin(self) -> None:
        """Connect, and send the request."""
        if not is_allowed(self.site.uid):
            self._note(f"belongs to the user with the uid {self.site.uid}")
            return
        try:
            self.conversation = Conversation(self.site.name, timeout=0)
            self.site = replace(self.site, uid=self.conversation.uid, is_verified=True)
            self.conversation.send(Request("hello"))
        except GONE:
            self.is_gone = True
            self._note(HAS_ENDED)
        except FalseSite as error:
            self.site = replace(self.site, uid=error.uid)
            self._note(str(error))
        except (OSError, ControlError) as error:
            self._note(why_silent(error))

    def finish(self) -> None:
        """Read the answer, if it has come."""
        if self.conversation is None:
            return
        try:
            reply = self.conversation.receive(0)
        except ControlError:
            self._note(DOES_NOT_ANSWER)
            return
        match reply:
            case Result({"pid": int(pid), "project": str(project), "settings": str(settings)} as facts):
                self.site = replace(
                    self.site,
                    pid=self.site.pid or pid,
                    project=project,
                    settings=settings,
                    directory=str(facts.get("directory", "")),
                    version=str(facts.get("version", "")),
                )
            case Error(text):
                self._note(f"does not say which site it is: {text}")
            case _:
                self._note("does not say which site it is")

    def _note(self, trouble: str) -> None:
        self.site = replace(self.site, trouble=trouble)

    def close(self) -> None:
        if self.conversation is not None:
            self.conversation.close()


def _await_answers(greetings: Iterable[Greeting]) -> None:
    """Wait until all have been answered, or `HELLO_TIMEOUT` is over."""
    poll = select.poll()
    waiting = {each.fileno(): each for each in greetings}
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + HELLO_TIMEOUT
    while waiting and (seconds := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(seconds * 1000):
            poll.unregister(descriptor)
            del waiting[descriptor]


def why_silent(error: Exception) -> str:
    """Return why a connection to a site has failed, to go after its name."""
    if isinstance(error, BlockingIOError):  # the queue of the socket is full
        return DOES_NOT_ANSWER
    return f"cannot be asked: {error.strerror}" if isinstance(error, OSError) else str(error)
