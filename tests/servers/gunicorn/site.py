"""A child with gunicorn whose site is the test."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from django_wspbus.children.child import Child
from django_wspbus.process.messages import Link, Message
from django_wspbus.process.record import Record, Stage
from django_wspbus.process.reports import Replied, read_report
from django_wspbus.process.switchboard import Switchboard
from django_wspbus.process.worker_orders import Begin, Retire
from django_wspbus.wspbus import Refusal
from tests.processes import DEADLINE
from tests.projects import Project

SCRIPT = """\
import os
import signal
import socket
import sys

from django_wspbus.successor.program import die_with

die_with(int(sys.argv[4]), signal.SIGKILL)
pair, listening, patch = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
os.dup2(listening, 3)
if patch:
    from gevent import monkey

    monkey.patch_all()
import django

django.setup()
from django_wspbus.children.spawn import ChildStart, StartedChild
from django_wspbus.servers.gunicorn.child import run

run(StartedChild(ChildStart("shop", "", patch), {}, 1, socket.socket(fileno=pair), -1))
"""


class HeardChild(Child):
    """A child that keeps the answers to `Publish`."""

    replies: dict[int, Replied]

    def _note(self, link: Link, message: Message) -> bool:
        report = read_report(message)
        if isinstance(report, Replied):
            self.replies[report.number] = report
        return super()._note(link, message)


class OwnSite:
    """Starts gunicorn for a project, and gives its processes the orders of a site."""

    def __init__(self, project: Project, patch: str | None = None) -> None:
        self.project = project
        self.patch = patch
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.switchboard = Switchboard()
        self.begun: set[int] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listening.getsockname()[1]}"

    def __enter__(self) -> OwnSite:
        script = self.project.write("child.py", SCRIPT)
        ours, theirs = socket.socketpair()
        self.output = (self.project.root / "output.txt").open("w")
        descriptors = (theirs.fileno(), self.listening.fileno())
        arguments = (*descriptors, self.patch or "", os.getpid())
        with theirs:
            process = subprocess.Popen(
                [sys.executable, str(script), *map(str, arguments)],
                pass_fds=descriptors,
                env={**os.environ, **self.project.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
                cwd=self.project.root,
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=self.output,
                process_group=0,
            )
        self.child = HeardChild(
            "shop", process, ours, self.switchboard, lambda link, message: None, lambda: None
        )
        self.child.replies = {}
        self.child.listen()
        return self

    def __exit__(self, *args: object) -> None:
        self.child.close()
        self.switchboard.close()
        self.listening.close()
        self.output.close()
        sys.stdout.write(self.text)

    @property
    def text(self) -> str:
        """The output so far."""
        return (self.project.root / "output.txt").read_text()

    def await_that(self, holds: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + DEADLINE
        while not (found := self._try(holds)):
            assert time.monotonic() < deadline, self.text
            time.sleep(0.005)
        return found

    @staticmethod
    def _try(holds: Callable[[], Any]) -> Any:
        with contextlib.suppress(KeyError, ValueError, Refusal):  # a record that comes or goes
            return holds()
        return None

    # Its workers

    def record(self, pid: int) -> Record:
        return self.child.records[pid]

    def at(self, *stages: Stage) -> list[int]:
        """Return the PIDs of the workers that are at one of these stages."""
        records = [(pid, self.child.records[pid]) for pid in self.child.workers if pid in self.child.records]
        return [pid for pid, record in records if record.stage in stages and not record.retiring]

    def expect(self, count: int, *stages: Stage) -> list[int]:
        """Wait until a number of workers is at one of these stages; return their PIDs."""
        return list(self.await_that(lambda: len(found := self.at(*stages)) == count and found))

    def begin(self, pid: int) -> None:
        # Its record may show that it stands by before its message says that it listens.
        self.await_that(lambda: self.child.order_worker(pid, Begin()))
        self.begun.add(pid)

    def retire(self, pid: int, requests: float, listeners: float) -> None:
        assert self.child.order_worker(pid, Retire(requests, listeners))

    def begin_missing(self, count: int) -> bool:
        """Begin standby workers for those that are missing; return whether enough of them serve."""
        booting = self.begun & set(self.at(Stage.BOOTING, Stage.READY))
        serving = self.at(Stage.SERVING, Stage.PROVEN)
        for pid in self.at(Stage.STANDBY)[: max(count - len(booting) - len(serving), 0)]:
            if pid not in self.begun and self.child.order_worker(pid, Begin()):
                self.begun.add(pid)
        return len(serving) == count

    def serve(self, count: int = 1) -> list[int]:
        """Begin as many workers as are wanted, and release them; return their PIDs."""
        self.expect(count + 1, Stage.STANDBY)
        chosen = self.at(Stage.STANDBY)[:count]
        for pid in chosen:
            self.begin(pid)
        self.child.serve()
        return self.expect(count, Stage.SERVING)
