"""The processes of a server, found by their session, and their memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Self

import psutil

from .serving import pss

INTERVAL = 0.05


@contextlib.contextmanager
def session(
    command: list[str],
    folder: Path,
    environment: Mapping[str, str],
    output: int | IO[bytes] = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command as the leader of a session, and end all processes of the session afterwards."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    )
    try:
        yield process
    finally:
        for signum in (signal.SIGTERM, signal.SIGKILL):
            stop(process.pid, signum)
        process.wait(10)


def stop(leader: int, signum: int) -> None:
    processes = members(leader)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signum)
    psutil.wait_procs(processes, timeout=10)


def members(leader: int) -> list[psutil.Process]:
    """Return the processes of a session, including orphans and those in other process groups."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(psutil.Process(pid))
    return found


class Memory:
    """The PSS of a session in MB, sampled in a thread, as a context manager."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.samples: list[tuple[float, float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="Memory")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(INTERVAL):
            total = 0.0
            for process in members(self.leader):
                with contextlib.suppress(psutil.Error):  # the process has ended, or is ending
                    total += pss(process)
            self.samples.append((time.monotonic(), total))

    def before_peak_after(self, moment: float) -> tuple[float, float, float]:
        """Return the last sample before a moment, the highest one since, and the very last one."""
        before = [total for taken, total in self.samples if taken < moment]
        since = [total for taken, total in self.samples if taken >= moment]
        return before[-1], max(since), since[-1]
