"""The facts with which the launcher starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from ...successor.invocation import Invocation
from ...successor.state import ControlState, SocketState


@dataclass(frozen=True, slots=True)
class LauncherStart:
    """The start of the launcher, as a command describes it to the launcher that takes its place."""

    invocation: Invocation
    """The command that the launcher starts as the site."""
    sockets: Sequence[SocketState] = ()
    """The listening sockets."""
    debug: bool = True
    """True if clients may see why the site does not start."""
    signals: Sequence[str] = ()
    """The names of the signals that the launcher handles even if the process ignores them."""
    settings: str = ""
    """The settings module."""
    control: ControlState | bool = False
    """The control socket; True if the launcher is to make one, False if there is none."""

    def as_values(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the start that `as_values` has described, also from JSON."""
        control = values["control"]
        return cls(
            Invocation(**values["invocation"]),
            [SocketState.of(each) for each in values["sockets"]],
            values["debug"],
            values["signals"],
            values["settings"],
            control if isinstance(control, bool) else ControlState.of(control),
        )

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that the launcher takes over."""
        own = [each.descriptor for each in self.sockets]
        return own if isinstance(self.control, bool) else [*own, *self.control.descriptors]
