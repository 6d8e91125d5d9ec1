"""What the control socket shows of a site: its requests, stacks, listeners, log records and processes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from django_wspbus.control.client import ask as request
from django_wspbus.control.finding import FoundSite
from django_wspbus.control.protocol import Entry, Error, Result
from django_wspbus.site.channels import RESERVED_CHANNELS
from django_wspbus.system.processes import state_of
from django_wspbus.wspbus.messenger import BUILT_IN_CHANNELS
from tests.controlled import order, result, site_of
from tests.processes import DEADLINE, RunningSite
from tests.projects import GUNICORN, THREADED, Project
from tests.servers.clients import ask
from tests.servers.conftest import address_of
from tests.servers.load import await_that

URLS = """\
import ctypes
import logging
import os
import time

from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from .journal import PATH, note

logger = logging.getLogger("shop.quiet")


def wait_for(name):
    while not (PATH.parent / name).exists():
        time.sleep(0.01)


def held(request, name):
    note(f"held {name}")
    wait_for(name)
    return HttpResponse(str(os.getpid()))


def stream(request, name):
    def chunks():
        yield b"first"
        wait_for(name)
        yield b"last"

    return StreamingHttpResponse(chunks())


def hold_the_gil(request, name):
    note(f"gil {name}")
    while not (PATH.parent / name).exists():
        ctypes.PyDLL(None).usleep(10_000)
    return HttpResponse("done")


def log(request, text):
    logger.info("said %s", text)
    return HttpResponse(str(os.getpid()))


urlpatterns = [
    path("held/<name>", held),
    path("stream/<name>", stream),
    path("gil/<name>", hold_the_gil),
    path("log/<text>", log),
]
"""

LISTENERS = """\
import os
import time

from django_wspbus.process import dump

from .journal import PATH

dump.DUMP_TIMEOUT = 30  # no machine is too slow


@bus.subscribe("cache.size", priority=7)
def size(*args):
    return [os.getpid(), *args]


@bus.subscribe("cache.infinite")
def infinite():
    return float("inf")


@bus.subscribe("cache.odd")
def odd():
    return object()


@bus.subscribe("cache.slow", role="worker")
def slow():
    while not (PATH.parent / "slow").exists():
        time.sleep(0.01)


@every(3600)
def hourly():
    pass


@bus.lifespan(role="site")
def pool():
    yield
"""

# It applies LOGGING once more, as the wsgi.py of any project does.
WSGI = """\
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
"""

LOGGING = {
    "version": 1,
    "disable_existing_loggers": True,
    "handlers": {"null": {"class": "logging.NullHandler"}},
    "root": {"handlers": ["null"], "level": "WARNING"},
    "loggers": {"shop.quiet": {"handlers": ["null"], "level": "INFO", "propagate": False}},
}


class Served(NamedTuple):
    project: Project
    program: RunningSite
    site: FoundSite
    child: str
    thread: str
    """The addresses of the server in a child, and of the one in the site process."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One site for all tests here, none of which ends it."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.write("shop/urls.py", URLS)
    project.write("shop/wsgi.py", WSGI)
    project.listeners(LISTENERS)
    child = {**GUNICORN, "OPTIONS": {"workers": 2, "threads": 2}}
    project.configure(
        WSPBUS={"SERVERS": {"child": child, "thread": THREADED}},
        WSGI_APPLICATION="shop.wsgi.application",
        LOGGING=LOGGING,
    )
    with project.serve() as program:
        program.wait_until_started()
        yield Served(
            project, program, site_of(program), address_of(program, "child"), address_of(program, "thread")
        )
        assert program.stop() == 0


@pytest.fixture
def pool(served: Served) -> Iterator[ThreadPoolExecutor]:
    """Clients, none of whose requests is in flight any more in the next test."""
    with ThreadPoolExecutor() as pool:
        yield pool
    in_flight(served, 0)


@pytest.fixture
def release(served: Served, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a file that releases the requests that wait for it; made at the end at the latest."""
    name = re.sub(r"\W", "-", request.node.name)
    yield name
    served.project.write(name, "")


def await_log(served: Served, pattern: str) -> dict[str, Any]:
    """Wait until a log record matches; return it."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        records = result(served.site, "logs")["records"]
        found[:] = [each for each in records if re.search(pattern, each["text"])]
        return bool(found)

    await_that(look, lambda: served.program.output)
    return found[-1]


def in_flight(served: Served, count: int) -> list[dict[str, Any]]:
    """Wait until so many requests are in flight, and return them."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = result(served.site, "requests")["requests"]
        return len(found) == count

    await_that(look, lambda: found)
    return found


def processes(served: Served, role: str) -> list[dict[str, Any]]:
    rows = result(served.site, "status")["servers"]["child"]["processes"]
    return [row for row in rows if row["role"] == role]


def test_requests_in_flight_of_all_servers_are_shown_until_their_last_byte(
    served: Served, pool: ThreadPoolExecutor, release: str
) -> None:
    pool.submit(ask, served.child, f"/stream/{release}?token=secret")
    pool.submit(ask, served.thread, f"/held/{release}?token=secret")
    rows = {row["server"]: row for row in in_flight(served, 2)}

    workers = {row["pid"] for row in processes(served, "worker")}
    assert rows["child"]["pid"] in workers
    assert rows["thread"]["pid"] == served.program.pid
    assert (rows["child"]["method"], rows["child"]["path"]) == ("GET", f"/stream/{release}")
    assert (rows["thread"]["method"], rows["thread"]["path"]) == ("GET", f"/held/{release}")
    assert all(0 <= row["idle"] <= row["age"] < DEADLINE and not row["stuck"] for row in rows.values())

    served.project.write(release, "")
    assert in_flight(served, 0) == []


def test_stacks_show_every_thread_of_every_process_although_c_code_holds_the_gil(
    served: Served, pool: ThreadPoolExecutor, release: str
) -> None:
    pool.submit(ask, served.child, f"/gil/{release}")
    pool.submit(ask, served.thread, f"/held/{release}")
    requests = in_flight(served, 2)
    served.project.expect_note(f"gil {release}")
    served.project.expect_note(f"held {release}")
    shown = result(served.site, "stacks")["processes"]

    assert [each["role"] for each in shown] == ["site", "master", "worker", "worker"]
    assert [each["error"] for each in shown] == [None] * 4
    (worker,) = [each for each in shown if f"GET /gil/{release}" in each["stacks"]]
    assert worker["pid"] in {row["pid"] for row in requests if row["server"] == "child"}
    (thread,) = [part for part in worker["stacks"].split("\n\n") if "GET /gil/" in part]
    assert " in hold_the_gil" in thread
    assert " in held" in shown[0]["stacks"]

    (only,) = result(served.site, "stacks", pid=worker["pid"])["processes"]
    assert only["pid"] == worker["pid"]
    (*_, error) = request(served.site, "stacks", {"pid": 1})
    assert isinstance(error, Error)
    assert error.text.startswith("Process 1 does not belong to this site. Its processes are ")
    assert str(only["pid"]) in error.text


def test_a_worker_that_is_stopped_is_named_at_once_and_the_site_is_not_well(
    served: Served, pool: ThreadPoolExecutor, release: str
) -> None:
    assert result(served.site, "status")["well"]
    pool.submit(ask, served.child, f"/held/{release}")
    (row,) = in_flight(served, 1)
    victim = row["pid"]
    os.kill(victim, signal.SIGSTOP)
    try:
        await_that(lambda: state_of(victim) == "T")
        status = result(served.site, "status")
        assert [row["path"] for row in in_flight(served, 1)] == [f"/held/{release}"]
        stacks = {each["pid"]: each["error"] for each in result(served.site, "stacks")["processes"]}
    finally:
        os.kill(victim, signal.SIGCONT)

    assert not status["well"]
    assert status["reason"] == f"worker {victim} of the server 'child' is stopped (SIGSTOP)"
    states = {row["pid"]: row["state"] for row in status["servers"]["child"]["processes"]}
    assert states.pop(victim) == "stopped"
    assert set(states.values()) == {"serving"}
    assert {pid for pid, error in stacks.items() if error} == {victim}
    assert stacks[victim] == "does not respond: it is stopped (SIGSTOP)"


def test_the_status_has_the_figures_of_each_server_and_process(
    served: Served, pool: ThreadPoolExecutor, release: str
) -> None:
    pool.submit(ask, served.child, f"/held/{release}")
    in_flight(served, 1)
    status = result(served.site, "status")

    assert (status["pid"], status["condition"], status["well"]) == (served.program.pid, "ready", True)
    assert 0 < status["since"] <= status["uptime"]
    assert status["settings"] == "settings"
    assert {*status["versions"]} == {"django-wspbus", "Django", "Python"}
    child, thread = status["servers"]["child"], status["servers"]["thread"]
    assert (child["wanted"], child["threads"], child["busy"], child["queue"]) == (2, 4, 1, 0)
    assert child["urls"] == [f"http://{served.child}/"]
    assert child["title"].startswith("gunicorn ")
    assert [row["role"] for row in child["processes"]] == ["master", "worker", "worker"]
    assert [row["threads"] for row in child["processes"]] == [None, 2, 2]
    assert sum(row["busy"] or 0 for row in child["processes"]) == 1
    assert all(row["memory"] > 2**20 for row in child["processes"])
    assert (thread["wanted"], thread["threads"], thread["busy"]) == (None, None, 0)
    assert [(row["pid"], row["role"]) for row in thread["processes"]] == [(served.program.pid, "site")]


def test_listeners_are_named_as_the_project_names_them(served: Served) -> None:
    rows = result(served.site, "listeners")["listeners"]
    own = {
        (row["channel"], row["priority"], row["role"], row["listener"])
        for row in rows
        if row["listener"].startswith("shop.")
    }

    assert own == {
        ("cache.infinite", 50, "any", "shop.listeners.infinite"),
        ("cache.odd", 50, "any", "shop.listeners.odd"),
        ("cache.size", 7, "any", "shop.listeners.size"),
        ("cache.slow", 50, "worker", "shop.listeners.slow"),
        ("start", 50, "site", "shop.listeners.pool"),
        ("start", 70, "worker", "shop.listeners.hourly"),
        ("stop", 30, "worker", "shop.listeners.hourly"),
        ("stop", 50, "site", "shop.listeners.pool"),
    }
    assert all(row["listener"].startswith("django_wspbus.") for row in rows if "shop" not in row["listener"])
    order = [(row["channel"], row["priority"]) for row in rows]
    assert order == sorted(order)


def test_a_publication_is_answered_by_the_site_and_every_worker(served: Served) -> None:
    answer = result(served.site, "publish", channel="cache.size", args=[1, "two"], timeout=DEADLINE)
    workers = {row["pid"] for row in processes(served, "worker")}

    assert answer["missing"] == []
    assert {each["pid"] for each in answer["replies"]} == {served.program.pid, *workers}
    assert all(each["results"] == [[each["pid"], 1, "two"]] for each in answer["replies"])


def test_a_process_that_does_not_answer_a_publication_is_named(served: Served) -> None:
    answer = result(served.site, "publish", channel="cache.slow", timeout=0.2)
    served.project.write("slow", "")

    # The site serves, too, and so has the role of a worker.
    assert answer["replies"] == []
    assert {each["reason"] for each in answer["missing"]} == {"no answer within 0.2 s"}
    assert len(answer["missing"]) == 3


def test_results_that_json_does_not_know_are_an_error_of_their_process(served: Served) -> None:
    answer = result(served.site, "publish", channel="cache.odd", timeout=DEADLINE)

    assert len(answer["replies"]) == 3
    assert all("JSON serializable" in each["error"] for each in answer["replies"])


def test_a_number_that_json_does_not_know_is_an_error_of_its_process(served: Served) -> None:
    answer = result(served.site, "publish", channel="cache.infinite", timeout=DEADLINE)

    assert len(answer["replies"]) == 3
    assert all("not JSON compliant" in each["error"] for each in answer["replies"])


def test_a_channel_of_the_package_is_not_for_publications(served: Served) -> None:
    assert {"abort", "execv", "reopen", "more", "fewer"} < {*RESERVED_CHANNELS}
    for channel in (*BUILT_IN_CHANNELS, *RESERVED_CHANNELS):
        (*_, answer) = request(served.site, "publish", {"channel": channel, "args": []})
        assert isinstance(answer, Error)
        assert f"The channel {channel!r} belongs to django-wspbus" in answer.text


def test_log_records_of_all_processes_are_shown_without_any_file(served: Served) -> None:
    worker = int(ask(served.child, "/log/child")[1])
    ask(served.thread, "/log/thread")
    records = result(served.site, "logs")["records"]

    said = {each["text"]: (each["pid"], each["level"], each["logger"]) for each in records}
    # Its logger does not propagate, and wsgi.py has applied LOGGING once more.
    assert said["said child"] == (worker, "INFO", "shop.quiet")
    assert said["said thread"] == (served.program.pid, "INFO", "shop.quiet")
    # LOGGING shows no INFO of django_wspbus.
    started = {each["pid"] for each in records if each["text"] == "Bus STARTED"}
    assert started == {served.program.pid, *(row["pid"] for row in processes(served, "worker"))}
    assert [each["time"] for each in records] == sorted(each["time"] for each in records)


def test_a_client_that_follows_the_log_gets_new_records_as_they_come(served: Served) -> None:
    replies = request(served.site, "logs", {"follow": True}, timeout=None)
    seen: list[str] = []
    for reply in replies:
        assert isinstance(reply, Entry)
        seen.append(reply.values["text"])
        if seen[-1] == "Bus STARTED" and seen.count("Bus STARTED") == 3:
            ask(served.child, "/log/followed")
        if seen[-1] == "said followed":
            break

    assert seen.count("said followed") == 1


# These change the site, and so come last


def test_the_log_names_the_requests_that_are_lost_with_a_killed_worker(
    served: Served, pool: ThreadPoolExecutor, release: str
) -> None:
    lost = pool.submit(ask, served.child, f"/held/{release}?token=secret")
    served.project.expect_note(f"held {release}")
    (row,) = in_flight(served, 1)
    os.kill(row["pid"], signal.SIGKILL)

    record = await_log(served, "requests lost")
    assert re.fullmatch(
        f"Worker {row['pid']} of the server 'child' ended unexpectedly; "
        rf"requests lost: GET /held/{release} \(after \d+\.\d s\)\.",
        record["text"],
    )
    assert (record["pid"], record["level"]) == (served.program.pid, "ERROR")
    assert lost.exception(DEADLINE) is not None
    await_log(served, rf"Worker \(pid:{row['pid']}\) was sent SIGKILL")  # gunicorn's master says how
    # What the worker has logged is still there.
    records = result(served.site, "logs")["records"]
    assert [each["text"] for each in records if each["pid"] == row["pid"]][:2] == [
        "Bus STARTING",
        "Bus STARTED",
    ]
    await_that(lambda: result(served.site, "status")["well"] and len(processes(served, "worker")) == 2)


def test_the_status_has_the_traceback_of_a_refused_reload_until_the_next_one_succeeds(served: Served) -> None:
    assert result(served.site, "status")["last_operation"] is None
    path = served.project.write("shop/urls.py", "1 / 0\n")
    _, refused = order(served.site, "graceful")
    status = result(served.site, "status")
    path.write_text(URLS)
    _, done = order(served.site, "graceful")
    after = result(served.site, "status")["last_operation"]

    assert isinstance(refused, Error)
    operation = status["last_operation"]
    assert (operation["operation"], operation["succeeded"]) == ("reload", False)
    assert "The reload failed; the old code keeps serving: " in operation["error"]
    assert "Traceback (most recent call last)" in operation["error"]
    assert "ZeroDivisionError: division by zero" in operation["error"]
    assert operation["ago"] >= 0
    assert operation["seconds"] > 0
    assert (status["well"], status["condition"]) == (True, "ready")
    assert isinstance(done, Result)
    assert (after["operation"], after["succeeded"], after["error"]) == ("reload", True, None)


def test_the_number_of_workers_is_that_of_a_server_with_workers(served: Served) -> None:
    scaled = result(served.site, "scale", server="child", workers=2)
    assert scaled == {"server": "child", "before": 2, "workers": 2}
    for server, reason, status in (
        ("thread", "The server 'thread' serves in the site process, and so has no workers.", 1),
        ("other", "There is no server 'other'. The site has 'child', 'thread'.", 2),
    ):
        (outcome,) = request(served.site, "scale", {"server": server, "workers": 2})
        assert outcome == Error(reason, status)


def test_a_site_that_belongs_to_no_fleet_says_so(served: Served) -> None:
    for action in ("graceful", "restart", "status"):
        _, outcome = order(served.site, action, fleet=True)
        assert outcome == Error('This site belongs to no fleet: WSPBUS["FLEET"] is not set.')
    _, outcome = order(served.site, "graceful", skip_missing=True)
    assert outcome == Error("graceful takes --skip-missing with --fleet only.", 2)
