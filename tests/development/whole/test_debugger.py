"""A reload does not end a debugger that is in use."""

from __future__ import annotations

import contextlib
import threading

import pytest

from tests.processes import DEADLINE
from tests.projects import GUNICORN, THREADED
from tests.servers.conftest import Client
from tests.terminals import CONTROL_C, Terminal

from .reloading import GTHREAD, Served

SYNC = {**GUNICORN, "OPTIONS": {"timeout": 1}}

BREAKING = """

def broken(request):
    where = "in the view"
    {statement}
    return version(request)
"""

POST_MORTEM = """try:
        1 / 0
    except ZeroDivisionError as error:
        import pdb
        pdb.post_mortem(error.__traceback__)"""


def visit(served):
    """Ask for the page in which the debugger is; return the list of answers to come, and the thread."""
    answers = []

    def ask():
        with contextlib.closing(Client(served.address)) as client, contextlib.suppress(OSError):
            answers.append(client.ask("/broken/"))

    visitor = threading.Thread(target=ask)
    visitor.start()
    return answers, visitor


@pytest.mark.extended
@pytest.mark.parametrize(
    ("server", "statement", "goes_on", "spare"),
    [
        pytest.param(THREADED, "breakpoint()", "c", True, id="threaded-breakpoint-warm"),
        pytest.param(
            THREADED, POST_MORTEM, "q", False, id="threaded-post mortem-cold", marks=pytest.mark.extended
        ),
        pytest.param(SYNC, "breakpoint()", "c", False, id="sync-breakpoint-cold"),
        pytest.param(
            GTHREAD, POST_MORTEM, "q", True, id="gthread-post mortem-warm", marks=pytest.mark.extended
        ),
    ],
)
def test_a_reload_waits_until_the_debugger_lets_go(development, server, statement, goes_on, spare):
    development.set_up(server, spare=spare)
    development.append("shop/views.py", BREAKING.format(statement=statement))
    development.append("shop/urls.py", "\nurlpatterns.append(path('broken/', views.broken))\n")
    with Terminal(development) as site:
        served = Served(development, site)
        served.await_calm()
        (started,) = development.notes("site start")
        answers, visitor = visit(served)
        site.press("p where\n")
        site.wait_for_line("in the view")
        version = development.edit()
        site.wait_for_line("changed, reloading")
        site.press("p 'still ' + 'here'\n")
        site.wait_for_line("still here")
        site.wait_for_line(r"Restarting once the debugger has ended\.")
        assert development.notes("site start") == [started]
        site.press(f"p 'and ' + 'now'\n{goes_on}\n")
        served.await_reload()
        visitor.join(DEADLINE)
        served.expect_version(version)
        assert answers[0][0] == 200  # the request that was in the debugger
        assert site.stop() == 0


@pytest.mark.extended
@pytest.mark.parametrize("server", [THREADED, SYNC, GTHREAD], ids=["threaded", "sync", "gthread"])
def test_control_c_ends_a_site_in_a_debugger_and_leaves_the_terminal_as_it_was(development, server):
    development.set_up(server)
    development.append("shop/views.py", BREAKING.format(statement="breakpoint()"))
    development.append("shop/urls.py", "\nurlpatterns.append(path('broken/', views.broken))\n")
    with Terminal(development) as site:
        served = Served(development, site)
        before = site.settings()
        _, visitor = visit(served)
        site.press("p where\n")
        site.wait_for_line("in the view")
        site.press(CONTROL_C)
        assert site.wait() == 0
        assert site.settings() == before
        visitor.join(DEADLINE)
    assert site.members() == []
