"""The beginning and the end of a reload or restart, without children."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_wspbus import conf
from django_wspbus.children.children import Children
from django_wspbus.process.bus import ProcessBus
from django_wspbus.process.switchboard import Switchboard
from django_wspbus.servers.swap import Swap


@pytest.fixture
def swap() -> Iterator[Swap]:
    bus, site, switchboard = ProcessBus(), conf.Settings(servers={}), Switchboard()
    yield Swap(bus, site, Children(bus, site, switchboard, lambda link, message: None), [])
    switchboard.close()


def test_an_observer_that_fails_does_not_leave_a_reload_under_way(swap: Swap) -> None:
    def fail() -> None:
        raise OSError("an observer")

    swap.observers.append(fail)
    with pytest.raises(OSError, match="an observer"), swap.begin("reload"):
        pytest.fail("It has begun.")

    assert (swap.under_way, swap.children.swapping) == (None, False)
    assert swap.last is not None
    assert swap.last.error == swap.last_failure
    swap.observers.clear()
    with swap.begin("reload"):
        assert swap.under_way == "reload"
    assert swap.last_failure is None


def test_an_operation_that_is_interrupted_has_an_error_of_its_own(swap: Swap) -> None:
    for what in ("reload", "restart"):
        with pytest.raises(SystemExit), swap.begin(what):
            raise SystemExit(3)

        assert swap.last is not None
        assert (swap.last.operation, swap.last.error) == (what, f"The {what} was interrupted: SystemExit(3)")
