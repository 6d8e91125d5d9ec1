"""A machine of its own for systemd: namespaces of Linux, in which it is PID 1 and knows only given units."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from .processes import DEADLINE

SYSTEMD = "/lib/systemd/systemd"
PROGRAMS = ("systemctl", "unshare", "nsenter", "mount")

# The cgroup of the machine is removed once all of its processes have ended.
OUTSIDE = """\
set -e
mount -t cgroup2 none "$1"
mkdir "$1/$2"
(read -r pid _ < /proc/self/stat; echo "$pid" > "$1/$2/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --mount-proc --uts --ipc --cgroup sh -c "$INSIDE") &
wait $! || true
until find "$1/$2" -depth -type d -exec rmdir {} + 2> /dev/null; do sleep 0.05; done
"""

INSIDE = """\
set -e
mount -t tmpfs run /run
umount -R /sys/fs/cgroup || true
mount -t cgroup2 none /sys/fs/cgroup
mount --bind /dev/null /dev/console
if [ -n "$CLOSED" ]; then # let other users reach the interpreter, which is in a home directory
    mkdir /run/opened
    mount --bind "$CLOSED/$WAY" /run/opened
    mount -t tmpfs -o mode=755 none "$CLOSED"
    mkdir -p "$CLOSED/$WAY"
    mount --bind /run/opened "$CLOSED/$WAY"
fi
exec "$SYSTEMD" --system --unit=basic.target --log-target=null
"""

TARGETS = ("basic", "sysinit", "sockets", "network", "shutdown", "multi-user")
TARGET = "[Unit]\nDescription=A machine for tests\nDefaultDependencies=no\n"


def why_not() -> str | None:
    """Return why there can be no such machine here; None if there can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not os.path.exists(SYSTEMD):
        missing.append("systemd")
    if sys.platform != "linux" or missing:
        return f"not installed: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "only root may make the namespaces"
    probe = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "cgroup2", "none", "/mnt"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        return "this machine gives no namespaces or no cgroups"
    return None


def closed_folder() -> dict[str, str]:
    """Return the folder above the interpreter that is closed to other users, and the way on from there."""
    prefix = Path(sys.base_prefix)
    for folder in reversed(prefix.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return {"CLOSED": str(folder), "WAY": prefix.relative_to(folder).parts[0]}
    return {"CLOSED": "", "WAY": ""}


class Machine:
    """A machine with these units, file name -> text, as a context manager."""

    def __init__(self, units: dict[str, str]) -> None:
        self.units = units
        self.name = f"wspbus-test-{uuid.uuid4().hex}"

    def __enter__(self) -> Self:
        self.root = Path(tempfile.mkdtemp())
        self.root.chmod(0o755)
        (self.root / "cgroup").mkdir()
        folder = self.root / "units"
        folder.mkdir()
        for file, text in {**{f"{each}.target": TARGET for each in TARGETS}, **self.units}.items():
            output = f"[Service]\nStandardOutput=append:{self.root}/output"
            (folder / file).write_text(text.replace("[Service]", output))
        self.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", OUTSIDE, "sh", str(self.root / "cgroup"), self.name],
            env={
                **closed_folder(),
                "PATH": os.environ["PATH"],
                "INSIDE": INSIDE,
                "SYSTEMD": SYSTEMD,
                "SYSTEMD_UNIT_PATH": str(folder),
                "container": "test",
            },
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self.init = self._wait_for_init()
            self.wait_until(lambda: self.run("systemctl", "is-active", "basic.target").stdout == "active\n")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(psutil.Error):
            for process in reversed(psutil.Process(self.process.pid).children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()
            shutil.rmtree(self.root, ignore_errors=True)

    def _wait_for_init(self) -> psutil.Process:
        found: list[psutil.Process] = []

        def look() -> bool:
            assert self.process.poll() is None, "the machine has ended"
            for each in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if each.exe() == os.path.realpath(SYSTEMD):
                        found.append(each)
            return bool(found)

        self.wait_until(look)
        return found[0]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, "the machine has not come to this within the time for it"
            time.sleep(0.02)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, with its output as text."""
        inside = ["nsenter", "--target", str(self.init.pid), "--mount", "--pid", "--cgroup", "--ipc"]
        return subprocess.run(
            [*inside, *command], capture_output=True, text=True, check=False, timeout=DEADLINE * 2, cwd="/"
        )

    def output(self) -> str:
        """Return what the units have written so far."""
        return (self.root / "output").read_text() if (self.root / "output").exists() else ""

    def systemctl(self, *arguments: str) -> str:
        """Run systemctl, which must succeed, and return its output."""
        result = self.run("systemctl", *arguments)
        assert result.returncode == 0, result
        return result.stdout

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", unit, "--value", "-p", name).strip()

    def wait_for(self, unit: str, name: str, value: str) -> None:
        """Wait until a property of a unit has a value."""
        self.wait_until(lambda: self.show(unit, name) == value)
