"""The configuration of logrotate in docs/gunicorn.md, as logrotate runs it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import DEADLINE, ROOT
from tests.projects import Project
from tests.servers.conftest import KINDS, address_of, ask, configure
from tests.servers.load import await_that

from .test_log_files import LISTENERS, LOGGING, URLS, pids_in

(STANZA,) = re.findall(
    r"^```\n(/var/log/shop.*?)^```$", (ROOT / "docs" / "gunicorn.md").read_text(), re.MULTILINE | re.DOTALL
)
PAGE = (ROOT / "docs" / "gunicorn.md").read_text()


@pytest.fixture
def rotated(project: Project) -> Path:
    project.write("shop/urls.py", URLS)
    project.listeners(LISTENERS)
    (project.root / "logs").mkdir()
    configure(project, {"default": KINDS["gthread"]}, PIDFILE="site.pid", SIGNALS={"SIGURG": "reopen"})
    settings = project.root / "settings.py"
    settings.write_text(settings.read_text() + f"LOGGING = {LOGGING!r}\n")
    return project.root / "logs"


def here(text: str, project: Project) -> str:
    """Return a text of the page with the paths of a test."""
    for there, path in {
        "/srv/shop/venv/bin/python": sys.executable,
        "/run/shop/site.pid": str(project.root / "site.pid"),
        "/var/log/shop": str(project.root / "logs"),
        " shop shop": " root root",
    }.items():
        text = text.replace(there, path)
    return text


def postrotate() -> list[str]:
    """Return the commands of the page: that of the stanza, and that with a signal."""
    (command,) = re.findall(r"postrotate\n +(.*)\n", STANZA)
    (with_signal,) = re.findall(r"`postrotate` is `([^`]+)`", PAGE)
    assert "reopen" in command
    assert "kill" in with_signal
    return [command, with_signal]


COMMAND, WITH_SIGNAL = postrotate()


@pytest.mark.parametrize(
    "command",
    [pytest.param(COMMAND, id="command"), pytest.param(WITH_SIGNAL, id="signal", marks=pytest.mark.extended)],
)
def test_the_command_of_the_page_makes_every_process_write_to_the_new_files(
    project: Project, rotated: Path, command: str
) -> None:
    with project.serve() as site:
        address = address_of(site)
        (rotated / "root.log").rename(rotated / "root.log.1")
        done = subprocess.run(
            ["sh", "-ec", here(command, project)],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        if "kill" in command:  # a signal has no answer
            await_that(
                lambda: (rotated / "root.log").exists() and "Reopened" in (rotated / "root.log").read_text()
            )
        pid = int(ask(address)[1])
        assert pid in pids_in(rotated / "root.log")
        assert site.stop() == 0


@pytest.mark.extended
@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
def test_logrotate_takes_the_configuration_of_the_page(project: Project, rotated: Path) -> None:
    config = project.write("logrotate.conf", here(STANZA, project))
    config.chmod(0o644)
    rotated.chmod(0o755)
    with project.serve() as site:
        address = address_of(site)
        subprocess.run(
            ["logrotate", "--force", "--state", str(project.root / "state"), str(config)],
            timeout=DEADLINE,
            check=True,
        )
        pid = int(ask(address)[1])
        assert pid in pids_in(rotated / "root.log")
        assert (rotated / "root.log.1.gz").exists()
        assert site.stop() == 0
