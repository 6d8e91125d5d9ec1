"""The Web Site Process Bus: a state machine and a messenger for one process.

The state is that of the process; the methods of the `Bus` move it (see `states`), and publish to the
listeners of the channel of that name. Any other channel may be used freely. A program that has no use for the
states uses a `Messenger` alone.

The idea and the interface are CherryPy's (``cherrypy.process.wspbus``): plugins written for that
bus work on this one. This folder needs the standard library only.
"""

from .bus import Bus
from .channels import Listener
from .failures import EX_SOFTWARE, ChannelFailures, Refusal
from .lifespan import Lifespan
from .messenger import Messenger
from .plugin import Plugin
from .states import State, states

__all__ = [
    "EX_SOFTWARE",
    "Bus",
    "ChannelFailures",
    "Lifespan",
    "Listener",
    "Messenger",
    "Plugin",
    "Refusal",
    "State",
    "states",
]

for _public in (Bus, ChannelFailures, Lifespan, Messenger, Plugin, Refusal, State):
    _public.__module__ = __name__  # tracebacks and pickles name what users import
