"""The phases of an exit: whatever clients and listeners do, each phase has its share of STOP_TIMEOUT."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.processes import DEADLINE, RunningSite
from tests.projects import Project

from .clients import connect
from .conftest import GUNICORN, THREADED, address_of

KINDS: dict[str, dict[str, Any]] = {
    "sync": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2}},
    "gthread": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 1, "threads": 2}},
    "threaded": {"BACKEND": THREADED},
}

HEAD = b"GET / HTTP/1.1\r\nHost: shop\r\n"
CLIENTS = {
    "half a request": b"GET / HT",
    "nothing": b"",
    "half a body": b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000\r\n\r\nabc",
    "a whole request": HEAD + b"\r\n",
    "a byte at a time": b"G",
}

HOLD = "import ctypes\n\n\ndef hold():\n    note('holds')\n    ctypes.PyDLL(None).sleep(60)\n\n\n"
HANG = "import time\n\n\ndef hang():\n    note('hangs')\n    time.sleep(60)\n\n\n"
FAIL = "def fail():\n    raise RuntimeError('on purpose')\n\n\n"
NOTES = """
for role in ("site", "worker"):
    bus.subscribe("stop", lambda role=role: note(f"{role} stop"), role=role)
    bus.subscribe("exit", lambda role=role: note(f"{role} exit"), role=role)
"""

VIEWS = """
import ctypes
import os

from django.http import HttpResponse
from django.urls import path

from .journal import note


def answer(request):
    return HttpResponse("answered")


def hold(request):
    note("holds")
    ctypes.PyDLL(None).sleep(60)
    return HttpResponse("held")


urlpatterns = [path("", answer), path("hold", hold)]
"""


def extended(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.extended)


def configure(project: Project, kind: str, **wspbus: Any) -> None:
    project.serves({"BIND": "127.0.0.1:0", **KINDS[kind]}, **wspbus)
    project.write("shop/urls.py", VIEWS)


@contextlib.contextmanager
def clients(address: str, count: int, what: str) -> Iterator[None]:
    """Hold connections that have sent so much, and that read nothing."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(address)) for _ in range(count)]
        for client in held:
            client.sendall(CLIENTS[what])
        if what == "a byte at a time":
            stack.enter_context(dripping(held))
        yield


@contextlib.contextmanager
def dripping(held: list[socket.socket]) -> Iterator[None]:
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.02):
            for client in held:
                with contextlib.suppress(OSError):  # it is closed
                    client.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    yield
    over.set()
    thread.join()


def stop(site: RunningSite) -> tuple[int, float]:
    """Send SIGTERM to a site; return its status, and how many seconds it took."""
    began = time.monotonic()
    return site.stop(), time.monotonic() - began


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("sync", "half a request"),
        *[extended(kind, "half a request") for kind in ("gthread", "threaded")],
        *[extended(kind, what) for kind in KINDS for what in list(CLIENTS)[1:]],
    ],
)
def test_listeners_run_in_time_whatever_clients_do(project: Project, kind: str, what: str) -> None:
    configure(project, kind, STOP_TIMEOUT=4, HEALTH="127.0.0.1:0")
    project.listeners(NOTES)
    with project.serve() as site:
        addresses = [address_of(site), site.wait_for_line(r"probes +http://(\S+)/livez")[1]]
        with contextlib.ExitStack() as stack:
            for address in addresses:
                stack.enter_context(clients(address, 60, what))
            status, seconds = stop(site)

    assert status in (0, 70)
    assert seconds < 60  # whatever else this machine does; the site itself counts to 4
    assert project.events().count("site stop") == project.events().count("site exit") == 1
    assert project.events().count("worker stop") == (2 if kind == "sync" else 1)
    if what == "half a request":
        assert status == 70
        assert "requests cut off after " in site.output


@pytest.mark.parametrize(
    ("role", "channel"), [("worker", "stop"), extended("worker", "exit"), extended("site", "stop")]
)
def test_a_listener_that_hangs_is_named_in_whichever_process_and_the_status_is_70(
    project: Project, role: str, channel: str
) -> None:
    configure(project, "gthread", STOP_TIMEOUT=5)
    project.listeners(NOTES + HANG + f'bus.subscribe("{channel}", hang, 99, role="{role}")\n')
    with project.serve() as site:
        site.wait_until_started()
        assert site.stop() == 70
        site.wait_for_members()

    assert site.output.count(f"The '{channel}' listener <function hang at 0x") == 1
    assert "in hang\n" in site.output
    assert f"{role} stop" in project.events()
    if role == "worker":
        assert "site exit" in project.events()


@pytest.mark.extended
@pytest.mark.parametrize("role", ["site", "worker"])
def test_a_start_listener_that_blocks_ends_with_the_exit_and_is_named(project: Project, role: str) -> None:
    configure(project, "gthread", STOP_TIMEOUT=5)
    project.listeners(HANG + f'bus.subscribe("start", hang, role="{role}")\n')
    with project.serve() as site:
        project.expect_note("hangs")
        assert site.stop() == 70
        site.wait_for_members()

    assert "The 'start' listener <function hang at 0x" in site.output


@pytest.mark.parametrize(
    ("failing", "hanging"),
    [("worker", "worker"), extended("worker", "site"), extended("site", "site"), extended("site", "worker")],
)
def test_the_reason_of_a_failed_start_comes_before_the_listener_that_hangs_after_it(
    project: Project, failing: str, hanging: str
) -> None:
    configure(project, "gthread", STOP_TIMEOUT=5)
    listeners = f'bus.subscribe("start", fail, 90, role="{failing}")\n'
    project.listeners(HANG + FAIL + listeners + f'bus.subscribe("stop", hang, role="{hanging}")\n')
    with project.serve() as site:
        assert site.wait() == 70
        site.wait_for_members()

    assert (
        0 <= site.output.find("RuntimeError: on purpose") < site.output.find("'stop' listener <function hang")
    )


@pytest.mark.extended
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_the_reason_of_a_refused_reload_comes_before_the_listener_that_hangs_after_it(
    project: Project, number: int
) -> None:
    configure(project, "gthread")
    project.listeners(NOTES)
    with project.serve() as site:
        site.wait_until_started()
        project.listeners(HANG + FAIL + 'bus.subscribe("start", fail)\nbus.subscribe("stop", hang)\n')
        site.send(number)
        site.wait_for_line("'stop' listener <function hang")
        assert site.stop() == 0

    assert (
        0 <= site.output.find("RuntimeError: on purpose") < site.output.find("'stop' listener <function hang")
    )


@pytest.mark.extended
@pytest.mark.parametrize(("role", "status"), [("site", 1), ("worker", 70)])
def test_a_listener_that_holds_the_gil_ends_with_its_stack(project: Project, role: str, status: int) -> None:
    configure(project, "gthread", STOP_TIMEOUT=6)
    project.listeners(HOLD + f'bus.subscribe("stop", hold, role="{role}")\n')
    with project.serve() as site:
        site.wait_until_started()
        assert site.stop() == status

    assert "in hold\n" in site.output


def ask_to_hold(address: str) -> socket.socket:
    client = connect(address)
    client.sendall(b"GET /hold HTTP/1.1\r\nHost: shop\r\n\r\n")
    return client


def send_until_it_ends(site: RunningSite, number: int) -> None:
    for _ in range(100):
        site.send(number)
        time.sleep(0.3)  # two signals at once are one request
        if site.process.poll() is not None:
            return


# It fills a pipe that nobody reads. Once there is something in the pipe, C code holds the GIL.
FILL = 'ctypes.PyDLL(None).write(os.open("pipe", os.O_WRONLY), b"." * 10**6, 10**6)'


@pytest.mark.extended
@pytest.mark.parametrize("times", [1, 2])
def test_a_view_that_holds_the_gil_of_the_site_ends_with_it(project: Project, times: int) -> None:
    configure(project, "threaded", STOP_TIMEOUT=3 if times == 1 else 3600)
    project.write("shop/urls.py", VIEWS.replace("ctypes.PyDLL(None).sleep(60)", FILL))
    os.mkfifo(project.root / "pipe")
    pipe = os.open(project.root / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with open(pipe, "rb"), project.serve() as site:
        with ask_to_hold(address_of(site)):
            assert select.select([pipe], [], [], DEADLINE)[0]
            if times == 1:
                site.send(signal.SIGTERM)
            else:
                send_until_it_ends(site, signal.SIGTERM)
            assert site.wait() == -signal.SIGABRT
        site.wait_for_members()

    assert "does not react to signals: ending it." in site.output
    assert "in hold\n" in site.output


@pytest.mark.extended
def test_a_view_that_holds_the_gil_of_a_worker_costs_the_site_none_of_its_listeners(project: Project) -> None:
    configure(project, "gthread", STOP_TIMEOUT=4)
    project.listeners(NOTES)
    with project.serve() as site:
        with ask_to_hold(address_of(site)):
            project.expect_note("holds")
            assert site.stop() == 70
        site.wait_for_members()

    assert project.events() == ["holds", "site stop", "site exit"]
    assert "ended before its stop listeners had run." in site.output


@pytest.mark.extended
def test_a_listener_of_a_worker_that_gunicorn_aborts_is_named(project: Project) -> None:
    project.serves({"BIND": "127.0.0.1:0", "BACKEND": GUNICORN, "OPTIONS": {"timeout": 5, "workers": 1}})
    project.listeners(HANG + 'bus.subscribe("stop", hang)\n')
    project.write(
        "shop/urls.py", VIEWS.replace("ctypes.PyDLL(None).sleep(60)", "__import__('time').sleep(60)")
    )
    with project.serve() as site:
        with ask_to_hold(address_of(site)):
            site.wait_for_line("'stop' listener <function hang")
        site.send(signal.SIGKILL)
