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

    Wrong settings, or an engine whose library is missing, do not keep it from serving: it then stays alone,
    and the log says so.
    """
    settings, _ = conf.read()
    if settings is None:
        bus.log("WSPBUS is wrong, so this process does not join the fleet: see manage.py check.", level=30)
    if settings is None or settings.fleet is None:
        return None
    identity = Identity(version_of_code(settings.fleet), start.TYPED.directory)
    try:
        member = FleetMember(bus, settings.fleet, NoProcesses(), identity)
    except Exception as error:  # of the class that FLEET names, or its OPTIONS
        reason = f"{settings.fleet.path()}: {type(error).__name__}: {error}"
        bus.log(f"This process does not join the fleet: {reason}. See manage.py check.", level=40)
        return None
    member.take_part()
    member.start()
    return member
