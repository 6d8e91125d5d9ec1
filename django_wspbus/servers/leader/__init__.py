"""The leader process: a child without sockets, which leads the fleet while it has the lease."""

from .server import LeaderServer as LeaderServer
