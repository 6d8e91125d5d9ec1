"""The state that a site process hands over to its next program when it restarts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from .invocation import STATE
from .values import descriptor_of, hand_over, take_over


@dataclass(frozen=True, slots=True)
class SocketState:
    """A listening socket that one program of a site hands over to the next one."""

    holder: str
    """The alias of its server, or the path of the setting that names its address."""
    address: str
    """Its address, as BIND has it."""
    inode: tuple[int, int] | None
    """Device and inode of the file of a Unix socket."""
    descriptor: int
    """Its number in the process that hands it over."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the socket that `dataclasses.asdict` has described, also from JSON."""
        return cls(**{**values, "inode": values["inode"] and tuple(values["inode"])})

    @classmethod
    def received(cls, message: Iterable[Mapping[str, Any]], descriptors: Sequence[int]) -> list[Self] | None:
        """Return the sockets of a received message with the descriptors that came with it.

        None if descriptors are missing, because this process had no free numbers. The others are then closed.
        """
        described = list(message)
        if len(described) != len(descriptors):
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        pairs = zip(described, descriptors, strict=True)
        return [cls.of({**each, "descriptor": descriptor}) for each, descriptor in pairs]


@dataclass(frozen=True, slots=True)
class Holdings:
    """The addresses and the PID file of a running site. They need not be free for its next program."""

    addresses: list[str]
    """The addresses of its sockets, as BIND has them."""
    pidfile: str | None


@dataclass(slots=True)
class LinkState:
    """A link to a process of a child. ``received`` and ``unsent``: bytes of messages, in base64."""

    descriptor: int
    name: str
    received: str
    unsent: str
    worker: int | None
    """The PID of the worker at its other end; None for another process."""
    listener: int | None
    """The PID of the worker that takes orders over it; None for another link."""
    is_ready: bool


@dataclass(slots=True)
class RecordState:
    """The record of a process of a child: see `process.record`."""

    pid: int
    descriptor: int


@dataclass(slots=True)
class RetireeState:
    """A worker that another one replaces. Times are those of `time.monotonic`; None: not yet."""

    pid: int
    reason: str
    """See `children.retiring.plan.Reason`."""
    since: float
    """The time at which the site decided it."""
    ordered: float | None = None
    """The time of the order to retire; from then on the worker accepts no connections."""
    requests: float | None = None
    """The time at which its requests are cut off."""
    listeners: float | None = None
    """The time at which its stop listeners are cut off."""


@dataclass(slots=True)
class ChildState:
    """A child process and the site's links to its processes."""

    alias: str
    pid: int
    pair: int
    """The descriptor over which its processes send their links."""
    links: list[LinkState]
    expected: int | None
    """The number of its workers; None until the child has reported it."""
    is_serving: bool
    has_answered: bool
    time_left: float | None
    """Seconds until its drain must end; None if it serves."""
    allowed: float
    """Seconds for its drain in all."""
    allowed_for_requests: float = 0.0
    """Those of its requests."""
    why_shortened: str = ""
    """The reason why its time to drain was shortened, for the log."""
    records: list[RecordState] = field(default_factory=list)
    policy: dict[str, Any] = field(default_factory=dict)
    """The fields of its `process.reports.RetirementPolicy`."""
    standby: list[int] = field(default_factory=list)
    """PIDs of the workers that wait to begin."""
    begun: list[int] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    failed_stops: list[str] = field(default_factory=list)
    cut_off: dict[str, str] = field(default_factory=dict)
    """PID -> the requests that a worker has not answered before it ended."""
    hurried: list[int] = field(default_factory=list)
    ready_since: dict[str, float] = field(default_factory=dict)
    """PID -> the time of `time.monotonic` at which the worker was ready."""
    wanted: int | None = None
    """The number of workers that `Children.scale` has set."""
    retiring: list[RetireeState] = field(default_factory=list)
    leads: bool | None = None
    version: str = ""
    """For both see `process.reports.Expected`."""
    stuck: list[tuple[int, int, int]] = field(default_factory=list)
    """The stuck requests that the log has already: PID, slot, serial."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        return cls(
            **{
                **values,
                "links": [LinkState(**link) for link in values["links"]],
                "records": [RecordState(**record) for record in values["records"]],
                "retiring": [RetireeState(**retiree) for retiree in values["retiring"]],
            }
        )

    @property
    def descriptors(self) -> list[int]:
        links = [link.descriptor for link in self.links]
        return [self.pair, *links, *(record.descriptor for record in self.records)]


@dataclass(slots=True)
class ProgramState:
    """A program of PROCESSES that runs."""

    child: ChildState
    """Its minder, and the processes that have joined the site: see `children.programs.instance`."""
    number: int
    """The number of the instance, from 1."""
    program: int | None
    """The PID of the program; None until its minder has reported it."""
    link: int
    """The descriptor of the socket that leads to its minder."""
    output: int
    """The descriptor of the pipe with its output."""
    partial: str
    """The beginning of a line of its output, in base64."""
    began: float
    """The time of `time.monotonic` at which it was started."""
    mark: str
    """The value of `SITE` in its environment."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{**values, "child": ChildState.of(values["child"])})

    @property
    def descriptors(self) -> list[int]:
        return [*self.child.descriptors, self.link, self.output]


@dataclass(frozen=True, slots=True)
class WaitingClient:
    """A client of the control socket whose request the next program has to answer."""

    descriptor: int
    began: float
    """The time of `time.monotonic` at which it asked for the restart."""
    action: str | None = None
    """The action that the next program has to do for it; None: the restart was what it asked for."""
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ControlState:
    """The control socket of a site."""

    descriptor: int
    path: str | None
    """The path of CONTROL; None: the socket has a name that needs no file of that setting."""
    inode: tuple[int, int] | None
    """Device and inode of its file."""
    clients: list[WaitingClient]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        clients = [WaitingClient(**each) for each in values["clients"]]
        return cls(**{**values, "inode": values["inode"] and tuple(values["inode"]), "clients": clients})

    @property
    def file(self) -> tuple[str, tuple[int, int]] | None:
        """The path of CONTROL, with the device and inode of its file."""
        return None if self.path is None or self.inode is None else (self.path, self.inode)

    @property
    def descriptors(self) -> list[int]:
        return [self.descriptor, *(each.descriptor for each in self.clients)]


@dataclass(slots=True)
class SiteState:
    """The state of a site. Descriptors keep their numbers, because the process stays the same."""

    sockets: list[SocketState] = field(default_factory=list)
    children: list[ChildState] = field(default_factory=list)
    programs: list[ProgramState] = field(default_factory=list)
    signals: tuple[int, list[int]] | None = None
    """The result of `SignalHandler.hand_over`."""
    pidfile: str | None = None
    """The path of the PID file, which the restart keeps."""
    lock: int | None = None
    """The descriptor of the PID file, which holds its lock."""
    restart_began: float | None = None
    """The beginning of the restart, as `time.monotonic`."""
    control: ControlState | None = None

    fleet: dict[str, Any] = field(default_factory=dict)
    """The state of the connection with the fleet: the fields of `fleet.relay.RelayState`."""
    log: list[str] = field(default_factory=list)
    """The latest log records, as `process.log_memory` writes them."""

    leader: dict[str, Any] = field(default_factory=dict)
    """The result of `site.leader.LeaderDesk.hand_over`."""
    orders: dict[str, Any] = field(default_factory=dict)
    """The result of `site.fleet_orders.FleetOrders.hand_over`."""

    @property
    def holdings(self) -> Holdings:
        return Holdings(sorted(each.address for each in self.sockets), self.pidfile)

    @classmethod
    def take(cls) -> SiteState | None:
        """Take the state that the program before has handed over; None if this process has no program before.

        `successor.values.UnknownVersion` if another version of this package has handed it over.
        """
        values = take_over(STATE)
        if values is None:
            return None
        sockets = [SocketState.of(each) for each in values["sockets"]]
        children = [ChildState.of(each) for each in values["children"]]
        programs = [ProgramState.of(each) for each in values["programs"]]
        control = values["control"] and ControlState.of(values["control"])
        parts = {"sockets": sockets, "children": children, "programs": programs, "control": control}
        state = cls(**{**values, **parts})
        for descriptor in state.descriptors():
            os.set_inheritable(descriptor, False)
        return state

    def hand_over(self) -> dict[str, str]:
        """Return the variable by which the next program finds the state. Call it just before the exec."""
        environment = self.as_environment()
        for descriptor in (*self.descriptors(), descriptor_of(STATE, environment)):
            os.set_inheritable(descriptor, True)
        return environment

    def as_environment(self) -> dict[str, str]:
        """Return the variable by which this program itself finds the state."""
        return hand_over(STATE, asdict(self))

    def descriptors(self) -> list[int]:
        """Return the descriptors that the next program needs, without that of the written state."""
        found = [socket.descriptor for socket in self.sockets]
        for child in self.children:
            found += child.descriptors
        for program in self.programs:
            found += program.descriptors
        found += [] if self.lock is None else [self.lock]
        found += [] if self.control is None else self.control.descriptors
        return found if self.signals is None else [*found, self.signals[0]]
