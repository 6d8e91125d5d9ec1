"""Several real sites on one real engine; their processes write what they do into one journal: `site_code`.

Each site is ``runbus`` with a project of its own, and a Unix socket, which also reaches it in another network
namespace.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from ..controlled import result, site_of
from ..engines import EngineServer, PostgresServer, RedisServer
from ..processes import DEADLINE, RunningSite
from ..projects import THREADED, Project
from ..servers.clients import ask
from .journal import Journal, Note
from .site_code import EFFECT, FENCED, JOURNAL, LISTENERS, URLS

Settings = dict[str, Any]


@dataclass
class Site:
    """A site of the fleet, as a project, and as a program once it is started."""

    name: str
    project: Project
    running: RunningSite = field(init=False)
    within: list[str] = field(default_factory=list)
    """The beginning of the commands that run where the site does."""

    @property
    def address(self) -> str:
        return f"unix:{self.project.root}/site.sock"

    @property
    def pid(self) -> int:
        return self.running.pid

    def get(self, path: str) -> str:
        """Return the body of a page."""
        status, body = ask(self.address, path)
        assert status == 200, body
        return body

    def send(self, count: int = 1) -> str:
        """Make a process of the site broadcast so many messages; return the name of the sender."""
        return self.get(f"/send?count={count}")

    def status(self) -> dict[str, Any]:
        """Return its status; a site on another host is asked by a program there."""
        if not self.within:
            shown: dict[str, Any] = result(site_of(self.running), "status")
            return shown
        command = [sys.executable, "-m", "django_wspbus", "status", "--json", "--pid", str(self.pid)]
        ran = subprocess.run(
            [*self.within, *command], capture_output=True, text=True, timeout=DEADLINE, check=False, cwd="/"
        )
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.running.stop(number) == 0, self.running.output


class FleetOfSites:
    """A fleet of ``count`` sites, as a context manager, which ends all that it has started.

    ``server``: the engine, which runs already; ``host`` and ``port``: the way to it, if it is another one;
    ``ports``: that for each site.
    ``site``: the settings of the server of each site. ``interval``: the seconds between two ticks of the job.
    ``code``: more listeners. ``database``: OPTIONS of the sites' entry in DATABASES.
    """

    def __init__(
        self,
        server: EngineServer,
        count: int = 2,
        lease: float = 1.0,
        *,
        site: Settings = THREADED,
        interval: float = 1.0,
        host: str = "127.0.0.1",
        port: int | None = None,
        ports: Sequence[int] | None = None,
        code: str = "",
        database: Settings | None = None,
    ) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="fleet-"))
        self.server = server
        self.lease = lease
        self.name = f"shop-{secrets.token_hex(4)}"  # tests may share the engine
        self.journal = Journal(self.root / "journal")
        self._exits = contextlib.ExitStack()
        self._exits.callback(shutil.rmtree, self.root)
        self.is_postgres = not isinstance(server, RedisServer)
        each = ports or [port or server.port] * count
        listeners = LISTENERS.format(interval=interval) + (FENCED if self.is_postgres else "") + code
        self.sites = [
            self._make(name, site, self._settings(host, port, database or {}), listeners)
            for name, port in zip("abcdefgh", each, strict=False)
        ]

    def _settings(self, host: str, port: int, database: Settings) -> Settings:
        options: Settings = {"lease": self.lease}
        settings: Settings = {}
        if isinstance(self.server, RedisServer):
            backend = "django_wspbus.fleet.redis.RedisFleet"
            options["url"] = f"redis://{host}:{port}/0"
        else:
            backend = "django_wspbus.fleet.postgres.PostgresFleet"
            entry = {**PostgresServer.database, "HOST": host, "PORT": str(port), "OPTIONS": database}
            settings["DATABASES"] = {"default": entry}
            settings["INSTALLED_APPS"] = ["django_wspbus", "django_wspbus.fleet.postgres", "shop"]
        settings["FLEET"] = {"NAME": self.name, "BACKEND": backend, "OPTIONS": options}
        return settings

    def _make(self, name: str, server: Settings, settings: Settings, listeners: str) -> Site:
        (self.root / name).mkdir()
        site = Site(name, Project(self.root / name))
        site.project.write("shop/journal.py", JOURNAL.format(root=str(self.root), site=name))
        site.project.write("shop/listeners.py", listeners)
        site.project.write("shop/urls.py", URLS)
        others = dict(settings)
        wspbus = {"SERVERS": {"default": {**server, "BIND": site.address}}, "FLEET": others.pop("FLEET")}
        site.project.configure(WSPBUS=wspbus, **others)
        return site

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._exits.close()

    # Its sites

    def start(self, *sites: Site, within: Sequence[str] = (), **variables: str) -> None:
        """Start sites, by default all, and wait until they serve; ``within``: the program that runs them."""
        started = sites or self.sites
        for site in started:
            site.running = site.project.serve("-v2", **variables)
            site.within = list(within)
            site.running.command[:0] = within
            self._exits.enter_context(site.running)
        for site in started:
            site.running.wait_until_started()

    def site_of(self, note: Note) -> Site:
        return next(site for site in self.sites if site.name == note.site)

    def others(self, *but: Site) -> list[Site]:
        return [site for site in self.sites if site not in but]

    def await_stop(self, leader: Note, process: psutil.Process) -> None:
        """Wait until a leader process has run its stop listeners, or has ended."""

        def has_stopped() -> bool:
            return bool(self.journal.notes("stops", token=leader.token)) or not process.is_running()

        self.journal.await_that(has_stopped, f"stop of {leader}")


def prepare(server: PostgresServer) -> None:
    """Make the tables of the fleet, and that of the effects, in a PostgreSQL that runs."""
    with FleetOfSites(server, 1) as fleet:
        project = fleet.sites[0].project
        migrated = project.run("migrate", "-v0")
        assert migrated.returncode == 0, migrated.stderr
    server.query(EFFECT)
