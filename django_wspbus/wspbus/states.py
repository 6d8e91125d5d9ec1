r"""The states of a process, and which of them may follow which.

                        O
                        |
                        V
       STOPPING --> STOPPED --> EXITING -> X
          A   A         |
          |    \___     |
          |        \    |
          |         V   V
        STARTED <-- STARTING

A bus that has exited may be started or stopped once more, as in CherryPy. A stop, and an exit, begin with
STOPPING also where the bus is STOPPED: their listeners run in any case.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """A state of a process."""

    STOPPED = enum.auto()
    STARTING = enum.auto()
    STARTED = enum.auto()
    STOPPING = enum.auto()
    EXITING = enum.auto()

    def __repr__(self) -> str:
        return f"states.{self.name}"


states = State

FOLLOWERS: dict[State, frozenset[State]] = {
    State.STOPPED: frozenset({State.STARTING, State.STOPPING, State.EXITING}),
    State.STARTING: frozenset({State.STARTED, State.STOPPING}),
    State.STARTED: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.EXITING: frozenset({State.STARTING, State.STOPPING}),
}


def check_move(state: State, following: State) -> None:
    """Raise RuntimeError if a state may not follow another."""
    if following not in FOLLOWERS[state]:
        raise RuntimeError(f"A bus in the state {state.name} cannot go to the state {following.name}.")
