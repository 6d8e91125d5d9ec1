"""Code that does not boot: what a developer sees of it, and that the next save mends it."""

from __future__ import annotations

import html
import json

import pytest

from tests.development.error_page.test_program import browser as browser
from tests.projects import GUNICORN, THREADED
from tests.servers.conftest import address_of
from tests.servers.load import await_that

from .broken import (
    BREAKS,
    BROWSER,
    JSON,
    Mending,
    appended,
    await_error,
    break_it,
    count_of,
    develop,
    ends_well,
    look,
    mend,
    never_refused,
)

TITLED = """
urlpatterns += [path("titled/", lambda request: HttpResponse("<title>It works</title>"))]
"""

OF_EACH_KIND = ["syntax of views", "settings", "start listener of the worker", "os._exit", "sys.exit(text)"]
WITH_GUNICORN = ["start listener of the worker", "import of urls", "sys.exit(0)", "SIGKILL"]
OTHERS = [name for name in BREAKS if name not in OF_EACH_KIND]


@pytest.fixture
def shop(shop):
    shop.write("shop/prices/__init__.py", "")
    shop.write("shop/views.py", "from . import prices\n" + (shop.root / "shop/views.py").read_text())
    return shop


def check(shop, site, address, name):
    each = BREAKS[name]
    mending = Mending(shop)
    before = count_of(site, each.said)
    each.does(shop)
    text = await_error(address, each.said)
    page = html.unescape(look(address, BROWSER)[1])
    assert page.startswith("<!doctype html>"), name
    assert each.said in page, name
    assert each.shown in page, name
    answer = json.loads(look(address, JSON)[1])
    assert each.title in answer["error"], name
    assert answer["traceback"].strip() in text or answer["error"] in text, name
    # Django's checks may fail twice in one traceback.
    most = max(1, sum(each.said in line for line in answer["traceback"].splitlines()))
    await_that(lambda: count_of(site, each.said) > before)
    assert count_of(site, each.said) - before <= most, (name, site.output)
    mend(shop, address, mending)


@pytest.mark.parametrize(
    ("server", "spare", "names"),
    [
        pytest.param(THREADED, False, OF_EACH_KIND, id="threaded-cold", marks=pytest.mark.extended),
        pytest.param(THREADED, True, OTHERS[::2], id="threaded-warm", marks=pytest.mark.extended),
        pytest.param(THREADED, True, OTHERS[1::2], id="threaded-warm-more", marks=pytest.mark.extended),
        pytest.param(GUNICORN, False, WITH_GUNICORN, id="gunicorn-cold", marks=pytest.mark.extended),
    ],
)
def test_broken_code_is_shown_once_and_everywhere_and_the_next_save_mends_it(shop, server, spare, names):
    develop(shop, {"default": server}, AUTORELOAD={"SPARE": spare})
    with ends_well(shop.serve()) as site:
        address = address_of(site)
        with never_refused(address):
            for name in names:
                check(shop, site, address, name)
        stops = len(shop.notes("site stop"))
    assert len(shop.notes("site stop")) == stops + 1


@pytest.mark.extended
def test_a_browser_shows_what_is_broken_and_then_the_page(browser, shop):
    develop(shop)
    appended("shop/urls.py", TITLED)(shop)
    with ends_well(shop.serve()) as site:
        address = address_of(site)
        mending = break_it(shop, address)
        titles = browser(f"http://{address}/titled/")
        await_that(lambda: titles() == ["ValueError: urls are broken"])
        mending.mend()
        await_that(lambda: titles() == ["It works"])
