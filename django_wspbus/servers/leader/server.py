"""The leader process: the plugin of the site process."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING

from ...children.child import Child
from ...children.children import Children
from ...conf import LEADER_ALIAS, Recycle, ServerSettings
from ..child import ChildServer

if TYPE_CHECKING:
    from ...conf import Settings
    from ...wspbus import Bus


class LeaderServer(ChildServer):
    """Starts the leader process, if the project has listeners of the role "leader", or jobs.

    The site starts and serves without waiting for it. A reload replaces it with the workers.
    """

    run = "django_wspbus.servers.leader.process:run"

    def __init__(self, bus: Bus, site: Settings, children: Children) -> None:
        settings = ServerSettings(
            alias=LEADER_ALIAS,
            backend=f"{__name__}.{type(self).__name__}",
            bind=(),
            mounts=MappingProxyType({}),
            options=MappingProxyType({}),
            recycle=Recycle(),
        )
        super().__init__(bus, settings, site, list, children=children)

    @property
    def is_wanted(self) -> bool:
        serving = [child for alias, child in self.children.serving.items() if alias != LEADER_ALIAS]
        return self.is_needed_by(serving)

    def is_needed_by(self, children: Iterable[Child]) -> bool:
        """Return whether the code of these children has work for a leader."""
        known = [child.progress.leads for child in children if child.progress.leads is not None]
        return any(known) if known else bool(self.bus.of_role("leader"))

    def reopen_log_files(self, child: Child) -> list[int]:
        child.send_signal(signal.SIGUSR1)
        return [] if child.ended or child.deadline is not None else [child.pid]

    def start(self) -> None:
        """Boot it, unless that of the program before goes on; it is released to be a candidate once ready."""
        self.respawner.reset()
        self.respawner.is_active = True
        self.respawner.resume()

    start.priority = 76  # type: ignore[attr-defined]  # after the servers, for which clients wait
