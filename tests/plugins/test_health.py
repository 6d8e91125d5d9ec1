"""The probes of a site: what they answer, when, and what they leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from django_wspbus.health import checks as health_checks
from django_wspbus.health import server as health_server
from django_wspbus.health.http import prefers_json
from django_wspbus.health.report import Condition
from django_wspbus.health.server import MOST_PROBE_CONNECTIONS
from django_wspbus.plugins import health as health
from django_wspbus.plugins.health import Probes
from django_wspbus.wspbus import Bus, ChannelFailures, states
from tests.descriptors import no_descriptor
from tests.processes import DEADLINE, run
from tests.projects import Project
from tests.servers.conftest import descriptors
from tests.servers.load import await_that, await_value

SOON = 0.1


@dataclass
class Answer:
    status: int
    headers: HTTPMessage
    body: str


class ProbedSite:
    """A bus with the probes on it, a condition that a test may change, and what a client does."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.condition: Condition | Exception = Condition("ready")
        self.lines: list[tuple[int, str]] = []
        self.sockets = [socket.create_server(("127.0.0.1", 0), backlog=200)]
        self.bus.subscribe("log", lambda message, level: self.lines.append((level, message)))
        self.probes = Probes(self.bus, lambda: self.sockets, self.look)
        self.probes.subscribe()

    def look(self) -> Condition:
        if isinstance(self.condition, Exception):
            raise self.condition
        return self.condition

    def close(self) -> None:
        if self.bus.state is not states.EXITING:
            self.bus.exit()
        for each in self.sockets:
            each.close()

    def said(self, *words: str) -> list[str]:
        """Return what was logged with any of some words."""
        return [message for _, message in self.lines if any(word in message for word in words)]

    def connect(self, number: int = 0) -> socket.socket:
        return socket.create_connection(self.sockets[number].getsockname(), DEADLINE)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        with self.connect() as connection:
            lines = [f"{method} {path} HTTP/1.1", "Host: site", *map(": ".join, headers.items())]
            connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
            return read_answer(connection, method)

    def expect(self, path: str, status: int, text: str) -> None:
        answer = self.ask(path)
        assert (answer.status, answer.body) == (status, f"{text}\n")

    def checks(self) -> dict[str, str]:
        """Return the checks in the JSON of ``/readyz``, by name."""
        found: dict[str, str] = json.loads(self.ask("/readyz?format=json").body)["checks"]
        return found


def read_answer(connection: socket.socket, method: str = "GET") -> Answer:
    response = HTTPResponse(connection, method=method)
    response.begin()
    with response:
        answer = Answer(response.status, response.headers, response.read().decode())
    assert connection.recv(1) == b""
    return answer


def read_to_end(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes or resets the connection."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


class HeldCheck:
    """A check that hangs until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()
        self.calls = 0
        self.result: Any = None

    def __call__(self) -> Any:
        self.calls += 1
        self.entered.set()
        assert self.released.wait(DEADLINE)
        return self.result


class Witness:
    """A check that is fine, and counts: that it is made shows that the probe has come to those before it."""

    def __init__(self) -> None:
        self.calls = 0
        self.changed = threading.Condition()

    def __call__(self) -> None:
        with self.changed:
            self.calls += 1
            self.changed.notify_all()

    def expect(self, calls: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.calls == calls, DEADLINE), self.calls
        # Else the next probe might share this run.
        await_that(lambda: f"Check {__name__}.Witness" not in threads())


def no_thread(patch: pytest.MonkeyPatch, name: str) -> None:
    """Refuse threads whose names begin so, as a system does that has too many."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(name):
            raise RuntimeError("can't start new thread")
        start(thread)

    patch.setattr(threading.Thread, "start", refuse)


def descriptors_of(site: ProbedSite) -> int:
    """Return how many descriptors are open, now that the bus has its own."""
    site.bus.wait_for(lambda: True)
    return descriptors(os.getpid())


def connections(site: ProbedSite) -> int:
    """Return how many connections the probes have."""
    assert site.probes._server is not None
    return len(site.probes._server._clients)


HELD_CHECK = "tests.plugins.test_health.HeldCheck"


@pytest.fixture
def held_check() -> Iterator[HeldCheck]:
    held_check = HeldCheck()
    yield held_check
    held_check.released.set()


@pytest.fixture(autouse=True)
def _long_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise all timeouts, so that no machine is too slow. Tests of a timeout set it again."""
    for module, name in (
        (health_checks, "CHECK_TIMEOUT"),
        (health_server, "CLIENT_TIMEOUT"),
        (health, "EXIT_TIMEOUT"),
    ):
        monkeypatch.setattr(module, name, DEADLINE)


@pytest.fixture
def silent(held_check: HeldCheck) -> Iterator[ProbedSite]:
    """A site that is not started yet, and which must have left no thread when the test ends."""
    before = threads()
    site = ProbedSite()
    yield site
    held_check.released.set()
    site.close()
    await_value(threads, before)


@pytest.fixture
def site(silent: ProbedSite) -> ProbedSite:
    silent.bus.start()
    return silent


Later = Callable[..., Future[Any]]


# What the states mean


@pytest.mark.parametrize(
    ("condition", "status", "text"),
    [
        (Condition("starting"), 503, "starting"),
        (Condition("ready"), 200, "ready"),
        (Condition("reloading", "the new code boots"), 200, "reloading: the new code boots"),
        (Condition("saturated", "every thread is busy"), 200, "saturated: every thread is busy"),
        (Condition("draining"), 503, "draining"),
        (Condition("failed", "default died:\n  signal 9"), 503, "failed: default died: signal 9"),
        (Condition("failed", "\udcff"), 503, "failed: \\udcff"),
    ],
)
def test_readiness_is_200_where_the_site_serves_and_liveness_also_elsewhere(
    site: ProbedSite, condition: Condition, status: int, text: str
) -> None:
    site.condition = condition

    site.expect("/readyz", status, text)
    site.expect("/livez", 200, text)


def test_a_site_that_only_a_restart_helps_is_neither_ready_nor_alive(site: ProbedSite) -> None:
    site.condition = Condition("stuck", "a stuck worker cannot be replaced")

    site.expect("/readyz", 503, "stuck: a stuck worker cannot be replaced")
    site.expect("/livez", 503, "stuck: a stuck worker cannot be replaced")


def test_a_site_that_starts_is_seen_starting_and_one_that_stops_draining(silent: ProbedSite) -> None:
    bus, answers = silent.bus, []

    def probe(state: str) -> None:
        silent.condition = Condition(state)
        answers.append((silent.ask("/readyz").body, silent.ask("/livez").status))

    bus.subscribe("start", partial(probe, "starting"), 22)
    bus.subscribe("stop", partial(probe, "draining"))
    bus.subscribe("exit", partial(probe, "draining"), 88)
    bus.start()
    bus.exit()

    assert answers == [("starting\n", 200), ("draining\n", 200), ("draining\n", 200)]


def test_a_condition_that_fails_is_an_answer_and_is_logged_once_until_it_works_again(
    site: ProbedSite,
) -> None:
    for _ in range(2):
        site.condition = ZeroDivisionError("division by zero")
        for _ in range(3):
            site.expect("/readyz", 503, "failed: ZeroDivisionError")
            site.expect("/livez", 200, "failed: ZeroDivisionError")
        site.condition = Condition("ready")
        site.expect("/readyz", 200, "ready")

    logged = site.said("The condition of the site is unknown")
    assert len(logged) == 2
    assert logged[0].rstrip().endswith("ZeroDivisionError: division by zero")


# What an answer is


def test_an_answer_is_a_line_of_text_that_no_cache_keeps(site: ProbedSite) -> None:
    answer = site.ask("/livez")

    assert answer.body == "ready\n"
    assert dict(answer.headers) == {
        "Date": answer.headers["Date"],
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": "6",
        "Cache-Control": "no-store",
        "Connection": "close",
    }


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/readyz?format=json", "/"])
def test_head_is_answered_as_get_without_a_body(site: ProbedSite, path: str) -> None:
    with site.connect() as connection:
        connection.sendall(f"HEAD {path} HTTP/1.1\r\n\r\n".encode())
        assert read_to_end(connection).endswith(b"\r\n\r\n")
    head, get = site.ask(path, "HEAD"), site.ask(path)

    assert head.status == get.status
    assert head.headers["Content-Length"] == get.headers["Content-Length"] != "0"
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


@pytest.mark.parametrize("path", ["/", "/livez/", "/healthz", "/readyz/database?format=json", "http://site/"])
def test_another_path_is_404_and_names_the_right_ones(site: ProbedSite, path: str) -> None:
    answer = site.ask(path)

    assert (answer.status, answer.body) == (404, "Not found. The paths are /livez and /readyz.\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW", "get"])
def test_another_method_is_405_and_names_the_allowed_ones(site: ProbedSite, method: str) -> None:
    answer = site.ask("/readyz", method)

    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("request_text", "answered"),
    [
        (b"GET /livez\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /livez HTTP/1.0\n\n", b"HTTP/1.1 200 OK"),
        (b"GET /livez?%ff&;&= HTTP/1.1\r\nAccept: \xff;q=\xff\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /livez HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", b"HTTP/1.1 100 Continue"),
        (b"GARBAGE\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"\x16\x03\x01 \x02 \x00\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"GET /livez HTTP/2.0\r\n\r\n", b"HTTP/1.1 505 HTTP Version Not Supported"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"GET /livez HTTP/1.1\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", b"HTTP/1.1 431 "),
        (b"GET /livez HTTP/1.1\r\n" + b"A: a\r\n" * 200 + b"\r\n", b"HTTP/1.1 431 "),
        (b"\r\n", b""),
    ],
)
def test_whatever_is_sent_gets_an_answer_or_an_end_and_the_next_is_answered(
    site: ProbedSite, request_text: bytes, answered: bytes
) -> None:
    with site.connect() as connection:
        connection.sendall(request_text)
        answer = read_to_end(connection)

    assert answer.startswith(answered)
    assert bool(answer) is bool(answered)
    site.expect("/livez", 200, "ready")
    assert site.said("probe", "Probe") == []


# JSON


def test_json_holds_the_condition_each_check_and_the_details(site: ProbedSite) -> None:
    site.bus.subscribe("health", passes)
    site.condition = Condition("reloading", "since 9:00", {"servers": {"default": {"root": Path("/srv")}}})
    answer = site.ask("/readyz", Accept="application/json")

    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(answer.body) == {
        "status": "ok",
        "state": "reloading",
        "reason": "since 9:00",
        "checks": {"tests.plugins.test_health.passes": "ok"},
        "servers": {"default": {"root": "/srv"}},
    }


def test_json_of_a_site_that_does_not_serve_says_so_and_that_it_lives(site: ProbedSite) -> None:
    site.condition = Condition("draining", details={"left": 3})
    answers = {path: site.ask(f"{path}?format=json") for path in ("/readyz", "/livez")}

    fields = {"state": "draining", "reason": "", "checks": {}, "left": 3}
    assert json.loads(answers["/readyz"].body) == {"status": "unavailable", **fields}
    assert json.loads(answers["/livez"].body) == {"status": "ok", **fields}
    assert [answer.status for answer in answers.values()] == [503, 200]


def test_details_that_cannot_be_converted_are_logged(site: ProbedSite) -> None:
    details: dict[str, Any] = {}
    details["itself"] = details
    site.condition = Condition("ready", details=details)
    with site.connect() as connection:
        connection.sendall(b"GET /livez?format=json HTTP/1.1\r\n\r\n")
        assert read_to_end(connection) == b""

    (logged,) = site.said("Error while answering a probe")
    assert "Circular reference" in logged
    site.expect("/livez", 200, "ready")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("application/*", False),
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/json, text/plain, */*", True),
        ("text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8", False),
        ("text/html, application/json", False),
        ("text/plain;q=0.5,application/json", True),
        ("text/plain ; q=0.5 , application/json ; q=0.8", True),
        ("application/json;q=0.1, text/html;q=0.2", False),
        ("application/json;q=0", False),
        ("application/json;q=nonsense", True),
        ("application/json-patch+json", False),
    ],
)
def test_json_is_for_clients_that_name_it_before_text(accept: str, expected: bool) -> None:
    assert prefers_json(accept) is expected


def test_accept_may_come_in_several_headers(site: ProbedSite) -> None:
    with site.connect() as connection:
        connection.sendall(
            b"GET /livez HTTP/1.1\r\nAccept: text/html;q=0.3\r\nAccept: application/json\r\n\r\n"
        )
        assert read_answer(connection).headers["Content-Type"] == "application/json"


# Checks


def passes() -> None: ...


class UntellableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def raising(error: BaseException) -> Callable[[], None]:
    def check_database() -> None:
        raise error

    return check_database


RAISING = "tests.plugins.test_health.raising.<locals>.check_database"


@pytest.mark.parametrize("result", [None, True, 0, "", [], object()])
def test_a_check_that_returns_is_fine(site: ProbedSite, result: object) -> None:
    site.bus.subscribe("health", lambda: result)

    site.expect("/readyz", 200, "ready")
    assert list(site.checks().values()) == ["ok"]


@pytest.mark.parametrize(
    ("result", "reason"), [(False, "returned False"), ("no space left", "no space left")]
)
def test_a_check_that_returns_false_or_a_reason_fails(site: ProbedSite, result: object, reason: str) -> None:
    def check_disk() -> object:
        return result

    site.bus.subscribe("health", check_disk)
    name = f"{__name__}.{check_disk.__qualname__}"

    site.expect("/readyz", 503, f"failed: {name}: {reason}")
    assert site.checks() == {name: reason}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("postgres://shop:secret@db\n\trefused"), "OSError"),
        (KeyError(), "KeyError"),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (UntellableError(), "UntellableError"),
    ],
)
def test_a_check_that_raises_fails_by_name_and_harms_no_other_check(
    site: ProbedSite, error: BaseException, reason: str
) -> None:
    site.bus.subscribe("health", raising(error))

    for _ in range(2):
        site.expect("/readyz", 503, f"failed: {RAISING}: {reason}")
        site.expect("/livez", 200, "ready")
    assert site.bus.state is states.STARTED


def test_each_check_that_fails_is_named_in_order_and_the_others_in_json(site: ProbedSite) -> None:
    site.bus.subscribe("health", passes, 10)
    site.bus.subscribe("health", raising(OSError("down")), 30)
    site.bus.subscribe("health", raising(OSError("gone")), 20)
    site.condition = Condition("reloading", "soon", {"servers": 2})
    report = json.loads(site.ask("/readyz?format=json").body)

    assert report == {
        "status": "unavailable",
        "state": "failed",
        "reason": f"{RAISING}: OSError; {RAISING} (2): OSError",
        "checks": {
            f"{__name__}.passes": "ok",
            RAISING: "OSError",
            f"{RAISING} (2)": "OSError",
        },
        "servers": 2,
    }


def test_a_check_has_a_name_whatever_it_is(site: ProbedSite, held_check: HeldCheck) -> None:
    held_check.released.set()
    checks = [passes, partial(passes), partial(partial(max, 1), 2), held_check, site.lines.copy, site.look]
    for check in checks:
        site.bus.subscribe("health", check)

    assert list(site.checks()) == [
        f"{__name__}.passes",
        f"{__name__}.passes (2)",
        "builtins.max",
        HELD_CHECK,
        "list.copy",
        f"{__name__}.ProbedSite.look",
    ]


@pytest.mark.parametrize("state", ["starting", "draining", "failed"])
def test_checks_are_not_made_while_the_site_does_not_serve_nor_for_liveness(
    site: ProbedSite, held_check: HeldCheck, state: str
) -> None:
    site.bus.subscribe("health", held_check)
    site.expect("/livez", 200, "ready")
    site.condition = Condition(state)
    site.expect("/readyz", 503, state)
    site.expect("/livez", 200, state)

    assert held_check.calls == 0


def test_a_site_that_drains_while_checks_are_made_is_draining(site: ProbedSite) -> None:
    @site.bus.subscribe("health")
    def check() -> str:
        site.condition = Condition("draining")
        return "of no interest any more"

    site.expect("/readyz", 503, "draining")


def test_checks_are_made_at_the_same_time(site: ProbedSite) -> None:
    barrier = threading.Barrier(5, timeout=DEADLINE)
    for _ in range(5):
        site.bus.subscribe("health", lambda: str(threading.current_thread()) if barrier.wait() < 0 else None)

    site.expect("/readyz", 200, "ready")


def test_only_the_checks_of_this_process_are_made(site: ProbedSite) -> None:
    site.bus.roles = {"site"}
    site.bus.subscribe("health", passes)
    site.bus.subscribe("health", raising(OSError()), role="worker")

    assert list(site.checks()) == [f"{__name__}.passes"]


def test_a_check_that_begins_to_fail_is_logged_once_and_so_is_its_end(
    site: ProbedSite, held_check: HeldCheck
) -> None:
    held_check.released.set()
    site.bus.subscribe("health", held_check)
    for _ in range(2):
        held_check.result = "no space"
        for _ in range(2):
            assert site.ask("/readyz").status == 503
        held_check.result = None
        for _ in range(2):
            assert site.ask("/readyz").status == 200

    logged = [(level, message) for level, message in site.lines if HELD_CHECK in message]
    assert logged == 2 * [
        (30, f"The check {HELD_CHECK} fails: no space"),
        (20, f"The check {HELD_CHECK} no longer fails."),
    ]


# Checks that hang


def test_the_answer_comes_within_the_second_that_kubernetes_waits(
    site: ProbedSite, held_check: HeldCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert health_checks.CHECK_TIMEOUT == 0.8
    for _ in range(20):
        site.bus.subscribe("health", partial(held_check))
    begun = time.monotonic()
    answer = site.ask("/readyz")
    took = time.monotonic() - begun

    assert answer.status == 503
    assert 0.8 <= took < 20 * 0.8  # one deadline for all of them
    held_check.released.set()
    await_that(lambda: site.ask("/readyz").status == 200)


@pytest.mark.extended
def test_a_check_that_hangs_fails_by_name_is_not_begun_again_and_recovers(
    site: ProbedSite, held_check: HeldCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_checks, "CHECK_TIMEOUT", 3)  # the other one needs some of it
    site.bus.subscribe("health", held_check)
    site.bus.subscribe("health", passes)
    checks: dict[str, str] = {}

    def passes_in_time() -> bool:
        checks.update(site.checks())
        return checks[f"{__name__}.passes"] == "ok"

    for _ in range(2):
        await_that(passes_in_time, lambda: checks)
        assert checks[HELD_CHECK].startswith("hangs: no answer for ")
        (hanging,) = (thread for thread in threading.enumerate() if thread.name == f"Check {HELD_CHECK}")
        assert hanging.daemon  # it keeps no process alive
    assert held_check.calls == 1

    held_check.released.set()
    await_that(lambda: site.ask("/readyz").status == 200)
    assert held_check.calls > 1


def test_a_client_that_waits_for_a_hanging_check_gets_the_report_of_a_new_run(
    site: ProbedSite, held_check: HeldCheck, monkeypatch: pytest.MonkeyPatch, later: Later
) -> None:
    results = ["old reason", None]

    def check() -> Any:
        held_check()
        return results.pop(0)

    witness = Witness()
    site.bus.subscribe("health", check, 10)
    site.bus.subscribe("health", witness, 20)
    with monkeypatch.context() as patch:
        patch.setattr(health_checks, "CHECK_TIMEOUT", SOON)
        assert site.ask("/readyz").status == 503
    witness.expect(1)
    site.probes._checks._runs[check].begun -= 2 * DEADLINE  # so it has hung for long
    answer = later(site.ask, "/readyz")
    witness.expect(2)
    held_check.released.set()

    assert answer.result(DEADLINE).body == "ready\n"
    assert (held_check.calls, results) == (2, [])


def test_a_new_run_of_a_check_that_hung_has_a_time_of_its_own(
    site: ProbedSite, held_check: HeldCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_checks = [held_check, HeldCheck()]

    @site.bus.subscribe("health")
    def check() -> None:
        held_checks[0]()

    monkeypatch.setattr(health_checks, "CHECK_TIMEOUT", SOON)
    assert site.ask("/readyz").status == 503
    assert held_check.entered.wait(DEADLINE)
    site.probes._checks._runs[check].begun -= 2 * DEADLINE
    (reason,) = site.checks().values()
    assert seconds_of(reason) >= 2 * DEADLINE
    held_checks.pop(0).released.set()
    assert held_checks[0].entered.wait(DEADLINE)
    (reason,) = site.checks().values()
    held_checks[0].released.set()
    assert seconds_of(reason) < DEADLINE


def seconds_of(reason: str) -> float:
    return float(reason.removeprefix("hangs: no answer for ").removesuffix(" s"))


def test_probes_at_the_same_time_share_a_run(site: ProbedSite, held_check: HeldCheck, later: Later) -> None:
    witness = Witness()
    site.bus.subscribe("health", held_check, 10)
    site.bus.subscribe("health", witness, 20)
    answers = []
    for number in (1, 2, 3):
        answers.append(later(site.ask, "/readyz"))
        witness.expect(number)
    held_check.result = "shared"
    held_check.released.set()

    assert [answer.result(DEADLINE).body for answer in answers] == 3 * [f"failed: {HELD_CHECK}: shared\n"]
    assert held_check.calls == 1


def test_a_check_without_a_thread_to_be_had_fails(site: ProbedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.bus.subscribe("health", passes)
    with monkeypatch.context() as patch:
        no_thread(patch, "Check")
        assert site.checks() == {f"{__name__}.passes": "RuntimeError"}

    assert site.checks() == {f"{__name__}.passes": "ok"}


# Clients


def test_a_client_that_sends_nothing_is_cut_off(site: ProbedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert health_server.CLIENT_TIMEOUT == 2
    monkeypatch.setattr(health_server, "CLIENT_TIMEOUT", SOON)
    begun = time.monotonic()
    with site.connect() as connection:
        assert read_to_end(connection) == b""

    assert time.monotonic() - begun >= SOON
    assert site.said("probe") == []


def test_a_client_that_sends_a_little_now_and_then_is_cut_off_too(
    site: ProbedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_server, "CLIENT_TIMEOUT", 3 * SOON)
    deadline = time.monotonic() + DEADLINE
    with site.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        while not select.select([connection], [], [], SOON / 5)[0]:
            assert time.monotonic() < deadline
            with contextlib.suppress(ConnectionError):  # it is cut off at this moment
                connection.sendall(b"x")
        assert read_to_end(connection) == b""


def test_a_request_may_come_in_parts(site: ProbedSite) -> None:
    with site.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (b"GET /li", b"vez HTT", b"P/1.1\r\nAccept: application", b"/json\r", b"\n\r\n"):
            connection.sendall(part)
            time.sleep(0.01)  # so that each is read alone
        assert json.loads(read_answer(connection).body)["state"] == "ready"


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\n", b"GET /readyz HTTP/1.1\r\n\r\n"])
def test_a_client_that_resets_the_connection_harms_no_other_client(
    site: ProbedSite, held_check: HeldCheck, sent: bytes
) -> None:
    site.bus.subscribe("health", held_check)
    connection = site.connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sendall(sent)
    if sent.endswith(b"\r\n\r\n"):
        assert held_check.entered.wait(DEADLINE)
    connection.close()
    held_check.released.set()
    await_that(lambda: connections(site) == 0)

    site.expect("/readyz", 200, "ready")
    assert site.said("probe") == []


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost:", b"GET /livez HTTP/1.1\r\n\r\n" * 20])
def test_whatever_idles_there_a_probe_is_answered_at_once(site: ProbedSite, sent: bytes) -> None:
    """500 connections idle, send half a request, or do not read; and 40 new ones come."""
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(site.connect()).sendall(sent)
        for _ in range(40):
            stack.enter_context(site.connect()).sendall(sent)
            begun = time.monotonic()
            assert site.ask("/livez").status == 200
            assert time.monotonic() - begun < DEADLINE / 3  # it takes 1 ms; machines may be busy
        assert connections(site) <= MOST_PROBE_CONNECTIONS


def test_of_too_many_connections_the_oldest_one_that_idles_makes_room(
    site: ProbedSite, held_check: HeldCheck
) -> None:
    site.bus.subscribe("health", held_check)
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(site.connect())
        waiting.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        assert held_check.entered.wait(DEADLINE)
        clients = [stack.enter_context(site.connect()) for _ in range(MOST_PROBE_CONNECTIONS)]
        assert read_to_end(clients[0]) == b""
        clients[1].sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert read_answer(clients[1]).status == 200
        held_check.released.set()
        assert read_answer(waiting).status == 200


def test_where_all_wait_for_checks_the_oldest_makes_room(
    site: ProbedSite, held_check: HeldCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_server, "MOST_PROBE_CONNECTIONS", 2)
    witness = Witness()
    site.bus.subscribe("health", held_check, 10)
    site.bus.subscribe("health", witness, 20)
    with site.connect() as first, site.connect() as second:
        for number, client in enumerate((first, second), 1):
            client.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
            witness.expect(number)
        assert site.ask("/livez").status == 200
        assert read_to_end(first) == b""
        held_check.released.set()
        assert read_answer(second).status == 200


def test_liveness_is_answered_while_a_check_hangs(
    site: ProbedSite, held_check: HeldCheck, later: Later
) -> None:
    site.bus.subscribe("health", held_check)
    answers = [later(site.ask, "/readyz") for _ in range(3)]
    assert held_check.entered.wait(DEADLINE)
    site.expect("/livez", 200, "ready")
    held_check.released.set()

    assert [answer.result(DEADLINE).body for answer in answers] == 3 * ["ready\n"]


def test_while_no_descriptor_is_free_probes_are_answered_one_by_one(site: ProbedSite) -> None:
    with site.connect() as idle, contextlib.ExitStack() as stack:
        await_that(lambda: connections(site) == 1)
        waiting = [stack.enter_context(socket.socket()) for _ in range(3)]
        with no_descriptor():
            for client in waiting:
                client.settimeout(DEADLINE)
                client.connect(site.sockets[0].getsockname())
                client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            for client in waiting:
                assert read_to_end(client).startswith(b"HTTP/1.1 200 OK")
                client.close()
        site.expect("/livez", 200, "ready")
        assert site.probes._server is not None
        await_that(lambda: site.probes._server._acceptor._reserve is not None)  # type: ignore[union-attr]
        idle.close()


def test_where_no_room_can_be_made_it_tries_again_after_a_pause(site: ProbedSite) -> None:
    server = site.probes._server
    assert server is not None
    with socket.socket() as waiting, pytest.MonkeyPatch.context() as patch:
        waiting.settimeout(DEADLINE)
        patch.setattr(server._acceptor, "_make_room", lambda: False)  # as if other threads took what is free
        with no_descriptor():
            waiting.connect(site.sockets[0].getsockname())
            waiting.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            before = time.process_time()
            time.sleep(0.4)
            assert time.process_time() - before < 0.1  # it does not try without a pause
        assert read_to_end(waiting).startswith(b"HTTP/1.1 200 OK")


def test_each_socket_is_answered_on(
    silent: ProbedSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a Unix socket's path is short
    unix = socket.socket(socket.AF_UNIX)
    unix.bind("probes.sock")
    unix.listen()
    silent.sockets += [socket.create_server(("127.0.0.1", 0)), unix]
    silent.bus.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect("probes.sock")
        for connection in (client, silent.connect(0), silent.connect(1)):
            connection.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
            with connection:
                assert read_answer(connection).body == "ready\n"


# Start and exit


def test_a_request_before_the_start_is_answered_after_it(silent: ProbedSite) -> None:
    with silent.connect() as early:
        early.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert not select.select([early], [], [], SOON)[0]
        silent.bus.start()
        assert read_answer(early).status == 200


def test_while_no_client_is_connected_one_thread_sleeps(silent: ProbedSite) -> None:
    before = threads()
    silent.bus.start()
    silent.expect("/readyz", 200, "ready")
    await_that(lambda: connections(silent) == 0)
    assert silent.probes._server is not None

    assert silent.probes._server._timeout() is None
    assert threads() == [*before, "Probes"]


def test_a_bus_that_stops_starts_and_exits_again_and_again_leaves_nothing_open(silent: ProbedSite) -> None:
    released = descriptors_of(silent)
    for _ in range(3):
        silent.bus.start()
        listening = descriptors(os.getpid())
        silent.probes.start()  # likewise
        silent.expect("/readyz", 200, "ready")
        silent.bus.stop()
        silent.expect("/livez", 200, "ready")
        silent.bus.start()
        silent.expect("/readyz", 200, "ready")
        await_that(lambda: connections(silent) == 0)
        await_value(lambda: descriptors(os.getpid()), listening)
        silent.bus.exit()
        silent.probes.exit()
        assert descriptors(os.getpid()) == released


def test_after_the_exit_no_request_is_answered_though_the_socket_is_open(site: ProbedSite) -> None:
    site.bus.exit()
    with site.connect() as late:
        late.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert "Probes" not in threads()
        assert not select.select([late], [], [], SOON)[0]


def test_an_exit_closes_the_connections_on_which_nothing_was_asked(site: ProbedSite) -> None:
    with site.connect() as silent, site.connect() as half:
        half.sendall(b"GET /livez HTTP/1.1\r\nHost:")
        await_that(lambda: connections(site) == 2)
        before = time.monotonic()
        site.bus.exit()
        assert time.monotonic() - before < DEADLINE / 2
        assert "Probes" not in threads()
        assert read_to_end(silent) == b""


def test_an_exit_waits_for_an_answer_under_way(site: ProbedSite, held_check: HeldCheck, later: Later) -> None:
    site.bus.subscribe("health", held_check)
    answer = later(site.ask, "/readyz")
    assert held_check.entered.wait(DEADLINE)
    site.bus.subscribe("exit", held_check.released.set, 88)
    site.bus.exit()

    assert "Probes" not in threads()
    assert f"Check {HELD_CHECK}" not in threads()
    assert answer.result(DEADLINE).body == "ready\n"


def test_an_exit_does_not_wait_for_a_check_that_hangs_for_long(
    site: ProbedSite, held_check: HeldCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert health.EXIT_TIMEOUT == 1
    monkeypatch.setattr(health_checks, "CHECK_TIMEOUT", SOON)
    monkeypatch.setattr(health, "EXIT_TIMEOUT", 2 * SOON)
    site.bus.subscribe("health", held_check)
    assert site.ask("/readyz").status == 503
    begun = time.monotonic()
    site.bus.exit()

    assert 2 * SOON <= time.monotonic() - begun < DEADLINE / 2
    (line,) = site.said("The exit does not wait")
    assert line.startswith(f"The exit does not wait any longer for: Check {HELD_CHECK}")
    held_check.released.set()
    await_that(lambda: f"Check {HELD_CHECK}" not in threads())


def test_a_check_that_exits_the_bus_is_not_waited_for_by_itself(
    site: ProbedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_checks, "CHECK_TIMEOUT", SOON)
    site.bus.subscribe("health", site.bus.exit)
    answer = site.ask("/readyz")
    site.bus.block()

    assert answer.status in (200, 503)
    assert site.said("The exit does not wait") == []
    await_that(lambda: not any(name.startswith("Check") for name in threads()))


def test_a_start_that_fails_leaves_nothing(silent: ProbedSite) -> None:
    released = descriptors_of(silent)
    closed = socket.socket()
    closed.close()
    silent.sockets.append(closed)
    with pytest.raises(ChannelFailures, match="Bad file descriptor"):
        silent.bus.start()

    assert silent.bus.state is states.EXITING
    assert descriptors(os.getpid()) == released


# Other processes


PROGRAM = """
import socket
import urllib.request

from django_wspbus.health import checks, server
from django_wspbus.health.report import Condition
from django_wspbus.plugins.health import Probes
from django_wspbus.wspbus import Bus

checks.CHECK_TIMEOUT = server.CLIENT_TIMEOUT = 20
used = []


def check():
    used.append("bare")


SETUP

bus, listener = Bus(), socket.create_server(("127.0.0.1", 0))
Probes(bus, lambda: [listener], lambda: Condition("ready")).subscribe()
bus.subscribe("health", lambda: check())
bus.start()
with urllib.request.urlopen(f"http://127.0.0.1:{listener.getsockname()[1]}/readyz", timeout=20) as answer:
    print(answer.read().decode(), end="")
bus.exit()
listener.close()
"""

DATABASE = """
import django
from django.db import connection

django.setup()


def check():
    connection.ensure_connection()
    used.append(connection.connection)
"""

USE = """
try:
    used[0].execute("select 1")
except Exception as error:
    print(error)
"""


def test_the_database_connections_of_a_check_are_closed_after_it(project: Project) -> None:
    project.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}})
    project.write("probed.py", PROGRAM.replace("SETUP", DATABASE) + USE)
    ended = run([sys.executable, "probed.py"], env=os.environ | project.environment, cwd=project.root)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["ready", "Cannot operate on a closed database."]


def test_on_a_bare_bus_in_a_process_without_settings_it_answers_too() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.replace("SETUP", "")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )

    assert (ended.stdout, ended.stderr) == ("ready\n", "")
