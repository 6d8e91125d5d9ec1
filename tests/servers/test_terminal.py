"""What a child of a site has to do with the terminal."""

from __future__ import annotations

import psutil
import pytest

from tests.processes import has_signal
from tests.projects import GUNICORN, THREADED
from tests.servers.conftest import address_of, ask
from tests.terminals import CONTROL_C, Terminal

TO_THE_TERMINAL = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
TTOU = 22


@pytest.mark.parametrize(
    ("server", "debug"),
    [
        pytest.param(GUNICORN, False, id="gunicorn"),
        pytest.param(GUNICORN, True, id="gunicorn-develop", marks=pytest.mark.extended),
        pytest.param(THREADED, True, id="threaded-develop", marks=pytest.mark.extended),
    ],
)
def test_a_site_serves_in_a_terminal_that_stops_what_writes_in_the_background(project, server, debug):
    project.configure(DEBUG=debug, LOGGING=TO_THE_TERMINAL, WSPBUS={"SERVERS": {"default": server}})
    with Terminal(project, stops_output=True) as site:
        address = address_of(site)
        assert ask(address, "/")[0] == 200
        site.press(CONTROL_C)
        assert site.wait() == 0
    assert site.members() == []


def test_without_a_terminal_no_signal_is_blocked(project):
    project.serves(GUNICORN)
    with project.serve() as site:
        assert ask(address_of(site), "/")[0] == 200
        children = psutil.Process(site.pid).children(recursive=True)
        assert len(children) >= 2
        assert not any(has_signal(each.pid, "SigBlk", TTOU) for each in children)
