"""Clients that send requests without a break, the outcome of each request, and a project with versions."""

from __future__ import annotations

import contextlib
import json
import re
import select
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

from django_wspbus.servers.threaded.request_handler import KEEP_ALIVE
from tests.processes import DEADLINE, RunningSite
from tests.projects import Project

from .clients import Client, ask

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

VIEWS = """\
import os
import time

from django.http import JsonResponse

from django_wspbus import bus

from .version import VERSION


def version(request):
    return JsonResponse({"pid": os.getpid(), "version": VERSION})


def slow(request):
    time.sleep(1)
    return version(request)


def attempt(request, what):
    method, *arguments = what.split(":")
    try:
        result = getattr(bus.site, method)(*arguments)
    except Exception as error:
        return JsonResponse({"error": f"{type(error).__name__}: {error}", "pid": os.getpid()})
    return JsonResponse({"result": result, "pid": os.getpid()})
"""

VERSIONED_URLS = f"""\
{URLS}
from . import views

urlpatterns += [
    path("version/", views.version),
    path("slow/", views.slow),
    path("try/<what>", views.attempt),
]
"""


def held_start(priority: int = 50) -> str:
    """Return the code of a start listener of the site that waits for a file ``go``."""
    return f"""
from pathlib import Path

GO = Path(__file__).parent.parent / "go"


@bus.subscribe("start", priority={priority}, role="site")
def held():
    note("held")
    while not GO.exists() and not bus.exit_asked:
        bus.wait_for(lambda: False, 0.02)
"""


class Shop(Project):
    """A project whose code has a version, which ``/version/`` tells, and after a second ``/slow/``.

    ``/try/<what>`` calls a method of ``bus.site``, and tells its result, or the error that it raises.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.write("shop/models.py", "")
        self.write("shop/views.py", VIEWS)
        self.write("shop/urls.py", VERSIONED_URLS)
        self.version = 0
        self.deploy()

    def deploy(self) -> int:
        """Put a new version on disk; return its number."""
        self.version += 1
        temporary = self.write("shop/version.tmp", f"VERSION = {self.version}\n")
        temporary.rename(self.root / "shop" / "version.py")  # atomic, as a process may import it now
        return self.version


def attempt(address: str, what: str) -> dict[str, Any]:
    """Make a worker call ``method:argument`` of ``bus.site``; return the result, or the error it raised."""
    status, body = ask(address, f"/try/{what}")
    assert status == 200, body
    result: dict[str, Any] = json.loads(body)
    return result


def status_of(address: str) -> dict[str, Any]:
    """Return the result of ``bus.site.status()`` in a worker."""
    result: dict[str, Any] = attempt(address, "status")["result"]
    return result


def addresses_of(site: RunningSite, alias: str = "default") -> list[str]:
    """Return the addresses of a started server, as BIND has them."""
    line = site.wait_for_line(rf"^  {alias} +((http://|unix:)\S+ )+ *\(").string
    found = re.findall(r"http://(\S+?)/ |(unix:\S+)", line)
    return [tcp or unix for tcp, unix in found]


def version_of(address: str) -> int:
    with contextlib.closing(Client(address)) as client:
        return int(json.loads(client.ask_in_time("/version/")[1])["version"])


def await_version(address: str, version: int) -> None:
    """Wait until a version answers. For a moment after the switch, the version before may still answer."""
    await_that(lambda: version_of(address) == version)


def pids(site: RunningSite) -> set[int]:
    return {process.pid for process in site.members()}


def await_that(
    condition: Callable[[], Any], what: Callable[[], object] = lambda: "", timeout: float = DEADLINE
) -> None:
    """Wait until a condition without an event is true. If it stays false, the error shows ``what()``."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


def await_value(get: Callable[[], object], value: object) -> None:
    await_that(lambda: get() == value, get)


class Answer(NamedTuple):
    """A request and its answer with status 200. Times are of `time.monotonic`; some pages lack the rest."""

    client: str
    began: float
    ended: float
    pid: int | None
    version: int | None


class Failure(NamedTuple):
    """A request without an answer 200: its status, or the error of the connection."""

    client: str
    began: float
    ended: float
    outcome: str


class Load:
    """Clients in threads, as a context manager. Each sends its next request as soon as it gets an answer.

    ``address``: where they ask; if there are several, there are as many clients at each.
    ``keep_alive`` and ``one_shot``: how many that keep their connection, and that do not; ``slow``: how
    many of either kind ask for a page that takes a second. ``paths``: others that one client each asks for.
    ``think``: the seconds before each request; ``timeout``: those that a client waits for an answer;
    ``kept``: those after an answer for which a server that stops waits for the next request.
    A client whose connection was closed before it asks again connects anew, as any does.
    """

    def __init__(
        self,
        address: str | list[str],
        *,
        keep_alive: int = 2,
        one_shot: int = 2,
        slow: int = 1,
        paths: Iterable[str] = (),
        think: float = 0.03,
        timeout: float = DEADLINE,
        kept: float = KEEP_ALIVE,
    ) -> None:
        self.think = think
        self.timeout = timeout
        self.kept = kept
        self.answers: list[Answer] = []
        self.failures: list[Failure] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        kinds = [
            *[("keep-alive", "/version/")] * keep_alive,
            *[("one-shot", "/version/")] * one_shot,
            *([("keep-alive", "/slow/")] * slow if keep_alive else []),
            *([("one-shot", "/slow/")] * slow if one_shot else []),
            *[("one-shot", path) for path in paths],
        ]
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(each, path, kind == "keep-alive"),
                name=f"{kind} {path} {each} {number}",
                daemon=True,
            )
            for each in ([address] if isinstance(address, str) else address)
            for number, (kind, path) in enumerate(kinds)
        ]
        self.names = {thread.name for thread in self._threads}

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        deadline = time.monotonic() + DEADLINE
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
            assert not thread.is_alive(), f"{thread.name} has no answer"

    def finish(self) -> list[Answer]:
        """Stop, and return the answers. If a request has failed, the test fails."""
        self.stop()
        assert self.failures == []
        assert {answer.client for answer in self.answers} == self.names  # each client got answers
        return self.answers

    def finish_refused(self) -> None:
        """Stop after the end of a site. Each request on an accepted connection must have got an answer."""
        with self._changed:
            self._changed.wait_for(lambda: {each.client for each in self.failures} == self.names, DEADLINE)
        self.stop()
        assert {each.client for each in self.failures} == self.names
        allowed = ("ConnectionRefusedError", "FileNotFoundError", "status 503")  # but not: reset, or closed
        assert [each for each in self.failures if not each.outcome.startswith(allowed)] == []

    def wait_for(self, condition: Callable[[Answer], bool], count: int = 1) -> None:
        """Wait for a number of answers for which a condition is true."""
        with self._changed:
            enough = self._changed.wait_for(lambda: sum(map(condition, self.answers)) >= count, DEADLINE)
        assert enough, (self.answers[-10:], self.failures[:10])

    def wait_for_all(self, condition: Callable[[Answer], bool] = lambda answer: True) -> None:
        """Wait until each client has an answer for which a condition is true."""

        def those_with_one() -> set[str]:
            return {answer.client for answer in self.answers if condition(answer)}

        with self._changed:
            all_have = self._changed.wait_for(lambda: those_with_one() == self.names, DEADLINE)
        assert all_have, (self.names - those_with_one(), self.failures[:10])

    def _run(self, address: str, path: str, keep_alive: bool) -> None:
        with contextlib.closing(Client(address, self.timeout, self.kept)) as client:
            while not self._stopping.wait(self.think):
                entry = self._ask(client, path)
                with self._changed:
                    if isinstance(entry, Answer):
                        self.answers.append(entry)
                    else:
                        self.failures.append(entry)
                    self._changed.notify_all()
                if not keep_alive or isinstance(entry, Failure):
                    client.close()

    def _ask(self, client: Client, path: str) -> Answer | Failure:
        name, began = threading.current_thread().name, time.monotonic()
        if client.sock is not None and select.select([client.sock], [], [], 0)[0]:
            client.close()  # the server has closed the connection between two requests
        try:
            status, body = client.ask_in_time(path)
        except Exception as error:
            return Failure(name, began, time.monotonic(), f"{type(error).__name__}: {error}")
        if status != 200:
            return Failure(name, began, time.monotonic(), f"status {status}: {body[:200]}")
        answer = json.loads(body) if body.startswith("{") else {}
        if "error" in answer:
            return Failure(name, began, time.monotonic(), answer["error"])
        return Answer(name, began, time.monotonic(), answer.get("pid"), answer.get("version"))
