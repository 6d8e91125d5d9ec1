"""A server in a child process: started by exec, told of over a pair of sockets, ended with the site."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .. import conf
from ..link import Link, Message, Switchboard, take_in
from ..wspbus import EX_SOFTWARE, Bus, Refusal
from . import boot
from .base import Server
from .sockets import LISTEN_VARIABLES

if TYPE_CHECKING:
    from ..conf import ServerSettings, Settings
    from .sockets import Bound

# systemd would take them as the site's own news, and gunicorn reads its variables from anywhere.
HIDDEN_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_", "GUNICORN_", *LISTEN_VARIABLES)

# An option of Python's own, as in -OW error, -Xdev or -Bm module.
_OPTION = re.compile(
    r"--check-hash-based-pycs|-(?=.)(?P<flags>[^cmWX-]*)((?P<program>[cm].*)|(?P<valued>[WX])(?P<value>.*))?",
    re.DOTALL,
)


class ChildServer(Server):
    """Base of the servers that run in a process of their own.

    ``run`` is "module:function" of what the child runs: ``function(start, pair)``. The child's
    processes say ``ready`` once they serve, ``failed`` with the reason if they do not.
    """

    in_process = False
    run: ClassVar[str] = ""

    def __init__(
        self,
        bus: Bus,
        settings: ServerSettings,
        site: Settings,
        bound: Callable[[], list[Bound]],
        *,
        switchboard: Switchboard,
        answer: Callable[[Link, Message], None],
        overrides: Mapping[str, Any],
    ) -> None:
        super().__init__(bus, settings, site, bound)
        self.switchboard = switchboard
        self.answer = answer
        self.overrides = overrides
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def alias(self) -> str:
        return self.settings.alias

    def status(self) -> dict[str, Any]:
        pid = self.process.pid if self.process is not None else None
        return {**super().status(), "pid": pid, "workers": sorted(self._workers.values())}

    # Start

    def start(self) -> None:
        if self.process is not None:
            return
        self._reset()
        self._spawn()
        self.bus.wait_for(self._is_settled, self.site.ready_timeout)
        # If not, the bus stops, and with it what has come up; so it does on a request to exit.
        if not self._is_ready() and not self.bus.exit_asked:
            if self._ended:
                self._hear_last_words()
            raise self.refusal(self._why_not_ready(), self._status)

    start.priority = 75  # type: ignore[attr-defined]

    def _reset(self) -> None:
        self._workers: dict[int, int] = {}  # descriptor of the link -> PID
        self._links: dict[int, Link] = {}
        self._expected: int | None = None
        self._ready: set[int] = set()
        self._failure: str | None = None
        self._failed_stops: list[str] = []
        self._status = 1
        self._ended = False
        self._pair_ended = False
        self._stopping = False

    _workers: dict[int, int] = {}  # before the first start

    def _is_ready(self) -> bool:
        return self._expected is not None and len(self._ready) >= self._expected

    def _is_settled(self) -> bool:
        return self._is_ready() or self._failure is not None or self._ended

    def _why_not_ready(self) -> str:
        if self._failure is not None:
            return self._failure
        if self._ended:
            assert self.process is not None
            return f"it ended before it was ready, {_how(self.process.wait())}."
        return f'it was not ready within {self.site.ready_timeout:g} seconds (WSPBUS["READY_TIMEOUT"]).'

    def _spawn(self) -> None:
        descriptors = [bound.socket.fileno() for bound in self.bound()]
        environment = child_environment()
        self._pair, theirs = socket.socketpair()
        with theirs:
            start = {
                "alias": self.alias,
                "run": self.run,
                "site": os.getpid(),
                "path": sys.path,
                "argv": sys.argv,
                "sockets": descriptors,
                "overrides": self.overrides,
            }
            self._pair.sendall(json.dumps(start).encode() + b"\n")
            self.process = subprocess.Popen(
                # -P: the folder of boot.py has a gunicorn.py that is not gunicorn.
                [
                    *(sys.executable, *interpreter_options(), "-P", boot.__file__),
                    *(self.alias, str(theirs.fileno())),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *descriptors],
                env=environment,
                process_group=0,  # Ctrl-C is for the site, which knows what to do
            )
        self.switchboard.watch(self._pair.fileno(), self._take_in)
        self._watch_end()

    # News

    def _watch_end(self) -> None:
        self._pidfd: int | None = None
        with contextlib.suppress(AttributeError, OSError):  # no Linux, or an old one: the pair tells, later
            assert self.process is not None
            self._pidfd = os.pidfd_open(self.process.pid)
            self.switchboard.watch(self._pidfd, self._note_end)

    def _note_end(self) -> None:
        if self._pidfd is not None:
            self.switchboard.forget(self._pidfd)
        if not self._ended:
            self._ended = True
            self.bus.wake()
            self.bus.defer(self._report_end)

    def _report_end(self) -> None:
        """The child is gone, and nobody has stopped it: there is no site without it."""
        if self.process is None or self._stopping or self.bus.state is not self.bus.states.STARTED:
            return
        how = _how(self.process.wait())
        self.bus.log(f"The server {self.alias!r} ended by itself, {how}: the site exits.", level=40)
        raise SystemExit(EX_SOFTWARE)

    def _take_in(self) -> None:
        link = take_in(self._pair)
        if link is None:
            self.switchboard.forget(self._pair.fileno())
            self._pair_ended = True
            self._note_end()
            self.bus.wake()
            return
        self._links[link.fileno()] = link
        self.switchboard.watch(link.fileno(), lambda: self._hear(link))

    def _hear(self, link: Link) -> None:
        messages = link.receive()
        if messages is None:
            self.switchboard.forget(link.fileno())
            self._links.pop(link.fileno(), None)
            self._ready.discard(link.fileno())
            self._workers.pop(link.fileno(), None)
            link.close()
            self.bus.wake()
            return
        for message in messages:
            if "ask" in message:
                self.answer(link, message)
            else:
                self._note(link, message)
        self.bus.wake()

    def _note(self, link: Link, message: Message) -> None:
        if message.get("hello") == "worker":
            self._workers[link.fileno()] = message["pid"]
        if "workers" in message:
            self._expected = message["workers"]
        if "ready" in message:
            self._ready.add(link.fileno())
        if "failed" in message and self._failure is None:
            self._status = message["status"]
            self._failure = message["failed"]
        if "failed_stop" in message:
            self._failed_stops.append(f"a stop listener of worker {message['failed_stop']} failed")

    # Stop

    def subscribe(self) -> None:
        super().subscribe()
        # Before the first is waited for: all have the whole time.
        self.bus.subscribe("stop", self.tell_to_stop, self.stop.priority - 1, role=self.role)  # type: ignore[attr-defined]

    def unsubscribe(self) -> None:
        super().unsubscribe()
        self.bus.unsubscribe("stop", self.tell_to_stop)

    def tell_to_stop(self) -> None:
        """Have the child answer what is in flight and leave."""
        if self.process is not None and not self._stopping:
            self._stopping = True
            self.process.terminate()

    def stop(self) -> None:
        """Wait for the child to leave; end what is left when time is up."""
        if self.process is None:
            return
        self.tell_to_stop()
        timeout = self.time_to_stop()
        if self._expected is None:  # no worker yet: it may be hanging in an import
            timeout = min(timeout, 1)
        if not self.bus.wait_for(self._is_gone, timeout):
            workers = ", ".join(map(str, sorted(self._workers.values()))) or "none"
            self._failed_stops.append(f"not stopped within {timeout:.3g} seconds, workers left: {workers}")
        self._end_at_once()
        if self._failed_stops:
            raise Refusal(f"The server {self.alias!r}: {'; '.join(self._failed_stops)}.", status=EX_SOFTWARE)

    stop.priority = 25  # type: ignore[attr-defined]

    def _is_gone(self) -> bool:
        """Whether the child has ended, and its workers, which outlive a killed master for a moment."""
        assert self.process is not None
        return self._ended and (not self._workers or self.process.poll() == 0)

    def abort(self) -> None:
        """Kill the child and its workers, from a signal handler or a watchdog."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _end_at_once(self) -> None:
        """Kill what is left of the child and hear its last words; leave nothing behind."""
        assert self.process is not None
        self.abort()
        self.process.wait()
        self._hear_last_words()
        for descriptor in (self._pair.fileno(), *self._links):
            self.switchboard.forget(descriptor)
        if self._pidfd is not None:
            self.switchboard.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        for link in list(self._links.values()):
            link.close()
        self._pair.close()
        self._links.clear()
        self._workers = {}
        self.process = None

    def _hear_last_words(self) -> None:
        """Wait until what the child's processes sent before they left has been heard."""
        self.bus.wait_for(lambda: self._pair_ended and not self._links, timeout=1)


def interpreter_options() -> list[str]:
    """Return the options that this interpreter was started with: -O, -X ..., -W ..., and the like."""
    options = []
    arguments = iter(sys.orig_argv[1:])
    for argument in arguments:
        match = _OPTION.fullmatch(argument)
        if match is None:
            break
        options += [f"-{match['flags']}"] if match["flags"] else []
        if match["program"]:
            break
        if match["valued"]:
            options.append(f"-{match['valued']}{match['value'] or next(arguments)}")
        elif argument.startswith("--"):
            options += [argument, next(arguments)]
    return options


def child_environment() -> dict[str, str]:
    """Return the environment for a child: this process's own, but for what is addressed to it alone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN_VARIABLES)}
    module = conf.settings_module()
    if module is None:
        raise Refusal(
            "A server in a child process needs a settings module (DJANGO_SETTINGS_MODULE): "
            "settings made by settings.configure() cannot be read again there."
        )
    environment["DJANGO_SETTINGS_MODULE"] = module
    return environment


def _how(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"with status {status}"
