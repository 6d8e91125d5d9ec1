"""A reload does not end a debugger that is in use."""

from __future__ import annotations

import contextlib
import threading

import pytest

from tests.processes import DEADLINE
from tests.servers.conftest import Client
from tests.terminals import Terminal

from .reloading import Served

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


@pytest.mark.parametrize(
    ("statement", "goes_on", "spare"),
    [("breakpoint()", "c", True), pytest.param(POST_MORTEM, "q", False, marks=pytest.mark.extended)],
    ids=["breakpoint-warm", "post mortem-cold"],
)
def test_a_reload_waits_until_the_debugger_lets_go(development, statement, goes_on, spare):
    development.set_up(spare=spare)
    development.append("shop/views.py", BREAKING.format(statement=statement))
    development.append("shop/urls.py", "\nurlpatterns.append(path('broken/', views.broken))\n")
    with Terminal(development) as site:
        served = Served(development, site)
        served.await_calm()
        (started,) = development.notes("site start")
        answers = []

        def visit():
            with contextlib.closing(Client(served.address)) as client, contextlib.suppress(OSError):
                answers.append(client.ask("/broken/"))

        visitor = threading.Thread(target=visit)
        visitor.start()
        site.press("p where\n")
        site.wait_for_line("in the view")
        version = development.edit()
        site.wait_for_line("changed, reloading")
        site.press("p 'still ' + 'here'\n")
        site.wait_for_line("still here")
        site.wait_for_line(r"Starting again once the debugger has ended\.")
        assert development.notes("site start") == [started]
        site.press(f"p 'and ' + 'now'\n{goes_on}\n")
        served.await_reload()
        visitor.join(DEADLINE)
        served.expect_version(version)
        assert answers[0][0] == 200  # the request that was in the debugger
        assert site.stop() == 0
