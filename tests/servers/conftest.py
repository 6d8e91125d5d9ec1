"""A project that every kind of server serves, and clients that hold on to single connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.processes import DEADLINE, RunningSite
from tests.projects import Project

THREADED = "django_wspbus.servers.threaded.ThreadedServer"
GUNICORN = "django_wspbus.servers.gunicorn.GunicornServer"

KINDS: dict[str, dict[str, Any]] = {
    "threaded": {"BACKEND": THREADED},
    "sync": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 4}},
    "gthread": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2, "threads": 4}},
}

URLS = """\
import hashlib
import os
import time
from pathlib import Path

from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from django_wspbus import bus

from .journal import note

ROOT = Path(__file__).parent.parent


def wait_for(name):
    note(f"{name} waits")
    deadline = time.monotonic() + 60
    while not (ROOT / name).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def answer(request):
    return HttpResponse(f"{os.getpid()} {bus.state.name}")


def held(request, name):
    wait_for(name)
    return HttpResponse(f"{name} answered")


def stream(request, name):
    def parts():
        yield "begun, "
        wait_for(name)
        yield "ended"

    return StreamingHttpResponse(parts())


@csrf_exempt
def upload(request, name=None):
    if name:
        wait_for(name)
    digest = hashlib.sha256()
    while part := request.read(65536):
        digest.update(part)
    return HttpResponse(digest.hexdigest())


def status(request):
    return JsonResponse(bus.site.status())


def ask(request, what):
    getattr(bus.site, what)()
    return HttpResponse(f"{what} taken on")


urlpatterns = [
    path("", answer),
    path("held/<name>", held),
    path("stream/<name>", stream),
    path("upload/", upload),
    path("upload/<name>", upload),
    path("status/", status),
    path("ask/<what>", ask),
]
"""


def connect(address: str) -> socket.socket:
    """Return a connection to an address as BIND has it, with the deadline as its timeout."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target: Any = address.removeprefix("unix:")
    else:
        host, _, port = address.removeprefix("http://").rpartition(":")
        host = host.strip("[]")
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        target = (host, int(port))
    sock.settimeout(DEADLINE)
    try:
        sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


class Client(HTTPConnection):
    """One connection to an address as BIND has it."""

    def __init__(self, address: str) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self.address = address

    def connect(self) -> None:
        self.sock = connect(self.address)

    def ask(self, path: str, body: bytes | None = None, method: str | None = None) -> tuple[int, str]:
        """Return the status and the body of an answer; the connection stays open, if it may."""
        self.request(method or ("GET" if body is None else "POST"), path, body)
        response = self.getresponse()
        return response.status, response.read().decode()


def ask(address: str, path: str = "/", body: bytes | None = None) -> tuple[int, str]:
    """Return the status and the body of an answer."""
    with contextlib.closing(Client(address)) as client:
        return client.ask(path, body)


def is_free(address: str) -> bool:
    """Whether nobody listens on an address."""
    try:
        connect(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


@pytest.fixture
def later() -> Iterator[Callable[..., Future[Any]]]:
    """Call a function in a thread, for which no bus waits; its result is a future's."""
    started = []

    def call(function: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function(*args))
            except BaseException as error:
                future.set_exception(error)

        thread = threading.Thread(target=run, name="Client", daemon=True)
        started.append(thread)
        thread.start()
        return future

    yield call
    for thread in started:
        thread.join(DEADLINE)
        assert not thread.is_alive()


@pytest.fixture
def shop(project: Project) -> Project:
    """The project, with pages that are held until ``release`` lets them go."""
    project.write("shop/urls.py", URLS)
    return project


def release(project: Project, name: str) -> None:
    (project.root / name).touch()


def configure(project: Project, servers: dict[str, dict[str, Any]], **site: Any) -> None:
    """Write the settings: servers of which those without a BIND take any port."""
    bound = {alias: {"BIND": "127.0.0.1:0", **server} for alias, server in servers.items()}
    project.configure(WSPBUS={"SERVERS": bound, **site})


def address_of(site: RunningSite, alias: str = "default") -> str:
    """Return where a started server listens, as BIND has it."""
    line = site.wait_for_line(rf"^  {alias} +(http://|unix:)(\S+?)/? +\(")
    return line[2] if line[1] == "http://" else line[1] + line[2]


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}
