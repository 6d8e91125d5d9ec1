"""Code that does not boot: what a developer sees of it, and that the next save mends it."""

from __future__ import annotations

import html
import json
import time

import pytest

from tests.error_page.test_program import browser as browser
from tests.error_page.test_program import wait_until
from tests.projects import GUNICORN, THREADED
from tests.servers.conftest import address_of
from tests.servers.load import Shop, await_that

from .broken import (
    BREAKS,
    BROWSER,
    JSON,
    Mending,
    await_error,
    await_fixed,
    develop,
    look,
    never_refused,
    told,
    without_spare,
)

TITLED = """
urlpatterns += [path("titled/", lambda request: HttpResponse("<title>It works</title>"))]
"""

WITH_GUNICORN = [
    "import of views",
    "settings",
    "start listener of the site",
    "start listener of the worker",
    "syntax of models",
    "sys.exit(text)",
    "SIGKILL",
    "deleted package",
]
WITHOUT_SPARE = [
    "syntax of views",
    "settings",
    "ready",
    "start listener of the worker",
    "KeyboardInterrupt",
    "os._exit",
    "sys.exit(text)",
    "SIGSEGV",
]


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    shop = Shop(folder)
    shop.write("shop/prices/__init__.py", "")
    shop.write("shop/views.py", "from . import prices\n" + (shop.root / "shop/views.py").read_text())
    return shop


def check_each(shop, site, names):
    address = address_of(site)
    with never_refused(address):
        for name in names:
            check(shop, site, address, name)
        await_fixed(address, shop.version)
    checked = len(shop.notes("site stop")), len(shop.notes("site start"))
    assert site.stop() == 0
    assert len(shop.notes("site stop")) == checked[0] + 1
    assert site.members() == []


def check(shop, site, address, name):
    each = BREAKS[name]
    mending = Mending(shop)
    before = told(site, each.said)
    each.does(shop)
    text = await_error(address, each.said)
    page = html.unescape(look(address, BROWSER)[1])
    assert page.startswith("<!doctype html>"), name
    assert each.said in page, name
    assert each.shown in page, name
    told_json = json.loads(look(address, JSON)[1])
    assert each.title in told_json["error"], name
    assert told_json["traceback"].strip() in text or told_json["error"] in text, name
    # Before it is mended: what is mended in two steps may be tried in between. Django's checks may fail twice
    # in one traceback.
    most = max(1, sum(each.said in line for line in told_json["traceback"].splitlines()))
    await_that(lambda: told(site, each.said) > before)
    assert told(site, each.said) - before <= most, (name, site.output)
    version = shop.deploy()
    mending.mend()
    await_fixed(address, version)


NAMES = list(BREAKS)


@pytest.mark.parametrize("names", [NAMES[::2], NAMES[1::2]], ids=["first", "second"])
def test_broken_code_is_shown_once_and_everywhere_and_the_next_save_mends_it(shop, names):
    develop(shop, THREADED)
    with shop.serve() as site:
        check_each(shop, site, names)


def test_broken_code_is_shown_without_a_spare_too(shop):
    without_spare(shop, THREADED)
    with shop.serve() as site:
        check_each(shop, site, WITHOUT_SPARE)


def test_broken_code_is_shown_with_gunicorn_too(shop):
    develop(shop, GUNICORN)
    with shop.serve() as site:
        check_each(shop, site, WITH_GUNICORN)


def test_who_asks_right_after_a_save_that_mends_gets_the_new_code(shop):
    develop(shop, THREADED)
    with shop.serve() as site:
        address = address_of(site)
        stale = 0
        for _ in range(5):
            mending = Mending(shop)
            BREAKS["import of urls"].does(shop)
            await_error(address, "urls are broken")
            mending.mend()
            time.sleep(0.03)  # what an editor takes to say that it has saved, and longer than an event
            stale += look(address)[0] == 500
        assert stale <= 1
        assert site.stop() == 0


def test_a_browser_shows_what_is_broken_and_then_the_page(shop, browser):
    develop(shop, THREADED)
    shop.write("shop/urls.py", (shop.root / "shop/urls.py").read_text() + TITLED)
    with shop.serve() as site:
        address = address_of(site)
        mending = Mending(shop)
        BREAKS["import of urls"].does(shop)
        await_error(address, "urls are broken")
        titles = browser(f"http://{address}/titled/")
        wait_until(lambda: titles() == ["ValueError: urls are broken"])
        mending.mend()
        wait_until(lambda: titles() == ["It works"])
        assert site.stop() == 0
        assert site.members() == []
