"""The testproject as it is served: `manage.py runbus`, two servers, real processes."""

import contextlib
import http.client
import json
import re
import signal
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter

import pytest

from tests.processes import DEADLINE, MANAGE, ROOT, Running, RunningSite, fetch

EVERY = 5  # seconds, in catalogue/listeners.py
SERVERS = ["gunicorn", "threaded"]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A migrated database, for each test to leave as it wants: a site forgets the last run."""
    path = tmp_path_factory.mktemp("testproject") / "db.sqlite3"
    with Running(MANAGE, "migrate", "-v0", env={"CATALOGUE_DATABASE": str(path)}) as migrate:
        assert migrate.wait() == 0
    return path


def settings(database):
    return {
        "CATALOGUE_DATABASE": str(database),
        "CATALOGUE_DEBUG": "1",
        "CATALOGUE_BIND_GUNICORN": "127.0.0.1:0",
        "CATALOGUE_BIND_THREADED": "127.0.0.1:0",
    }


class Served:
    """A site that has started, and where it is to be found."""

    def __init__(self, running):
        self.running = running
        self.urls = running.wait_until_started()

    def fetch(self, path, server="gunicorn"):
        try:
            return fetch(self.urls[server] + path)
        finally:
            self.running.show()

    def processes(self, server="gunicorn"):
        return json.loads(self.fetch("/processes.json", server))


@contextlib.contextmanager
def serve(database):
    with RunningSite("--noreload", env=settings(database)) as running:
        yield Served(running)


@pytest.fixture(scope="module")
def site(database):
    with serve(database) as site:
        yield site


def rows(database):
    """Return what the listeners have noted, in order, as dicts."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM catalogue_processevent ORDER BY last")]


def wait_for(condition, timeout=DEADLINE):
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{condition} has not come true within {timeout:g} seconds"
        time.sleep(0.05)
    return result


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("path", ["/", "/books/1/", "/books.json", "/processes/", "/admin/login/"])
def test_both_servers_answer_every_page(site, server, path):
    assert site.fetch(path, server)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("path", ["catalogue/style.css", "admin/css/base.css"])
def test_both_servers_serve_static_files_under_debug(site, server, path):
    assert "{" in site.fetch(f"/static/{path}", server)


def test_the_answers_tell_which_process_and_server_gave_them(site):
    by_gunicorn = site.processes("gunicorn")
    by_thread = site.processes("threaded")

    assert by_gunicorn["answered_by"]["pid"] in by_gunicorn["site"]["servers"]["gunicorn"]["workers"]
    assert by_gunicorn["answered_by"]["server"].startswith("gunicorn/")
    assert by_thread["answered_by"]["pid"] == site.running.pid
    assert by_thread["answered_by"]["server"].startswith("WSGIServer/")


def test_both_servers_tell_the_same_of_the_site(site):
    told = [site.processes(server)["site"] for server in SERVERS]

    assert told[0] == told[1]
    assert told[0]["pid"] == site.running.pid
    assert told[0]["state"] == "STARTED"
    assert len(told[0]["servers"]["gunicorn"]["workers"]) == 2


def test_listeners_ran_where_and_as_often_as_they_say(site):
    answer = after_a_tick(site)
    owner = site.running.pid
    workers = answer["site"]["servers"]["gunicorn"]["workers"]
    once = {
        (event["what"], event["pid"], event["role"])
        for event in answer["events"]
        if event["count"] == 1 and event["what"].startswith(("start", "lifespan"))
    }
    in_workers = {(what, pid, "worker") for what in ("start", "lifespan, until yield") for pid in workers}

    assert once == in_workers | {
        ("start, role=site", owner, "site + worker"),
        ("start", owner, "site + worker"),
        ("lifespan, until yield", owner, "site + worker"),
    }
    assert [event["pid"] for event in answer["events"] if event["what"].startswith("every")] == [owner]


def after_a_tick(site):
    """Return what the site tells of its processes once `every` has called, too."""

    def tell():
        answer = site.processes()
        return answer if any(event["what"].startswith("every") for event in answer["events"]) else None

    return wait_for(tell, EVERY + DEADLINE)


def test_the_readme_shows_what_the_site_shows(site):
    answer = after_a_tick(site)
    told = Counter((event["what"], event["role"]) for event in answer["events"])
    line = re.compile(r"(\S.*?) {2,}(\d+) {2,}(\S.*?) {2,}(\d+)")
    shown = [match for match in map(line.fullmatch, (ROOT / "README.md").read_text().splitlines()) if match]

    assert Counter((match[1], match[3]) for match in shown) == told


def test_a_stop_runs_the_stop_listeners_everywhere_and_leaves_nothing(database):
    with serve(database) as site:
        serving = {site.running.pid, *site.processes()["site"]["servers"]["gunicorn"]["workers"]}
        assert len(site.running.members()) == 4  # with gunicorn's master

        assert site.running.stop(signal.SIGTERM) == 0

        assert site.running.members() == []
    ended = [row for row in rows(database) if row["what"] == "lifespan, after yield"]
    assert {row["pid"] for row in ended} == serving
    assert [row["count"] for row in ended] == [1, 1, 1]


def press(site, what, server):
    """Press a button of the page of the processes, as a browser does; return the page that follows."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(site.urls[server] + "/processes/", timeout=DEADLINE) as page:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.read().decode())[1]
    form = urllib.parse.urlencode({"csrfmiddlewaretoken": token, "what": what}).encode()
    with opener.open(site.urls[server] + "/processes/renew/", form, timeout=DEADLINE) as page:
        return page.read().decode()


@pytest.mark.parametrize("server", SERVERS)
def test_its_buttons_renew_the_workers_and_then_the_site(database, server):
    with serve(database) as site:
        before = site.processes()["site"]["servers"]["gunicorn"]["workers"]
        assert "The new code serves." in press(site, "graceful", server)
        after = site.processes()["site"]["servers"]["gunicorn"]["workers"]
        assert len(after) == 2
        assert not set(before) & set(after)

        with contextlib.suppress(http.client.HTTPException):  # an old worker tells it to connect anew
            press(site, "restart", server)
        site.running.wait_for_line("^Quit with", count=2)
        site.urls = dict(re.findall(r"^  (\w+) +(http://\S+)/ ", site.running.output, re.MULTILINE))
        told = site.processes()["site"]
        assert told["pid"] == site.running.pid
        assert told["condition"] == "ready"
        assert not set(after) & set(told["servers"]["gunicorn"]["workers"])
        assert site.running.stop() == 0


def test_the_probes_make_the_check_of_the_database(database):
    with serve(database) as site:
        probe = site.running.wait_for_line(r"^  probes +\S+ (http://\S+/readyz)$")[1]
        told = json.loads(fetch(f"{probe}?format=json"))
        assert told["checks"] == {"catalogue.listeners.database_answers": "ok"}
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("ALTER TABLE catalogue_processevent RENAME TO gone")
            try:
                with pytest.raises(urllib.error.HTTPError, match="503") as refused:
                    fetch(probe)
                assert "database_answers: OperationalError: no such table" in refused.value.read().decode()
            finally:
                connection.execute("ALTER TABLE gone RENAME TO catalogue_processevent")
        assert fetch(probe) == "ready\n"
        assert site.running.stop() == 0


def test_a_new_run_forgets_the_last(database):
    for _ in range(2):
        with serve(database) as site:
            last = site.running.pid
            assert site.running.stop(signal.SIGINT) == 0

    assert [row["pid"] for row in rows(database) if row["what"] == "start, role=site"] == [last]


def test_on_a_database_without_tables_the_site_does_not_start_and_says_what_to_do(tmp_path):
    with RunningSite("--noreload", env=settings(tmp_path / "empty.sqlite3")) as site:
        assert site.wait() == 1
        site.wait_for_line(r"^CommandError: The database has no tables yet: run `manage.py migrate`\.$")
        assert "Traceback" not in site.output
        assert "gunicorn" not in site.output
