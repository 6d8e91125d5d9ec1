"""The testproject as it is served: `manage.py runbus`, two servers, real processes."""

import contextlib
import http.client
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter

import pytest

from tests.fork_server import INTERPRETER
from tests.processes import DEADLINE, MANAGE, ROOT, Running, RunningSite, fetch, fetch_json
from tests.servers.load import await_that, await_value

SERVERS = ["gunicorn", "threaded"]
LAST_RUN = """
INSERT INTO catalogue_processevent VALUES (1, 1, 'site', 'of the last run', 1, '2020-01-01', '2020-01-01')
"""


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """A migrated database that holds an event of an earlier run."""
    path = tmp_path_factory.mktemp("testproject") / "db.sqlite3"
    with Running(MANAGE, "migrate", "-v0", env=settings(path)) as migrate:
        assert migrate.wait() == 0
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(LAST_RUN)
        connection.commit()
    return path


@pytest.fixture
def database(migrated, tmp_path):
    return shutil.copy(migrated, tmp_path)


def settings(database):
    return {
        **INTERPRETER,
        "CATALOGUE_DATABASE": str(database),
        "CATALOGUE_DEBUG": "1",
        "CATALOGUE_BIND_GUNICORN": "127.0.0.1:0",
        "CATALOGUE_BIND_THREADED": "127.0.0.1:0",
    }


class Served:
    """A site that has started, and its URLs."""

    def __init__(self, running, database):
        self.running = running
        self.database = database
        self.urls = running.wait_until_started()

    def fetch(self, path, server="gunicorn"):
        try:
            return fetch(self.urls[server] + path)
        finally:
            self.running.show()

    def processes(self, server="gunicorn"):
        return fetch_json(self.urls[server] + "/processes.json")


@contextlib.contextmanager
def serve(database, *options):
    with RunningSite("--noreload", *options, env=settings(database)) as running:
        yield Served(running, database)


@pytest.fixture(scope="module")
def site(migrated, tmp_path_factory):
    """A site for tests that only look at it."""
    with serve(shutil.copy(migrated, tmp_path_factory.mktemp("served"))) as site:
        yield site


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("path", ["/", "/books/1/", "/books.json", "/processes/", "/admin/login/"])
def test_both_servers_answer_every_page(site, server, path):
    assert site.fetch(path, server)


def test_a_price_that_one_process_changes_shows_in_all(site):
    """Each process answers with the price that it has in its memory."""
    before = fetch_prices(site.urls["gunicorn"])
    assert {*before.values()} == {"12.00"}
    assert {str(pid) for pid in site.processes()["site"]["servers"]["gunicorn"]["workers"]} < {*before}
    assert str(site.running.pid) in before

    post(site, "/books/1/", "/books/1/price/", "gunicorn", price="7.50")
    await_value(lambda: {*fetch_prices(site.urls["gunicorn"]).values()}, {"7.50"})
    assert {*before} <= {*fetch_prices(site.urls["threaded"])}


def fetch_prices(url):
    return fetch_json(url + "/books/1/prices.json")["prices"]


def test_one_process_has_the_job_of_the_night(site):
    command = [sys.executable, "-m", "django_wspbus", "jobs", "--json", "--pid", str(site.running.pid)]

    def schedules():
        shown = subprocess.run(command, capture_output=True, check=True).stdout
        return {job["name"]: job["schedule"] for job in json.loads(shown)["jobs"]}

    await_value(schedules, {"catalogue.jobs.clear_sessions": "0 3 * * *"})


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("path", ["catalogue/style.css", "admin/css/base.css"])
def test_both_servers_serve_static_files_under_debug(site, server, path):
    assert "{" in site.fetch(f"/static/{path}", server)


def test_an_answer_shows_which_process_and_server_gave_it(site):
    by_gunicorn = site.processes("gunicorn")
    by_thread = site.processes("threaded")

    assert by_gunicorn["answered_by"]["pid"] in by_gunicorn["site"]["servers"]["gunicorn"]["workers"]
    assert by_gunicorn["answered_by"]["server"].startswith("gunicorn/")
    assert by_thread["answered_by"]["pid"] == site.running.pid
    assert by_thread["answered_by"]["server"].startswith("WSGIServer/")


def test_both_servers_show_the_same_of_the_site(site):
    shown = [site.processes(server)["site"] for server in SERVERS]
    for each in shown:
        del each["leader"]  # for how long it leads

    assert shown[0] == shown[1]
    assert shown[0]["pid"] == site.running.pid
    assert shown[0]["state"] == "STARTED"
    assert len(shown[0]["servers"]["gunicorn"]["workers"]) == 2


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
    """Return what the site shows of its processes once `every` has called, too."""
    await_that(lambda: any(event["what"].startswith("every") for event in site.processes()["events"]))
    return site.processes()


def test_a_site_forgets_the_last_run(site):
    assert "of the last run" not in site.fetch("/processes.json")


@pytest.mark.extended
def test_the_readme_shows_the_events_of_a_site_with_two_workers_of_gunicorn(database):
    with serve(database, "--server", "gunicorn") as site:
        events = Counter((event["what"], event["role"]) for event in after_a_tick(site)["events"])
    line = re.compile(r"(\S.*?) {2,}(\d+) {2,}(\S.*?) {2,}(\d+)")
    shown = [match for match in map(line.fullmatch, (ROOT / "README.md").read_text().splitlines()) if match]

    assert Counter((match[1], match[3]) for match in shown) == events


@pytest.mark.extended
def test_a_stop_runs_the_stop_listeners_everywhere_and_leaves_no_process(database):
    with serve(database) as site:
        serving = {site.running.pid, *site.processes()["site"]["servers"]["gunicorn"]["workers"]}
        # With gunicorn's master, the leader process, and the standby worker, which follows the others.
        await_that(lambda: len(site.running.members()) == 6, site.running.members)
        assert site.running.stop(signal.SIGTERM) == 0
        assert site.running.members() == []
    with contextlib.closing(sqlite3.connect(database)) as connection:
        query = "SELECT pid, count FROM catalogue_processevent WHERE what = 'lifespan, after yield'"
        ended = connection.execute(query).fetchall()
    assert sorted(ended) == [(pid, 1) for pid in sorted(serving)]


def post(site, page, action, server, **fields):
    """Send the form of a page, as a browser does; return the page that follows."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(site.urls[server] + page, timeout=DEADLINE) as answer:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', answer.read().decode())[1]
    form = urllib.parse.urlencode({"csrfmiddlewaretoken": token, **fields}).encode()
    with opener.open(site.urls[server] + action, form, timeout=DEADLINE) as answer:
        return answer.read().decode()


def press(site, what, server):
    """Press a button of the page of the processes; return the page that follows."""
    return post(site, "/processes/", "/processes/renew/", server, what=what)


@pytest.mark.extended
def test_its_buttons_renew_the_workers_and_then_the_site(database):
    with serve(database) as site:
        before = site.processes()["site"]["servers"]["gunicorn"]["workers"]
        assert "The new code serves." in press(site, "graceful", "gunicorn")
        after = site.processes()["site"]["servers"]["gunicorn"]["workers"]
        assert len(after) == 2
        assert not set(before) & set(after)

        with contextlib.suppress(http.client.HTTPException):  # the old process tells it to connect anew
            press(site, "restart", "threaded")
        site.running.wait_for_line("^Quit with", count=2)
        await_that(lambda: site.processes()["site"]["condition"] == "ready")
        shown = site.processes()["site"]
        assert shown["pid"] == site.running.pid
        assert not set(after) & set(shown["servers"]["gunicorn"]["workers"])
        assert site.running.stop() == 0


def test_the_probes_make_the_check_of_the_database(site):
    probe = site.running.wait_for_line(r"^  probes +\S+ (http://\S+/readyz)$")[1]
    assert fetch_json(f"{probe}?format=json")["checks"] == {"catalogue.listeners.database_answers": "ok"}
    with contextlib.closing(sqlite3.connect(site.database)) as connection:
        connection.execute("ALTER TABLE catalogue_processevent RENAME TO gone")
        try:
            with pytest.raises(urllib.error.HTTPError, match="503") as refused:
                fetch(probe)
            assert refused.value.read().decode().endswith("database_answers: OperationalError\n")
        finally:
            connection.execute("ALTER TABLE gone RENAME TO catalogue_processevent")
    assert fetch(probe) == "ready\n"


def test_on_a_database_without_tables_the_site_does_not_start_and_says_what_to_do(tmp_path):
    with RunningSite("--noreload", env=settings(tmp_path / "empty.sqlite3")) as site:
        assert site.wait() == 1
        site.wait_for_line(r"^CommandError: The database has no tables yet: run `manage.py migrate`\.$")
        assert "Traceback" not in site.output
        assert "gunicorn" not in site.output
