"""Debuggers that follow a site over its reloads, and what cannot: a profiler, coverage, pdb."""

from __future__ import annotations

import sys

import pytest

from tests.debug_client import DebugClient
from tests.processes import Running, RunningSite
from tests.projects import GUNICORN, THREADED
from tests.servers.conftest import address_of, ask

from .reloading import Development, Served

pytestmark = pytest.mark.extended

OFF = r"Autoreload is off: {} observes this process"


class Observed(RunningSite):
    """``manage.py runbus`` of a project, run by another program of Python."""

    def __init__(self, project: Development, *options: str) -> None:
        command = (sys.executable, *options, project.manage, "runbus")
        Running.__init__(self, *command, env=project.environment, cwd=project.root)


@pytest.mark.parametrize("server", [THREADED, GUNICORN], ids=["threaded", "gunicorn"])
def test_debugpy_stays_attached_over_a_reload(development, server, free_port):
    pytest.importorskip("debugpy")
    development.set_up(server)
    views = development.root / "shop/views.py"
    line = 1 + views.read_text().splitlines().index("def version(request):") + 1
    listening = ("-m", "debugpy", "--listen", f"127.0.0.1:{free_port}", "--wait-for-client")
    with Observed(development, *listening) as site, DebugClient(free_port, views, line) as client:
        served = Served(development, site)
        assert served.version()[0] == development.version
        client.wait_for_stops(1)
        version = development.edit()
        served.await_reload()
        before = len(client.stops)
        served.expect_version(version)
        client.wait_for_stops(before + 1)
        assert site.stop() == 0
    assert site.members() == []


@pytest.mark.parametrize(
    ("options", "name"),
    [(["-m", "cProfile", "-o", "profile"], "(a profiler|cProfile)"), (["-m", "coverage", "run"], "coverage")],
    ids=["cProfile", "coverage"],
)
def test_what_does_not_follow_turns_autoreload_off_and_gets_its_data(development, options, name):
    development.set_up()
    with Observed(development, *options) as site:
        site.wait_for_line(OFF.format(name))
        assert ask(address_of(site), "/version/")[0] == 200
        assert site.stop() == 0
    assert any((development.root / file).exists() for file in ("profile", ".coverage"))


def test_pdb_runs_the_site_itself(development):
    development.set_up()
    with Observed(development, "-m", "pdb", "-c", "continue") as site:
        site.wait_for_line(OFF.format("pdb"))
        assert ask(address_of(site), "/version/")[0] == 200
