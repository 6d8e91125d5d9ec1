"""The fleet, in the site process: the engine, and the messages of all processes of the site."""

from __future__ import annotations

from ..conf import Settings
from ..fleet.commands import Commands, LocalCommands
from ..fleet.engines import make_engine
from ..process.bus import ProcessBus
from ..wspbus.plugin import Plugin


class SiteFleet(Plugin):
    """Connects the processes of this site with the fleet."""

    role = "site"

    def __init__(self, bus: ProcessBus, settings: Settings) -> None:
        super().__init__(bus)
        self.commands: Commands = LocalCommands(make_engine(settings.fleet))
