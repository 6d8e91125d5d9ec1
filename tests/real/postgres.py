"""A PostgreSQL server for one test: a new cluster in a temporary folder, on a Unix socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Running

# PostgreSQL refuses to run as root.
AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []

# The data need not survive a power cut, so that tests are faster.
OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "listen_addresses": ""}


def find(program: str) -> str | None:
    """Return the path of a program of PostgreSQL. Debian keeps them in a folder for each version."""
    folders = [str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    return shutil.which(program, path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Run a server, and yield the URL of its database. Skip the test if PostgreSQL is not installed."""
    initdb, server = find("initdb"), find("postgres")
    if not initdb or not server:
        pytest.skip("no PostgreSQL on this machine")
    with tempfile.TemporaryDirectory() as folder:  # other users may not enter tmp_path
        if AS_NOBODY:
            shutil.chown(folder, "nobody", "nogroup")
        arguments = ["-D", f"{folder}/data", "-A", "trust", "-U", "shop", "-E", "UTF8", "--no-sync"]
        command = [*AS_NOBODY, initdb, *arguments]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120)
        options = [part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")]
        command = [*AS_NOBODY, server, "-D", f"{folder}/data", "-k", folder, *options]
        with Running(*command, cwd=folder) as running:
            running.wait_for_line("database system is ready to accept connections")
            yield f"postgres://shop@/{folder}/postgres"
            assert running.stop(signal.SIGINT) == 0
