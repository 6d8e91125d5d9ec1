"""What somebody debugs is not taken from under his hands."""

from __future__ import annotations

import contextlib
import threading

import pytest

from tests.servers.conftest import Client
from tests.terminals import Terminal

from .reloading import Served, both_ways

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


@both_ways
@pytest.mark.parametrize(
    ("statement", "goes_on"), [("breakpoint()", "c"), (POST_MORTEM, "q")], ids=["breakpoint", "post mortem"]
)
def test_a_reload_waits_until_the_debugger_lets_go(development, statement, goes_on, spare):
    development.set_up(spare=spare)
    views = development.edit

    def edit():
        version = views()
        with (development.root / "shop/views.py").open("a") as file:
            file.write(BREAKING.format(statement=statement))
        return version

    edit()
    with (development.root / "shop/urls.py").open("a") as file:
        file.write("\nurlpatterns.append(path('broken/', views.broken))\n")
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
        version = edit()
        site.wait_for_line("changed, reloading")
        site.press("p 'still ' + 'here'\n")
        site.wait_for_line("still here")
        site.wait_for_line(r"Starting again once the debugger has ended\.")
        assert development.notes("site start") == [started]
        site.press(f"p 'and ' + 'now'\n{goes_on}\n")
        served.await_reload()
        visitor.join(30)
        served.expect_version(version)
        assert answers[0][0] == 200  # what was asked before is answered
        assert site.stop() == 0
