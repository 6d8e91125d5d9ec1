"""The testproject as it is developed: `manage.py runbus` under DEBUG, and edits of a copy of it."""

import re
import shutil
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from tests.fork_server import INTERPRETER
from tests.processes import ROOT, Running, RunningSite, fetch, fetch_json
from tests.servers.load import await_that, await_value

# What others have in tests/develop, with the applications and the settings of the testproject.


@pytest.fixture
def copy(tmp_path):
    """A copy of the testproject, to be edited."""
    path = tmp_path / "testproject"
    shutil.copytree(ROOT / "testproject", path, ignore=shutil.ignore_patterns("db.sqlite3*", "__pycache__"))
    return path


def site_of(url: str) -> Any:
    return fetch_json(f"{url}/processes.json")["site"]


def starts_of(url: str) -> list[int]:
    """Return how often the site has started, as its events show."""
    events = fetch_json(f"{url}/processes.json")["events"]
    return [event["count"] for event in events if event["what"] == "start, role=site"]


def body_of(url: str) -> str:
    """Return the body of a page, also of one that is not there yet."""
    try:
        return fetch(url)
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text())
    assert count > 0
    whole = path.with_suffix(".whole")
    whole.write_text(text)
    whole.rename(path)  # else a boot may read a half of it


@pytest.mark.extended
def test_both_servers_serve_the_edited_code_and_refuse_no_request_meanwhile(copy):
    environment = {
        **INTERPRETER,
        "CATALOGUE_DATABASE": str(copy / "db.sqlite3"),
        "CATALOGUE_BIND_GUNICORN": "127.0.0.1:0",
        "CATALOGUE_BIND_THREADED": "127.0.0.1:0",
    }
    manage = str(copy / "manage.py")
    with Running(manage, "migrate", "-v0", env=environment) as migrate:
        assert migrate.wait() == 0
    with RunningSite(manage=manage, env=environment, cwd=copy) as site:
        urls = site.wait_until_started()
        site.wait_for_line("Watching for file changes with")
        before = site_of(urls["threaded"])["pid"]
        assert before != site.pid

        template = copy / "catalogue" / "templates" / "catalogue" / "base.html"
        edit(template, "<body", '<body data-edited="template"')
        for url in urls.values():
            await_that(lambda url=url: 'data-edited="template"' in fetch(f"{url}/"))
        assert site_of(urls["threaded"])["pid"] == before

        views = copy / "catalogue" / "views.py"
        edit(views, r"\Z", '\n\ndef edited(request):\n    return HttpResponse("it is")\n')
        edit(views, r"(from django.http import )", r"from django.http import HttpResponse\n\1")
        edit(
            copy / "testproject" / "urls.py",
            r"urlpatterns = \[",
            'from catalogue.views import edited\n\nurlpatterns = [\n    path("edited/", edited),',
        )
        # Of several saves the first may be served before the last is noticed.
        for url in urls.values():
            await_that(lambda url=url: body_of(f"{url}/edited/") == "it is")
        assert site_of(urls["threaded"])["pid"] != before
        await_value(lambda: starts_of(urls["threaded"]), [1])
        assert fetch(urls["threaded"] + "/processes/")
        assert site.stop() == 0
        assert site.members() == []
