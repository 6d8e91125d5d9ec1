"""The file systems that raise no events for some changes: another machine, or the host, can make those."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

SILENT = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "9p", "drvfs"),
    *("virtiofs", "vboxsf", "prl_fs", "vmhgfs", "osxfs", "grpcfuse", "fakeowner"),
}
"""Network file systems, and those by which WSL, Docker Desktop and virtual machines share folders."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo: where it is, and the type of its file system."""

    point: str
    kind: str

    @property
    def is_silent(self) -> bool:
        # What a FUSE program passes on can also be changed below it; fuseblk is a local disk.
        return self.kind in SILENT or self.kind == "fuse" or self.kind.startswith("fuse.")

    def __str__(self) -> str:
        return f"{self.point} ({self.kind})"


class Mounts:
    """The mounts of this moment; none where the system does not tell."""

    def __init__(self) -> None:
        try:
            lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
        except OSError:
            lines = []
        # Of two at the same place the later one hides the other.
        self._mounts = {mount.point: mount for mount in map(_parse, lines) if mount is not None}

    def silent(self, folder: str) -> Mount | None:
        """Return the mount that a folder is on, if it raises no events."""
        if not any(mount.is_silent for mount in self._mounts.values()):
            return None
        path = os.path.realpath(folder)
        while path not in self._mounts and path != os.path.dirname(path):
            path = os.path.dirname(path)
        mount = self._mounts.get(path)
        return mount if mount is not None and mount.is_silent else None


def _parse(line: str) -> Mount | None:
    """Return a mount from its line: ``36 35 98:0 /root /point options - type source ...``."""
    before, separator, after = line.partition(" - ")
    fields = before.split(" ")
    if not separator or len(fields) < 5:
        return None
    point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
    return Mount(point, after.split(" ")[0])
