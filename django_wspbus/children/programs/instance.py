"""One run of a program of PROCESSES, as the site process sees it."""

from __future__ import annotations

import contextlib
import fcntl
import inspect
import json
import math
import os
import signal
import socket
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Callable

from ...conf import ProcessSettings
from ...process.messages import Link, Message
from ...process.record import Record
from ...process.reports import Report
from ...process.switchboard import Switchboard
from ...successor import start
from ...successor.invocation import SITE
from ...successor.state import ProgramState
from ...successor.values import scratch_file
from ...system.processes import with_variable
from ...system.terminal import ALONE
from ...wspbus import Refusal
from ..child import Child
from ..handover import state_of, take_up
from ..processes import AdoptedProcess, ChildProcess
from . import minder
from .command_line import environment_of, words_of
from .output import Source

MINDER = inspect.getsource(minder)  # read at import, as a deployment may remove the file

BOOTSTRAP = (
    "import json, sys; file = open(int(sys.argv[1])); file.seek(0); values = json.load(file); "
    "file.close(); exec(compile(values['source'], 'minder.py', 'exec')); main(values)"
)

PIPE_SIZE = 2**20
"""Bytes of output that wait while a restart replaces the program of the site process."""


class Instance(Child):
    """One run of a program, from its spawn to its end, with all that it starts.

    ``process`` is the minder: see `minder`. Processes of the program that have joined the site are its
    workers. ``link``: the site's end of the pair of sockets that leads to the minder. ``mark``: the value of
    `SITE` in the environment of the program, and so of all that it starts.
    """

    def __init__(
        self,
        alias: str,
        number: int,
        process: ChildProcess,
        pair: socket.socket,
        link: socket.socket,
        source: Source,
        mark: str,
        switchboard: Switchboard,
        answer: Callable[[Link, Message], None],
        changed: Callable[[], None],
        ended: Callable[[Child, int, Record], None],
        reported: Callable[[Child, Report], None],
    ) -> None:
        super().__init__(
            *(alias, process, pair, switchboard, answer, changed), ended=ended, reported=reported
        )
        self.number = number
        self.link = link
        self.source = source
        self.mark = mark
        self.program: int | None = None
        """The PID of the program; None until the minder has reported it."""

    def listen(self) -> None:
        self._switchboard.watch(self.link.fileno(), self._hear_minder)
        super().listen()

    def _hear_minder(self) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = self.link.recv(4096)
        if data:
            self.program = self.source.pid = int(data)
            self.changed()
        else:
            self._switchboard.forget(self.link.fileno())

    @property
    def runs(self) -> bool:
        """True once the program has been started, and until it ends."""
        return self.program is not None and not self.ended

    def stop(self, seconds: float) -> None:
        """Send the program its stop signal, and kill it after some seconds; later calls can shorten them."""
        now = time.monotonic()
        if self.deadline is None:
            self.dismissed_at = now
        self.deadline = min(now + seconds, self.deadline or math.inf)
        with contextlib.suppress(OSError):  # it has ended
            self.link.send(b"%.3f\n" % max(seconds, 0))

    def kill(self) -> None:
        """Kill all processes of the program. A signal handler or a watchdog may call this."""
        with contextlib.suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)
        if not self.ended:
            self.send_signal(signal.SIGCONT)
        elif self.program is not None and self.process.wait() == -signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.program, signal.SIGKILL)
            self._kill_marked()

    def _kill_marked(self) -> None:
        """Kill what has left the group of the program, as its minder may have been killed."""
        deadline = time.monotonic() + minder.TIME_TO_KILL
        while (found := with_variable(SITE, self.mark)) and time.monotonic() < deadline:
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(minder.KILL_INTERVAL)

    def close(self) -> None:
        super().close()
        self._switchboard.forget(self.link.fileno())
        self.link.close()
        self.source.end()

    # Over a restart of the site

    def hand_over(self, unanswered: Callable[[Link], list[Message]]) -> ProgramState:
        return ProgramState(
            child=state_of(self, unanswered),
            number=self.number,
            program=self.program,
            link=self.link.fileno(),
            output=self.source.descriptor,
            partial=b64encode(self.source.buffer).decode(),
            began=self.spawned,
            mark=self.mark,
        )


class Launcher:
    """Starts programs, and adopts those that an earlier program of the site has started."""

    def __init__(
        self,
        switchboard: Switchboard,
        answer: Callable[[Link, Message], None],
        ended: Callable[[Child, int, Record], None],
        reported: Callable[[Child, Report], None],
        show: Callable[[Source], None],
    ) -> None:
        self._switchboard = switchboard
        self._answer = answer
        self._ended = ended
        self._reported = reported
        self._show = show

    def launch(
        self, settings: ProcessSettings, number: int, name: str, changed: Callable[[], None]
    ) -> Instance:
        """Start a program; a `Refusal` says why that is not possible. Call it in the main thread."""
        try:
            with contextlib.ExitStack() as minders, contextlib.ExitStack() as ours:
                pair, other = socket.socketpair()
                ours.callback(pair.close)
                minders.callback(other.close)
                link, minders_end = socket.socketpair()
                ours.callback(link.close)
                minders.callback(minders_end.close)
                output, writer = os.pipe()
                ours.callback(os.close, output)
                minders.callback(os.close, writer)
                mark = f"{other.fileno()}:{os.fstat(other.fileno()).st_ino}"
                process = self._spawn(settings, number, name, mark, other, minders_end, writer)
                ours.pop_all()
        except OSError as error:  # there is no descriptor, process or memory left
            raise Refusal(f"{error.strerror}: {error.filename or 'no process could be started'}.") from error
        widen(output)
        source = Source(name, output, process.pid)
        return self._watched(settings.alias, number, process, pair, link, source, mark, changed)

    def _spawn(
        self,
        settings: ProcessSettings,
        number: int,
        name: str,
        mark: str,
        pair: socket.socket,
        link: socket.socket,
        output: int,
    ) -> subprocess.Popen[bytes]:
        start.check()
        invocation = start.original()
        with scratch_file() as values:
            written = {
                "source": MINDER,
                "words": words_of(settings, number, invocation),
                "link": link.fileno(),
                "pair": pair.fileno(),
                "stop_signal": signal.Signals[settings.stop_signal].value,
                "stop_timeout": settings.stop_timeout,
            }
            values.write(json.dumps(written).encode())
            values.flush()
            environment = environment_of(settings, invocation)
            environment[SITE] = mark
            return subprocess.Popen(
                [invocation.find_interpreter(), "-S", "-E", "-c", BOOTSTRAP, str(values.fileno()), name],
                pass_fds=[values.fileno(), pair.fileno(), link.fileno()],
                cwd=invocation.directory,
                env=environment,
                stdout=output,
                stderr=output,
                **ALONE,
            )

    def adopt(self, state: ProgramState, name: str, changed: Callable[[], None]) -> Instance:
        """Go on with a program of the site before a restart."""
        pair, link = socket.socket(fileno=state.child.pair), socket.socket(fileno=state.link)
        pid = state.program or state.child.pid
        source = Source(name, state.output, pid, kept=b64decode(state.partial))
        process = AdoptedProcess(state.child.pid)
        return self._watched(
            *(state.child.alias, state.number, process, pair, link, source, state.mark, changed), before=state
        )

    def _watched(
        self,
        alias: str,
        number: int,
        process: ChildProcess,
        pair: socket.socket,
        link: socket.socket,
        source: Source,
        mark: str,
        changed: Callable[[], None],
        before: ProgramState | None = None,
    ) -> Instance:
        instance = Instance(
            *(alias, number, process, pair, link, source, mark),
            *(self._switchboard, self._answer, changed, self._ended, self._reported),
        )
        if before is not None:
            take_up(instance, before.child)
            instance.program, instance.spawned = before.program, before.began
        self._show(source)
        instance.listen()
        return instance


def widen(pipe: int) -> None:
    """Make room in a pipe for what a program writes while the site does not read."""
    with contextlib.suppress(AttributeError, OSError):  # not Linux; the user has too many large pipes
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
