"""The condition of a site in one line, as systemd shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from django_wspbus import conf
from django_wspbus.children.children import Children
from django_wspbus.process.bus import ProcessBus
from django_wspbus.process.switchboard import Switchboard
from django_wspbus.servers.base import Server
from django_wspbus.servers.swap import Swap
from django_wspbus.site.condition import SiteCondition


@dataclass(frozen=True)
class Named:
    alias: str = "shop"
    backend: str = "of the test"


class Busy(Server):
    saturated_for = 6.4  # type: ignore[assignment]


@pytest.fixture
def condition() -> Iterator[SiteCondition]:
    bus, site, switchboard = ProcessBus(), conf.Settings(servers={}), Switchboard()
    servers = [Busy(bus, Named(), site, list)]  # type: ignore[arg-type]
    swap = Swap(bus, site, Children(bus, site, switchboard, lambda link, message: None), servers)
    bus.start()
    yield SiteCondition(bus, servers, swap)
    bus.exit()
    switchboard.close()


def test_one_line_says_that_a_site_is_saturated(condition: SiteCondition) -> None:
    line = condition.in_one_line()

    assert (line.state, line.reason) == (
        "saturated",
        "every thread of the server 'shop' has been busy for 6 s",
    )
    assert condition.in_full().state == line.state
