"""The testproject as it is developed: `manage.py runbus` under DEBUG, and edits of a copy of it."""

import json
import re
import shutil
import time
import urllib.request
from pathlib import Path

import pytest

from tests.processes import DEADLINE, ROOT, Running, RunningSite, fetch


@pytest.fixture
def copy(tmp_path):
    """A copy of the testproject, to be edited."""
    path = tmp_path / "testproject"
    shutil.copytree(ROOT / "testproject", path, ignore=shutil.ignore_patterns("db.sqlite3*", "__pycache__"))
    return path


def fetch_until(url: str, told: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while told not in fetch(url):  # which is an error if it is refused, or fails, even once
        assert time.monotonic() < deadline, f"{url} does not say {told!r}"


def edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text())
    assert count > 0
    path.write_text(text)


def test_both_servers_serve_what_was_edited_and_nobody_is_refused_meanwhile(copy):
    environment = {
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
        before = json.loads(fetch(urls["threaded"] + "/processes.json"))["site"]["pid"]
        assert before != site.pid

        template = copy / "catalogue" / "templates" / "catalogue" / "base.html"
        edit(template, "<body", '<body data-edited="template"')
        for url in urls.values():
            fetch_until(url + "/", 'data-edited="template"')
        assert json.loads(fetch(urls["threaded"] + "/processes.json"))["site"]["pid"] == before

        edit(
            copy / "catalogue" / "views.py",
            r"\Z",
            '\n\ndef edited(request):\n    return HttpResponse("it is")\n',
        )
        edit(
            copy / "catalogue" / "views.py",
            r"(from django.http import )",
            r"from django.http import HttpResponse\n\1",
        )
        edit(
            copy / "testproject" / "urls.py",
            r"urlpatterns = \[",
            'from catalogue.views import edited\n\nurlpatterns = [\n    path("edited/", edited),',
        )
        deadline = time.monotonic() + DEADLINE
        while (told := json.loads(fetch(urls["threaded"] + "/processes.json")))["site"]["pid"] == before:
            assert time.monotonic() < deadline, told
        for url in urls.values():
            assert fetch(url + "/edited/") == "it is"
        assert [event["count"] for event in told["events"] if event["what"] == "start, role=site"] == [1]

        with urllib.request.urlopen(urls["threaded"] + "/processes/", timeout=DEADLINE) as page:
            assert page.status == 200
        assert site.stop() == 0
        assert site.members() == []
