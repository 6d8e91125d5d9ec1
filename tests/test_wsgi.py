from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError

import pytest

from django_wspbus.process.bus import ProcessBus
from django_wspbus.wsgi import WorkerApplication

from .processes import DEADLINE, fetch, free_port, run
from .projects import GUNICORN, LISTENERS, THREADED

# The journal of this project also shows whether the start was complete at the first request.
URLS = """
import os

from django.http import HttpResponse
from django.urls import path

from django_wspbus import bus


def answer(request):
    return HttpResponse(f"{os.getpid()} {bus.state.name} {' '.join(sorted(bus.roles))}")


urlpatterns = [path("", answer)]
"""


# A thread that the interpreter would wait for: only the rest of the lifespan ends it.
THREAD = """
import threading


@bus.lifespan
def consumer():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    yield
    stop.set()
    thread.join()
"""


@pytest.fixture
def project(project):
    project.configure(WSGI_APPLICATION="shop.wsgi.application")
    project.write("shop/listeners.py", LISTENERS + THREAD)
    project.write("shop/urls.py", URLS)
    project.write(
        "gunicorn.conf.py", "def post_worker_init(worker):\n    worker.log.info('Worker is ready')\n"
    )
    return project


def gunicorn(project, *options):
    """Return plain gunicorn, serving the project's wsgi.py."""
    command = [sys.executable, "-m", "gunicorn", "shop.wsgi:application", "--bind", "127.0.0.1:0"]
    return project.start(*command, "--no-control-socket", *options)


def url_of(program):
    return program.wait_for_line(r"(?:Listening at:|server at) (http://[\d.]+:\d+)")[1]


def answers(url, count):
    """Fetch the page a number of times at once; return the distinct answers."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(fetch, [url] * count))
    assert len(found) == count
    return set(found)


def pids_of(answers):
    """Return the workers that answered while their bus was STARTED."""
    assert answers
    parts = [answer.split() for answer in answers]
    assert all(rest == ["STARTED", "worker"] for _, *rest in parts), answers
    return {int(pid) for pid, *_ in parts}


def assert_once_in_each(project, pids):
    """Each started and stopped once, in order, and no other process did."""
    assert pids
    for pid in pids:
        events = [note.event for note in project.notes() if note.pid == pid]
        assert events == ["worker start", "worker stop", "worker exit"]
    assert {note.pid for note in project.notes()} == pids


# gunicorn, started by its own command


def extended(*values):
    return pytest.param(*values, marks=pytest.mark.extended)


@pytest.mark.parametrize(
    ("worker", "options"),
    [
        ("gthread", ["--preload"]),
        extended("sync", []),
        extended("sync", ["--preload"]),
        extended("gthread", []),
    ],
    ids=str,
)
def test_under_gunicorn_each_worker_starts_before_it_answers_and_stops_at_its_exit(project, worker, options):
    threads = "4" if worker == "gthread" else "1"
    command = ["--workers", "2", "--worker-class", worker, "--threads", threads, *options]
    with gunicorn(project, *command) as program:
        url = url_of(program)
        program.wait_for_line("Worker is ready", count=2)  # gunicorn loses a SIGTERM that comes before
        pids = pids_of(answers(url, 40))
        assert program.pid not in pids
        assert program.stop() == 0
    assert_once_in_each(project, pids)


@pytest.mark.parametrize("worker", [extended("sync"), "gthread"])
def test_a_worker_that_exits_after_its_number_of_requests_stops_and_its_successor_starts(project, worker):
    options = ["--max-requests", "3", "--worker-class", worker]
    with gunicorn(project, *options) as program:
        url = url_of(program)
        pids = set()
        for _ in range(100):  # a worker that is about to exit may answer a few more
            pids |= pids_of({fetch(url)})
            if len(pids) == 3:
                break
        project.expect_note("worker exit", 2)
        assert program.stop() == 0
    assert len(pids) == 3
    assert_once_in_each(project, pids)


def test_a_start_that_fails_fails_the_request_and_is_tried_again_by_the_next(project):
    project.listeners(
        """
attempts = []


@bus.subscribe("start")
def start():
    attempts.append(1)
    note("attempt")
    if len(attempts) == 1:
        raise RuntimeError("the first attempt")


bus.subscribe("stop", lambda: note("stop"))
"""
    )
    with gunicorn(project) as program:
        url = url_of(program)
        with pytest.raises(HTTPError, match="500"):
            fetch(url)
        pids_of(answers(url, 5))
        assert program.stop() == 0
    assert project.events() == ["attempt", "stop", "attempt", "stop"]
    assert "RuntimeError: the first attempt" in program.output


@pytest.mark.extended
def test_a_failure_is_logged_whichever_loggers_the_project_disables(project):
    handlers = {"console": {"class": "logging.StreamHandler"}}
    project.configure(LOGGING={"version": 1, "handlers": handlers, "root": {"handlers": ["console"]}})
    project.listeners('@bus.subscribe("stop")\ndef one_that_fails():\n    raise RuntimeError("on purpose")\n')
    with gunicorn(project) as program:
        assert answers(url_of(program), 1)
        assert program.stop() == 0
    assert program.output.count("RuntimeError: on purpose") == 1


# Other servers

OTHERS = {
    "granian": (["granian", "--interface", "wsgi", "--workers", "2", "--port"], signal.SIGTERM),
    "waitress": (["waitress", "--port"], signal.SIGINT),
}


@pytest.mark.extended
@pytest.mark.parametrize("name", OTHERS)
def test_under_other_servers_the_bus_stops_after_the_last_request(project, name):
    pytest.importorskip(name)
    options, number = OTHERS[name]
    project.write("shop/urls.py", URLS + SLOW)
    port = free_port()
    command = [sys.executable, "-m", *options, str(port), "shop.wsgi:application"]
    url = f"http://127.0.0.1:{port}"
    with project.start(*command) as program, ThreadPoolExecutor() as pool:
        until_it_answers(url)
        pids = until_all_answer(url, WORKERS[name])  # granian never ends if it gets the signal before
        slow = pool.submit(fetch, f"{url}/slow")
        project.expect_note("slow")
        assert program.stop(number) == 0
        pids |= pids_of({slow.result()})
    for pid in pids:
        events = [note.event for note in project.notes() if note.pid == pid]
        assert [event for event in events if "slow" not in event] == [
            "worker start",
            "worker stop",
            "worker exit",
        ]
    events = [note.event for note in project.notes() if note.pid == project.notes("slow")[0].pid]
    assert events == ["worker start", "slow", "slow answered", "worker stop", "worker exit"]


SLOW = """
import time

from shop.journal import note


def slow(request):
    note("slow")
    time.sleep(0.5)
    note("slow answered")
    return answer(request)


urlpatterns += [path("slow", slow)]
"""

WORKERS = {"granian": 2, "waitress": 1}


def until_all_answer(url, count):
    """Ask until a number of processes have answered; return their PIDs."""
    deadline, pids = time.monotonic() + DEADLINE, set()
    while len(pids) < count:
        assert time.monotonic() < deadline
        pids |= pids_of(answers(url, 10))
    return pids


def until_it_answers(url):
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return fetch(url)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


# runserver


@pytest.mark.extended
def test_under_runserver_the_process_that_serves_starts_and_stops(project):
    with project.start("manage.py", "runserver", "--noreload", "127.0.0.1:0") as program:
        pids = pids_of(answers(url_of(program), 10))
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does
        assert program.wait() == 0
    assert pids == {program.pid}
    assert_once_in_each(project, pids)


@pytest.mark.extended
def test_a_reload_of_runserver_stops_the_old_process_and_starts_the_new_one(project):
    project.configure(WSGI_APPLICATION="shop.wsgi.application", LOGGING=LOG_OF_THE_RELOADER)
    with project.start("manage.py", "runserver", "127.0.0.1:0") as program:
        first = pids_of(answers(url_of(program), 1))
        program.wait_for_line(r"shop/urls\.py first seen")  # a save before that is lost
        project.write("shop/urls.py", URLS + "\n# saved\n")
        url = program.wait_for_line(r"server at (http://[\d.]+:\d+)", count=2)[1]
        second = pids_of(answers(url, 1))
        # Not to the reloader as well: `subprocess.run` would kill its child after a quarter of a second.
        os.kill(*second, signal.SIGINT)
        assert program.wait() == 0
    assert len(first | second | {program.pid}) == 3
    assert_once_in_each(project, first | second)


LOG_OF_THE_RELOADER = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django.utils.autoreload": {"handlers": ["console"], "level": "DEBUG"}},
}


# runbus


def test_under_runbus_it_adds_nothing(project):
    servers = {"child": {**GUNICORN, "OPTIONS": {"workers": 2}}, "thread": THREADED}
    project.configure(WSGI_APPLICATION="shop.wsgi.application", WSPBUS={"SERVERS": servers})
    with project.serve() as site:
        for url in site.wait_until_started().values():
            assert answers(url, 20)
        assert site.stop() == 0
    for event in ("worker start", "worker stop", "worker exit"):
        pids = [note.pid for note in project.notes(event)]
        assert len(pids) == len(set(pids)) == 3


# Any other server

REQUEST = """
import multiprocessing
import os
import sys
from wsgiref.util import setup_testing_defaults


def request():
    from shop.wsgi import application

    environ = {}
    setup_testing_defaults(environ)
    application(environ, lambda status, headers: print(status, os.getpid(), sep="\\n", flush=True))


if __name__ == "__main__":
"""

ENDS = {
    "whose child ends": """
    request()
    if os.fork() == 0:
        sys.exit(0)
    os.wait()
""",
    "that multiprocessing started": """
    process = multiprocessing.get_context("spawn").Process(target=request)
    process.start()
    process.join()
""",
    # The module that Apache has in its processes. It ends the interpreter of a site in this way.
    "of Apache": """
    import types

    callbacks = []
    sys.modules["mod_wsgi"] = types.SimpleNamespace(subscribe_shutdown=callbacks.append)
    request()
    for callback in callbacks:
        callback("process_stopping", shutdown_reason="")
    os._exit(0)
""",
}


@pytest.mark.parametrize("program", ENDS)
def test_the_bus_stops_once_in_a_process(project, program):
    project.write("program.py", REQUEST + ENDS[program])
    ended = run([sys.executable, "program.py"], env=os.environ | project.environment, cwd=project.root)
    status, pid = ended.stdout.splitlines()
    assert (status, ended.returncode) == ("200 OK", 0)
    assert_once_in_each(project, {int(pid)})


def test_listeners_and_jobs_of_the_leader_are_named_once_as_they_never_run(project):
    project.listeners(
        """
from django_wspbus import cron

@every(60, role="leader")
def remind(): ...


cron("0 3 * * *")(lambda: None)
"""
    )
    project.write("program.py", REQUEST + "    request()\n    request()\n")
    ended = run([sys.executable, "program.py"], env=os.environ | project.environment, cwd=project.root)
    beginning = "Under this server no process plays the role 'leader', so these listeners never run: "
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith(beginning)]
    assert "shop.listeners.remind" in line
    assert "shop.listeners.<lambda>" in line


def test_listeners_of_the_role_site_are_named_once_in_each_process_as_they_never_run(project):
    project.listeners(
        """
@every(60, role="site")
def clean_up(): ...


bus.subscribe("paid", print, role="site")
bus.subscribe("start", lambda: None)


@bus.lifespan(role="site")
def scheduler():
    yield
"""
    )
    project.write("program.py", REQUEST + "    request()\n    request()\n")
    ended = run([sys.executable, "program.py"], env=os.environ | project.environment, cwd=project.root)
    beginning = "Under this server no process plays the role 'site', so these listeners never run: "
    names = "shop.listeners.clean_up, builtins.print, shop.listeners.scheduler"
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{beginning}{names}. ")


def test_many_first_requests_at_once_start_it_once():
    bus = ProcessBus()
    started, barrier = [], threading.Barrier(20)
    bus.subscribe("start", lambda: started.append(threading.get_ident()))
    app = WorkerApplication(lambda environ, start_response: [bus.state.name.encode()], bus)

    def request(_):
        barrier.wait()
        return app({}, None)

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(request, range(20))) == [[b"STARTED"]] * 20
    assert len(started) == 1
    assert bus.roles == {"worker"}
    app._exit(os.getpid())
    atexit.unregister(app._exit)
