from __future__ import annotations

import pytest

from django_wspbus.wspbus import State, states
from django_wspbus.wspbus.states import FOLLOWERS, check_move

MOVES = [
    *("STOPPED STARTING", "STARTING STARTED", "STARTED STOPPING", "STOPPING STOPPED", "STOPPED EXITING"),
    "STARTING STOPPING",  # a start that fails, or is asked to exit
    "STOPPED STOPPING",  # an exit runs the stop listeners in any case
    *("EXITING STARTING", "EXITING STOPPING"),  # as in CherryPy, a bus may go around again
]


@pytest.mark.parametrize("following", list(State))
@pytest.mark.parametrize("state", list(State))
def test_the_table_has_the_moves_of_the_diagram_and_no_other(state, following):
    assert set(FOLLOWERS) == set(State)
    if f"{state.name} {following.name}" in MOVES:
        check_move(state, following)
    else:
        with pytest.raises(
            RuntimeError, match=f"in the state {state.name} cannot go to the state {following.name}"
        ):
            check_move(state, following)


def test_a_listener_that_sets_the_state_makes_the_start_fail(bus):
    @bus.subscribe("start")
    def interfere():
        bus.state = states.STOPPED

    with pytest.raises(RuntimeError, match="STOPPED cannot go to the state STARTED"):
        bus.start()


def test_states_are_named_as_in_cherrypy(bus):
    assert bus.states is states
    assert [repr(state) for state in states] == [
        f"states.{name}" for name in ("STOPPED", "STARTING", "STARTED", "STOPPING", "EXITING")
    ]
