"""The probes of whole sites: what they say of each state that a site can be in, and until when."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.processes import RunningSite
from tests.projects import Project

from .clients import ask, connect, is_free
from .conftest import GUNICORN, THREADED, Later, address_of, configure, hold, release
from .load import await_that

CHILD = {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1, "threads": 4}}
IN_PROCESS = {"BACKEND": THREADED}

BANNER = "^Quit with"

Answers = list[tuple[float, tuple[int, str]]]
"""When a request was made, and its answer."""

# Listeners that do as files say.
LISTENERS = """
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def hold(name):
    note(f"{name} held")
    while (ROOT / name).exists() and not bus.exit_asked:
        bus.wait_for(lambda: False, 0.01)


@bus.subscribe("start", role="site")
def start_site():
    if (ROOT / "hold-site").exists():
        hold("hold-site")
    if (ROOT / "fail-site").exists():
        raise RuntimeError("the shop is closed")


@bus.subscribe("start", role="worker")
def start_worker():
    if (ROOT / "hold-worker").exists():
        hold("hold-worker")
    if (ROOT / "fail-worker").exists():
        raise RuntimeError("the shelves are empty")


@bus.subscribe("health")
def stock():
    while (ROOT / "hang").exists():
        time.sleep(0.01)
"""


class Probe(NamedTuple):
    """An answer: to ``/livez`` its status, to ``/readyz`` its status and text."""

    alive: int
    status: int
    text: str


class ProbedShop:
    """A project with probes, of which the address is known before the site says so."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = project
        self.address = f"unix:{folder / 'probes.sock'}"
        self.cut: list[Exception] = []
        project.listeners(LISTENERS)

    def serve(self, server: dict[str, Any], **site: Any) -> RunningSite:
        configure(self.project, {"shop": server}, HEALTH=self.address, **site)
        self.site = self.project.serve("-v2")
        return self.site

    def ask(self, path: str) -> tuple[int, str]:
        """Return an answer, at the second try if the first was accepted and then cut off, as is noted."""
        try:
            return ask(self.address, path)
        except (BrokenPipeError, ConnectionResetError, RemoteDisconnected) as error:
            self.cut.append(error)
            return ask(self.address, path)

    def probe(self) -> Probe:
        alive, _ = self.ask("/livez")
        status, text = self.ask("/readyz")
        return Probe(alive, status, text.rstrip())

    def report(self) -> dict[str, Any]:
        """Return the JSON report of its readiness."""
        report: dict[str, Any] = json.loads(self.ask("/readyz?format=json")[1])
        return report

    def await_probe(self, status: int, text: str) -> str:
        """Wait until ``/readyz`` has a status and a text; return the text."""
        seen: list[Probe] = []

        def is_so() -> bool:
            seen.append(self.probe())
            return seen[-1].status == status and text in seen[-1].text

        await_that(is_so, lambda: seen[-5:])
        assert {probe.alive for probe in seen} == {200}
        return seen[-1].text

    def expect(self, status: int, state: str, reason: str = "") -> None:
        """Wait until it is in a state, and check that the text and the JSON agree."""
        self.await_probe(status, f"{state}: {reason}" if reason else state)
        report = self.report()
        assert report["status"] == ("ok" if status == 200 else "unavailable")
        assert report["state"] == state
        assert reason in report["reason"]
        assert list(report["servers"]) == ["shop"]

    def put(self, name: str) -> None:
        release(self.project, name)

    def remove(self, name: str) -> None:
        (self.project.root / name).unlink()


@pytest.fixture
def probed(shop: Project, short: Path) -> Iterator[ProbedShop]:
    probed = ProbedShop(shop, short)
    yield probed
    # Only a client that is between connecting and asking when a program ends.
    restarts = len(re.findall("Re-spawning", probed.site.output))
    assert len(probed.cut) <= 3 * restarts, probed.cut


def test_a_site_is_starting_then_ready_then_reloading_then_draining(
    shop: Project, probed: ProbedShop, later: Later
) -> None:
    probed.put("hold-site")
    with probed.serve(CHILD) as site:
        shop.expect_note("hold-site held")
        probed.expect(503, "starting")
        probed.remove("hold-site")
        site.wait_for_line(BANNER)
        probed.expect(200, "ready")
        probed.put("hold-worker")
        site.send(signal.SIGUSR1)
        shop.expect_note("hold-worker held")
        probed.expect(200, "reloading", "a reload is under way")
        probed.remove("hold-worker")
        probed.expect(200, "ready")
        page = hold(shop, later, address_of(site, "shop"), "/held/page")
        site.send(signal.SIGTERM)
        probed.expect(503, "draining", "the site exits")
        release(shop, "page")
        assert page.result() == (200, "page answered")
        assert site.wait() == 0
        assert is_free(probed.address)


@pytest.mark.extended
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_site_whose_threads_are_all_busy_is_saturated_and_stays_ready(
    shop: Project, probed: ProbedShop, later: Later, kind: str
) -> None:
    options = {"workers": 2} if kind == "sync" else {"workers": 1, "threads": 2}
    with probed.serve({"BACKEND": GUNICORN, "OPTIONS": options}) as site:
        address = address_of(site, "shop")
        pages = [hold(shop, later, address, f"/held/{name}") for name in ("first", "second")]
        text = probed.await_probe(200, "saturated: every thread of the server 'shop' has been busy for ")
        assert int(re.findall(r"\d+", text)[0]) >= 5
        release(shop, "first")
        probed.expect(200, "ready")
        release(shop, "second")
        assert [page.result()[0] for page in pages] == [200, 200]
        assert site.stop() == 0


@pytest.mark.extended
def test_a_site_whose_successors_get_stuck_at_once_is_stuck_until_they_answer(
    shop: Project, probed: ProbedShop
) -> None:
    server = {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1, "threads": 2}, "REQUEST_TIMEOUT": 0.3}
    with probed.serve(server) as site:
        address = address_of(site, "shop")
        with contextlib.ExitStack() as clients:
            seen: list[Probe] = []

            def is_stuck() -> bool:
                for _ in range(2):  # one for each thread of the worker that serves now
                    client = clients.enter_context(connect(address))
                    client.send(b"GET /held/never HTTP/1.1\r\nHost: localhost\r\n\r\n")
                seen.append(probed.probe())
                return seen[-1].status == 503

            await_that(is_stuck, lambda: seen[-5:])
            assert seen[-1].text.startswith("stuck: the server 'shop': every worker gets stuck")
            assert probed.ask("/livez")[0] == 503
        release(shop, "never")
        await_that(lambda: probed.probe() == Probe(200, 200, "ready"), probed.probe)


@pytest.mark.extended
def test_a_site_whose_child_keeps_dying_has_failed_until_it_is_up_again(probed: ProbedShop) -> None:
    with probed.serve(CHILD) as site:
        site.wait_for_line(BANNER)
        assert ask(address_of(site, "shop"))[0] == 200
        probed.put("fail-worker")
        os.kill(probed.report()["servers"]["shop"]["pid"], signal.SIGKILL)
        site.wait_for_line("the shelves are empty")
        probed.await_probe(503, "failed: the server 'shop' does not serve: see the log")
        report = probed.report()
        probed.remove("fail-worker")
        probed.expect(200, "ready")
        assert ask(address_of(site, "shop"))[0] == 200
        assert site.stop() == 0

    assert (report["status"], report["state"]) == ("unavailable", "failed")
    assert report["reason"] == "the server 'shop' does not serve: see the log"


SECRET = "postgres://shop:hunter2@db/shop"

STATUS = """
from django_wspbus import bus
from django.http import JsonResponse
from django.urls import path


def answer(request):
    return JsonResponse(bus.site.status())


urlpatterns = [path("", answer)]
"""


@pytest.mark.parametrize("kind", ["graceful", pytest.param("restart", marks=pytest.mark.extended)])
def test_probes_say_what_failed_and_neither_traceback_nor_message(
    shop: Project, probed: ProbedShop, kind: str
) -> None:
    source = (
        LISTENERS
        + f"""

@bus.subscribe("health")
def database():
    if (ROOT / "no-database").exists():
        raise OSError({SECRET!r})
"""
    )
    shop.listeners(source)
    shop.write("shop/urls.py", STATUS)
    number, word = {"graceful": (signal.SIGUSR1, "reload"), "restart": (signal.SIGUSR2, "restart")}[kind]
    with probed.serve(CHILD) as site:
        site.wait_for_line(BANNER)
        shop.write("shop/urls.py", f"raise OSError({SECRET!r})\n")
        site.send(number)
        site.wait_for_line(f"The {word} failed; the old code keeps serving")
        probed.expect(200, "ready")
        probed.put("no-database")
        probed.await_probe(503, "failed: shop.listeners.database: OSError")
        answers = [probed.ask(f"/{path}{query}")[1] for path in ("livez", "readyz") for query in ("", JSON)]
        report = probed.report()
        status = json.loads(ask(address_of(site, "shop"))[1])
        assert site.stop() == 0

    assert report["last_failure"] == f"The {word} failed: see the log."
    assert report["checks"]["shop.listeners.database"] == "OSError"
    for answer in answers:
        assert SECRET not in answer
        assert "Traceback" not in answer
    assert SECRET in status["last_failure"]
    assert f"The check shop.listeners.database fails: OSError: {SECRET}" in site.output


JSON = "?format=json"


def test_a_site_is_not_ready_while_it_is_stopped_or_a_check_of_an_app_hangs(probed: ProbedShop) -> None:
    signals = {"SIGUSR1": "stop", "SIGUSR2": "start"}
    with probed.serve(IN_PROCESS, SIGNALS=signals) as site:
        site.wait_for_line(BANNER)
        probed.expect(200, "ready")
        site.send(signal.SIGUSR1)
        probed.expect(503, "draining", "the site is stopped")
        site.send(signal.SIGUSR2)
        probed.expect(200, "ready")
        assert probed.report()["checks"] == {"shop.listeners.stock": "ok"}
        probed.put("hang")
        hanging = probed.probe()
        report = probed.report()
        probed.remove("hang")
        probed.expect(200, "ready")
        assert ask(address_of(site, "shop"))[0] == 200
        assert site.stop() == 0

    assert (hanging.alive, hanging.status) == (200, 503)
    assert hanging.text.startswith("failed: shop.listeners.stock: hangs: no answer for ")
    assert report["checks"]["shop.listeners.stock"].startswith("hangs: no answer for ")
    assert "The check shop.listeners.stock fails: hangs" in site.output
    assert "The check shop.listeners.stock no longer fails." in site.output


@pytest.mark.extended
@pytest.mark.parametrize(
    "server",
    [
        pytest.param(CHILD, id="child"),
        pytest.param(IN_PROCESS, id="in process", marks=pytest.mark.extended),
    ],
)
def test_no_probe_is_refused_while_a_site_restarts_badly_and_well(
    probed: ProbedShop, later: Later, server: dict[str, Any]
) -> None:
    done = threading.Event()
    seen: list[Probe] = []

    def probe_all_the_while() -> None:
        while not done.wait(0.02):
            seen.append(probed.probe())

    with probed.serve(server) as site, contextlib.ExitStack() as stack:
        stack.callback(done.set)
        site.wait_for_line(BANNER)
        probes = [later(probe_all_the_while) for _ in range(2)]
        probed.put("fail-site")
        site.send(signal.SIGUSR2)
        probed.expect(503, "failed", "a start listener of the site failed: see the log")
        assert ask(address_of(site, "shop"))[0] == 200
        await_that(lambda: any("a start listener" in probe.text for probe in seen), lambda: seen[-5:])
        probed.remove("fail-site")
        site.send(signal.SIGUSR2)
        probed.expect(200, "ready")
        done.set()
        for future in probes:
            future.result()
        assert ask(address_of(site, "shop"))[0] == 200
        assert site.stop() == 0

    assert len(seen) >= 10
    assert {probe.alive for probe in seen} == {200}
    assert {(probe.status, probe.text.partition(":")[0]) for probe in seen} <= {
        *((200, "ready"), (200, "reloading"), (503, "starting"), (503, "failed"))
    }
    assert any(probe.status == 503 and "a start listener" in probe.text for probe in seen)
    assert "the shop is closed" in site.output


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(CHILD, id="child", marks=pytest.mark.extended),
        pytest.param(IN_PROCESS, id="in process"),
    ],
)
def test_a_site_is_draining_at_once_and_answers_for_the_delay_and_its_probes_to_the_end(
    shop: Project, probed: ProbedShop, later: Later, server: dict[str, Any]
) -> None:
    delay = 3

    def ask_until_refused(address: str, path: str, answers: Answers) -> Answers:
        """Add each answer, and when it was asked for, to a list."""
        while True:
            time.sleep(0.02)
            began = time.monotonic()
            try:
                answers.append((began, ask(address, path)))
            except (ConnectionRefusedError, FileNotFoundError):
                return answers
            except (
                BrokenPipeError,
                ConnectionResetError,
            ):  # a probe at the very end: see the last test
                assert address == probed.address
                return answers

    # A client that is too late for a Unix socket is refused at once, and not only when its server has left.
    address = probed.address.replace("probes", "shop")
    with probed.serve({**server, "BIND": address}, DRAIN_DELAY=delay, STOP_TIMEOUT=60) as site:
        site.wait_for_line(BANNER)
        page = hold(shop, later, address, "/held/page")
        asking = [later(ask_until_refused, address, "/", []) for _ in range(2)]
        probes: Answers = []
        probing = later(ask_until_refused, probed.address, "/readyz", probes)
        begun = time.monotonic()
        site.send(signal.SIGTERM)
        probed.await_probe(503, "draining")
        turned = time.monotonic()
        answers = [answer for future in asking for answer in future.result()]
        refused = time.monotonic()
        await_that(lambda: probes and probes[-1][0] > refused)
        released = time.monotonic()
        release(shop, "page")
        assert page.result() == (200, "page answered")
        assert site.wait() == 0
        probing.result()

    assert any(began > turned and status == 200 for began, (status, _) in answers)
    assert {status for _, (status, _) in answers} <= {200, 503}
    assert refused - begun >= delay
    answers = [answer for began, answer in probes if turned < began < released]
    assert set(answers) == {(503, "draining: the site exits\n")}


def test_a_site_is_draining_until_its_last_stop_listener_has_ended(shop: Project, probed: ProbedShop) -> None:
    late = "bus.subscribe('stop', lambda: hold('hold-stop'), role='site')\n"
    shop.listeners(LISTENERS.replace(" and not bus.exit_asked", "") + late)
    probed.put("hold-stop")
    with probed.serve(IN_PROCESS) as site:
        site.wait_for_line(BANNER)
        site.send(signal.SIGTERM)
        shop.expect_note("hold-stop held")
        seen = probed.probe()
        probed.remove("hold-stop")
        assert site.wait() == 0

    assert seen == (200, 503, "draining: the site exits")
    assert "Traceback" not in site.output


def test_a_probe_that_comes_too_late_is_turned_away_and_not_reset(shop: Project, probed: ProbedShop) -> None:
    after_the_probes = "bus.subscribe('exit', lambda: hold('hold-exit'), 89.5, role='site')\n"
    shop.listeners(LISTENERS.replace(" and not bus.exit_asked", "") + after_the_probes)
    probed.put("hold-exit")
    with probed.serve(IN_PROCESS) as site:
        site.wait_for_line(BANNER)
        site.send(signal.SIGTERM)
        shop.expect_note("hold-exit held")
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError), connect(probed.address) as late:
            late.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            probed.remove("hold-exit")
            assert late.recv(65536).startswith(b"HTTP/1.1 503 ")
