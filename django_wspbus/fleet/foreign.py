"""A process that another program serves, as a member of the fleet of its own."""

from __future__ import annotations

from .. import conf
from ..process.process_bus import ProcessBus
from ..successor import start
from .member import FleetMember, Identity
from .processes import NoProcesses
from .version import version_of_code


def join(bus: ProcessBus) -> FleetMember | None:
    """Make this process a member, with connections of its own; None without FLEET.

    Wrong settings do not keep it from serving: it then stays alone, and the log says so.
    """
    settings, _ = conf.read()
    if settings is None:
        bus.log("WSPBUS is wrong, so this process does not join the fleet: see manage.py check.", level=30)
    if settings is None or settings.fleet is None:
        return None
    identity = Identity(version_of_code(settings.fleet), start.TYPED.directory)
    member = FleetMember(bus, settings.fleet, NoProcesses(), identity)
    member.take_part()
    member.start()
    return member
