"""``manage.py runbus`` under DEBUG: a developer has all that ``runserver`` gives."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter

import pytest

from ..processes import DEADLINE, fetch, fetch_json
from ..projects import GUNICORN, THREADED, Project, reason_of
from ..servers.load import await_that
from ..terminals import CONTROL_C, Terminal

PERFORMING = "Performing system checks..."
NO_ISSUES = "System check identified no issues (0 silenced)."
DATE = r"^[A-Z][a-z]+ \d\d, \d{4} - \d\d:\d\d:\d\d$"
STATIC = ["django.contrib.staticfiles", "django_wspbus", "shop"]

CHECK = """
from django.core import checks


@checks.register
def look(app_configs, **kwargs):
    note("checked")
    return [{message}]
"""
ERROR = CHECK.format(message="checks.Error('the shop is empty', id='shop.E001')")
WARNING = CHECK.format(message="checks.Warning('the shop is small', id='shop.W001')")
FINE = CHECK.format(message="")

# A migration that is not applied, and where its table would be.
MIGRATION = """\
from django.db import migrations


class Migration(migrations.Migration):
    operations = []
"""


def sqlite(name="db.sqlite3"):
    return {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name}}


def wspbus(server):
    """Return settings with one server, and without reloading, which has tests of its own: tests/develop."""
    return {"SERVERS": {"default": server}, "AUTORELOAD": False}


BOTH = {"SERVERS": {"gunicorn": GUNICORN, "threaded": THREADED}, "AUTORELOAD": False}


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


# What is said before it serves


def add_migration(project):
    project.write("shop/migrations/__init__.py", "")
    project.write("shop/migrations/0001_initial.py", MIGRATION)


@pytest.fixture
def shop(project):
    """The project, in development, with a database and a migration that is not applied."""
    add_migration(project)
    project.configure(DEBUG=True, WSPBUS=wspbus(THREADED), DATABASES=sqlite())
    return project


NAMED = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "named": {"format": "{name} {levelname} {status_code} {server_time} {message}", "style": "{"}
    },
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "all.log", "formatter": "named"}},
    "loggers": {"django.server": {"handlers": ["file"], "level": "INFO", "propagate": False}},
}

PAGES = """\
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import path


def fail(request):
    raise RuntimeError("on purpose")


urlpatterns = [
    path("", lambda request: HttpResponse("here")),
    path("there", lambda request: HttpResponseRedirect("/")),
    path("fail", fail),
]
"""


def add_static_files(project, **settings):
    project.write("shop/static/shop.css", "body {}")
    project.configure(INSTALLED_APPS=STATIC, STATIC_URL="static/", **settings)


@pytest.fixture(scope="module")
def developed(tmp_path_factory):
    """A site in development that has a server of each kind, for tests that only look at it."""
    project = Project(tmp_path_factory.mktemp("developed"))
    add_migration(project)
    project.write("shop/urls.py", PAGES)
    add_static_files(project, DEBUG=True, WSPBUS=BOTH, LOGGING=NAMED, DATABASES=sqlite())
    with project.serve() as site:
        site.wait_until_started()
        yield site
        assert site.stop(signal.SIGINT) == 0


def request_lines(project_root):
    return (project_root / "all.log").read_text().splitlines()


def test_checks_migrations_and_the_date_come_before_the_banner_and_a_warning_after_it(developed):
    said = [PERFORMING, NO_ISSUES, "You have 1 unapplied migration(s).", "Run 'python manage.py migrate'"]
    said += [next(line for line in developed.lines if re.search(DATE, line)), "django-wspbus "]
    said += ["  gunicorn  http://", "  threaded  http://", "Quit with CONTROL-C."]
    said += ["WARNING: This is a development server."]
    developed.wait_for_line(said[-1])
    places = [developed.output.index(each) for each in said]
    assert places == sorted(places)
    assert "migrations for app(s): shop." in developed.output


@pytest.mark.extended
def test_the_warning_can_be_hidden_as_that_of_runserver(shop):
    with shop.serve(DJANGO_RUNSERVER_HIDE_WARNING="true") as site:
        site.wait_until_started()
        assert site.stop() == 0
    assert NO_ISSUES in site.output
    assert "WARNING" not in site.output


def test_the_checks_can_be_skipped_and_with_them_the_warning_about_migrations(shop):
    shop.listeners(ERROR)
    with shop.serve("--skip-checks") as site:
        site.wait_until_started()
        assert site.stop() == 0
    assert re.search(DATE, site.lines[0])
    assert "migration" not in site.output
    assert shop.events() == []


def test_verbosity_0_says_nothing_if_there_is_nothing_wrong(shop):
    shop.listeners(FINE + "bus.subscribe('main', lambda: note('main'))\n")
    with shop.serve("--verbosity", "0") as site:
        shop.expect_note("main")
        assert site.stop() == 0
    assert site.output == ""
    assert shop.events()[0] == "checked"


@pytest.mark.extended
def test_a_warning_of_a_check_is_shown_and_the_site_serves(shop):
    shop.listeners(WARNING)
    with shop.serve() as site:
        site.wait_until_started()
        assert site.stop() == 0
    assert "?: (shop.W001) the shop is small" in site.output
    assert "System check identified 1 issue (0 silenced)." in site.output
    assert shop.events() == ["checked"]


def test_an_error_of_a_check_refuses_the_start_with_its_message(shop):
    shop.listeners(ERROR + "bus.subscribe('start', lambda: note('start'), role='any')\n")
    result = shop.run("runbus", "--pidfile", "site.pid")
    assert result.returncode == 1
    assert result.stdout == f"{PERFORMING}\n\n"
    assert result.stderr.startswith("SystemCheckError: System check identified some issues:\n")
    assert "?: (shop.E001) the shop is empty" in result.stderr
    assert shop.events() == ["checked"]
    assert not (shop.root / "site.pid").exists()


def test_code_that_fails_while_it_is_checked_is_shown_with_its_place(shop):
    shop.write("shop/urls.py", "\n1 / 0\n")
    result = shop.run("runbus")
    assert result.returncode == 1
    assert result.stderr.startswith(
        "CommandError: shop/urls.py, line 2: ZeroDivisionError: division by zero\n\nTraceback"
    )
    assert 'shop/urls.py", line 2' in result.stderr
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert "django_wspbus/" not in result.stderr
    assert "/django/" not in result.stderr


def test_without_debug_it_checks_nothing_serves_no_static_files_and_writes_no_request_lines(project):
    add_static_files(project, WSPBUS=wspbus(GUNICORN), LOGGING=NAMED, DATABASES=sqlite())
    project.listeners(ERROR)
    urls = (project.root / "shop" / "urls.py").read_text()
    project.write("shop/urls.py", f"{urls}\nfrom .journal import note\n\nnote('urls')\n")
    with project.serve() as site:
        url = site.wait_until_started()["default"]
        assert (status_of(url), status_of(f"{url}/static/shop.css")) == (200, 404)
        assert site.stop() == 0
    assert site.lines[0].startswith("django-wspbus ")
    assert len(site.lines) == 3
    assert request_lines(project.root) == []
    (note,) = project.notes()
    assert note.event == "urls"  # the worker has imported the URLconf, and the site process has not
    assert note.pid != site.pid


@pytest.mark.parametrize("option", ["--check", pytest.param("--print-settings", marks=pytest.mark.extended)])
def test_an_option_that_starts_no_site_makes_no_checks(shop, option):
    shop.listeners(ERROR)
    result = shop.run("runbus", option)
    assert (result.returncode, result.stderr) == (0, "")
    assert PERFORMING not in result.stdout
    assert shop.events() == []


@pytest.mark.extended
def test_a_database_that_cannot_be_reached_costs_a_line_and_the_site_serves(shop):
    shop.configure(DEBUG=True, WSPBUS=wspbus(THREADED), DATABASES=sqlite("/nowhere/db.sqlite3"))
    with shop.serve() as site:
        fetch(site.wait_until_started()["default"])
        assert site.stop() == 0
    (line,) = [line for line in site.lines if "migrations" in line]
    assert line == ("The migrations were not checked: OperationalError: unable to open database file")
    assert "Traceback" not in site.output


@pytest.mark.extended
def test_without_a_database_there_is_no_word_of_migrations(project):
    project.configure(DEBUG=True, WSPBUS=wspbus(THREADED))
    with project.serve() as site:
        site.wait_until_started()
        assert site.stop() == 0
    assert NO_ISSUES in site.output
    assert "igrations" not in site.output


def test_the_look_at_the_migrations_leaves_no_connection_to_the_database_open(shop):
    shop.write(
        "ask.py",
        """
import threading

from django.core.management.base import BaseCommand
from django.db import connections

from django_wspbus.development.runserver import check_migrations


def ask():
    check_migrations(BaseCommand())
    print([(each.alias, each.connection) for each in connections.all(initialized_only=True)])


thread = threading.Thread(target=ask)
thread.start()
thread.join()
""",
    )
    result = shop.run("shell", "-v0", "-c", "import ask")
    assert result.stderr == ""
    assert "You have 1 unapplied migration(s)." in result.stdout
    assert result.stdout.endswith("[('default', None)]\n")


def test_a_closed_output_does_not_stop_the_site(shop):
    shop.listeners(WARNING + "bus.subscribe('main', lambda: note('main'))\n")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-u", shop.manage, "runbus"]
    environment = os.environ | shop.environment
    with subprocess.Popen(
        command, cwd=shop.root, env=environment, stdout=writer, stderr=subprocess.PIPE
    ) as site:
        os.close(writer)
        try:
            shop.expect_note("main")
        finally:
            site.terminate()
            _, errors = site.communicate(timeout=DEADLINE)
    assert site.returncode == 0
    assert "Traceback" not in errors.decode()


# Over a restart


def test_the_dry_run_of_a_restart_makes_the_checks_and_an_error_refuses_it(shop):
    shop.listeners(FINE)
    with shop.serve("-v2") as site:
        url = site.wait_until_started()["default"]
        site.send(signal.SIGUSR2)
        site.wait_for_line("^Quit with", count=2)
        assert len(shop.notes("checked")) == 2
        assert len({note.pid for note in shop.notes("checked")}) == 2
        assert site.output.count("unapplied migration(s)") == 2

        shop.listeners(ERROR)
        site.send(signal.SIGUSR2)
        site.wait_for_line("The restart failed; the old code keeps serving: ")
        site.wait_for_line(r"\?: \(shop.E001\) the shop is empty")
        assert fetch(url).split()[1] == "STARTED"
        assert site.stop() == 0
    assert site.output.count(PERFORMING) == 1


@pytest.mark.extended
def test_a_restart_skips_the_checks_that_the_start_has_skipped(shop):
    shop.listeners(ERROR)
    with shop.serve("--skip-checks", "-v2") as site:
        site.wait_until_started()
        site.send(signal.SIGUSR2)
        site.wait_for_line("^Quit with", count=2)
        assert site.stop() == 0
    assert shop.events() == []


# Static files


@pytest.mark.extended
@pytest.mark.parametrize(
    ("debug", "option", "status"),
    [
        (False, "--insecure", 200),
        pytest.param(True, "--nostatic", 404, marks=pytest.mark.extended),
    ],
)
def test_a_reload_and_a_restart_keep_the_option_for_static_files(project, debug, option, status):
    add_static_files(project, DEBUG=debug, WSPBUS=BOTH)

    def statuses():
        return [status_of(f"{url}/static/shop.css") for url in urls.values()]

    with project.serve(option, "-v2") as site:
        urls = site.wait_until_started()
        assert statuses() == [status] * 2
        site.send(signal.SIGUSR1)
        site.wait_for_line("Reloaded after")
        assert statuses() == [status] * 2
        site.send(signal.SIGUSR2)
        site.wait_for_line("Restarting after")
        site.wait_for_line("^Quit with", count=2)
        assert statuses() == [status] * 2
        assert site.stop() == 0


@pytest.mark.extended
def test_static_files_without_their_url_are_a_mistake_in_one_line(project):
    project.configure(INSTALLED_APPS=STATIC, STATIC_URL=None, WSPBUS=wspbus(THREADED))
    result = project.run("runbus", "--insecure")
    assert result.returncode == 1
    assert reason_of(result).startswith(
        "CommandError: The server 'default' did not start: its static files cannot be served: "
    )
    assert "STATIC_URL" in result.stderr


# One request at a time

THREADS = """\
import threading

from django.http import JsonResponse
from django.urls import path


def tell(request):
    return JsonResponse([threading.get_ident(), request.environ["wsgi.multithread"]], safe=False)


urlpatterns = [path("", tell)]
"""


def test_nothreading_serves_all_in_one_thread_and_is_held_up_by_no_silent_client(project):
    project.write("shop/urls.py", THREADS)
    project.configure(DEBUG=True, WSPBUS=wspbus(THREADED))
    with project.serve("--nothreading") as site:
        url = site.wait_until_started()["default"]
        host, _, port = url.removeprefix("http://").partition(":")
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(socket.create_connection((host, int(port))))
            answers = [tuple(fetch_json(url)) for _ in range(5)]
        assert site.stop(signal.SIGINT) == 0
    assert len(set(answers)) == 1
    assert answers[0][1] is False


# Request lines


@pytest.mark.parametrize("alias", ["gunicorn", "threaded"])
def test_request_lines_have_the_logger_the_levels_and_the_words_of_runserver(developed, alias):
    url = developed.wait_until_started()[alias]
    before = len(request_lines(developed.cwd))
    paths = ["/?a=b", "/there", "/static/shop.css", "/static/none.css", "/fail"]
    assert [status_of(f"{url}{path}") for path in paths] == [200, 200, 200, 404, 500]
    head = urllib.request.Request(f"{url}/static/shop.css", method="HEAD")
    assert status_of(head) == 200
    date = r"\d\d/[A-Z][a-z]{2}/\d{4} \d\d:\d\d:\d\d"
    expected = [
        rf'INFO 200 {date} "GET /\?a=b HTTP/1\.1" 200 4',
        rf'INFO 302 {date} "GET /there HTTP/1\.1" 302 0',
        rf'INFO 200 {date} "GET / HTTP/1\.1" 200 4',
        rf'INFO 200 {date} "GET /static/shop\.css HTTP/1\.1" 200 7',
        rf'WARNING 404 {date} "GET /static/none\.css HTTP/1\.1" 404 \d+',
        rf'ERROR 500 {date} "GET /fail HTTP/1\.1" 500 \d+',
        rf'INFO 200 {date} "HEAD /static/shop\.css HTTP/1\.1" 200 0',
    ]
    await_that(lambda: len(request_lines(developed.cwd)) >= before + len(expected))
    lines = request_lines(developed.cwd)[before:]
    assert len(lines) == len(expected)
    for each in expected:  # in any order: a line is written once its answer has been sent
        assert len([line for line in lines if re.fullmatch(f"django.server {each}", line)]) == 1


OWN_LOGS = {
    "stdout": {"accesslog": "-"},
    "config": {"config": "gunicorn.conf.py"},
    "format": {"access_log_format": "%(r)s"},
    "class": {"logger_class": "gunicorn.glogging.Logger"},
}
GUNICORNS = {**NAMED, "loggers": {**NAMED["loggers"], "gunicorn.access": {"level": "INFO"}}}


@pytest.mark.parametrize(
    ("options", "logging", "shown"),
    [
        ({"file": {"accesslog": "access.log"}}, NAMED, 1),
        pytest.param(OWN_LOGS, NAMED, 2, marks=pytest.mark.extended),
        pytest.param({"logging": {}}, GUNICORNS, 0, marks=pytest.mark.extended),
    ],
    ids=["accesslog", "options", "LOGGING"],
)
def test_an_access_log_of_gunicorns_own_takes_the_place_of_request_lines(project, options, logging, shown):
    project.write("gunicorn.conf.py", "accesslog = 'access.log'\n")
    servers = {alias: {**GUNICORN, "OPTIONS": each} for alias, each in options.items()}
    project.configure(DEBUG=True, WSPBUS={"SERVERS": servers, "AUTORELOAD": False}, LOGGING=logging)
    with project.serve() as site:
        urls = site.wait_until_started()
        assert set(urls) == set(options)
        for url in urls.values():
            fetch(url)
        assert site.stop() == 0
    assert request_lines(project.root) == []
    log = project.root / "access.log"
    written = site.output + (log.read_text() if log.exists() else "")
    assert written.count('"GET / HTTP/1.1" 200') == shown


# In a terminal

TLS = ssl.create_default_context()
TLS_HINT = "You're accessing the development server over HTTPS, but it only supports HTTP."


def speak_tls(url):
    """Shake hands as a browser would for https; return the error if there is one."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as sock:
        try:
            TLS.wrap_socket(sock, server_hostname="localhost").close()
        except ssl.SSLError as error:
            return error
    return None


@pytest.mark.parametrize("options", [[], pytest.param(["--nothreading"], marks=pytest.mark.extended)])
def test_a_client_that_speaks_https_is_answered_at_once_and_a_line_says_why(project, options):
    project.configure(DEBUG=True, WSPBUS=wspbus(THREADED), LOGGING=NAMED)
    with project.serve(*options) as site:
        url = site.wait_until_started()["default"]
        for _ in range(10):  # it has a line's end in it now and then, or not, as chance will have it
            assert speak_tls(url) is not None
        fetch(url)
        assert site.stop() == 0
    lines = request_lines(project.root)
    assert [line.endswith(TLS_HINT) for line in lines] == [True] * 10 + [False]
    assert all(line.startswith("django.server ERROR 500 ") for line in lines[:10])


TASKS = {"tasks": {"PROGRAM": ["sh", "-c", "echo works; exec sleep 1000"]}}


def test_in_a_terminal_lines_are_coloured_by_their_status_or_by_their_program(project):
    project.write("shop/urls.py", PAGES)
    project.configure(DEBUG=True, WSPBUS={**BOTH, "PROCESSES": TASKS})
    paths = ["/", "/there", "/none", "/fail"]
    with Terminal(project) as site:
        for count, url in enumerate(site.wait_until_started().values(), 1):
            for path in paths:
                status_of(url + path)
                site.wait_for_line(rf'"GET {path} HTTP/1\.1"', count=count)
        site.wait_for_line(r'"GET / HTTP/1\.1"', count=4)
        site.wait_for_line(r"^\x1b\[36mtasks \|\x1b\[0m works$")
        site.press(CONTROL_C)
        assert site.wait() == 0
    shown = re.findall(r'\x1b\[([\d;]*)m"GET (\S+) .*\x1b\[0m', site.output)
    assert Counter(path for _, path in shown) == {
        "/": 4,
        "/there": 2,
        "/none": 2,
        "/fail": 2,
    }  # "/there" leads to "/"
    assert len(set(shown)) == len({colour for colour, _ in shown}) == 4  # of the same colours by both servers
    assert all(re.match(r"\[\d\d/[A-Z]\w\w/\d{4} ", line) for line in site.lines if '"GET' in line)


@pytest.mark.extended
def test_no_color_is_for_request_lines_and_programs_too(project):
    project.configure(DEBUG=True, WSPBUS={**BOTH, "PROCESSES": TASKS})
    with Terminal(project, "--no-color") as site:
        for count, url in enumerate(site.wait_until_started().values(), 1):
            status_of(f"{url}/none")
            site.wait_for_line(r'^\[.*\] "GET /none HTTP/1\.1" 404 \d+$', count=count)
        site.wait_for_line(r"^tasks \| works$")
        site.press(CONTROL_C)
        assert site.wait() == 0
    assert "\x1b" not in site.output


@pytest.mark.extended
@pytest.mark.parametrize("options", [[], ["--nothreading"]])
def test_control_c_ends_it_before_any_timeout_and_without_a_word(project, options):
    project.configure(DEBUG=True, WSPBUS={**wspbus(THREADED), "STOP_TIMEOUT": 2 * DEADLINE})
    with Terminal(project, *options) as site:
        fetch(site.wait_until_started()["default"])
        site.wait_for_line('"GET / HTTP')
        shown = len(site.lines)
        site.press(CONTROL_C)
        assert site.wait() == 0
    assert site.lines[shown:] in ([], ["^C"])


SLOW_CHECK = """
import time

from django.core import checks


@checks.register
def look(app_configs, **kwargs):
    note("checking")
    while True:  # a signal that comes just before the system call does not end a sleep
        time.sleep(0.05)
"""


def test_control_c_while_the_checks_are_made_leaves_without_a_traceback(project):
    project.configure(DEBUG=True, WSPBUS=wspbus(THREADED))
    project.listeners(SLOW_CHECK)
    with Terminal(project) as site:
        project.expect_note("checking")
        site.press(CONTROL_C)
        assert site.wait() == 130
    assert "Traceback" not in site.output
