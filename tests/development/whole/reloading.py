"""A project that is edited while it is served."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from tests.processes import DEADLINE, RunningSite
from tests.projects import GUNICORN, SETTINGS, THREADED
from tests.servers.conftest import ask
from tests.servers.load import await_that

from .broken import Edited

GTHREAD = {**GUNICORN, "OPTIONS": {"threads": 4}}

each_server = pytest.mark.parametrize(
    ("server", "spare"),
    [
        pytest.param(THREADED, True, id="threaded-warm"),
        pytest.param(GTHREAD, False, id="gunicorn-cold", marks=pytest.mark.extended),
    ],
)
"""Each server once, and both with a warm spare and without."""

VIEWS = """
from django.shortcuts import render


def page(request, name):
    return render(request, name)


def run(request):  # what a view sees of its process
    names = {}
    exec(request.GET["code"], names)
    return JsonResponse({"pid": os.getpid(), "result": names["result"]})


urlpatterns += [path("page/<path:name>", page), path("run/", run)]
"""

TEMPLATES = [
    {"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": ["templates"], "APP_DIRS": True}
]


class Development(Edited):
    """A shop under DEBUG, with the paths ``/page/<template>``, and `evaluate` for what a view sees.

    Its ``/slow/`` takes 0.3 s.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.append("shop/urls.py", VIEWS)
        self.write("shop/views.py", (root / "shop/views.py").read_text().replace("sleep(1)", "sleep(0.3)"))
        self.write("templates/outer.txt", "outer 1")
        self.write("shop/templates/inner.txt", "inner 1")

    def append(self, name: str, text: str) -> None:
        self.write(name, (self.root / name).read_text() + text)

    def edit(self) -> int:
        """Save the next version in place, as an editor does; return its number."""
        self.version += 1
        with open(self.root / "shop/version.py", "r+b", buffering=0) as file:
            file.write(f"VERSION = {self.version}\n".encode())
        return self.version

    def set_up(
        self, server: dict[str, Any] = THREADED, *, spare: bool = False, apps: Sequence[str] = (), **more: Any
    ) -> None:
        """Write settings.py; ``more``: other settings, and ``autoreload``: other keys of AUTORELOAD."""
        autoreload = {"SPARE": spare, **more.pop("autoreload", {})}
        self.configure(
            DEBUG=True,
            TEMPLATES=TEMPLATES,
            INSTALLED_APPS=[*SETTINGS["INSTALLED_APPS"], *apps],
            WSPBUS={"SERVERS": {"default": server}, "AUTORELOAD": autoreload},
            **more,
        )

    @contextlib.contextmanager
    def served(self, *arguments: str, **variables: str) -> Iterator[Served]:
        """Serve the project, first of all; the block ends with its end, which is to go well."""
        with self.serve(*arguments, **variables) as site:
            yield Served(self, site)
            assert site.stop() == 0


class Served:
    """A site in development."""

    def __init__(self, project: Development, site: RunningSite) -> None:
        self.project = project
        self.site = site
        self.address = site.wait_until_started()["default"].removeprefix("http://")
        self.reloads = 0

    def get(self, path: str) -> str:
        status, body = ask(self.address, path)
        assert status == 200, (status, body[:2000])
        return body

    def version(self) -> tuple[int, int]:
        """Return the version, and the PID of the process that answers."""
        answer = json.loads(self.get("/version/"))
        return answer["version"], answer["pid"]

    def evaluate(self, code: str) -> Any:
        """Return what a view finds ``result`` to be."""
        return evaluate(self.address, code)

    def await_result(self, code: str, result: object) -> None:
        """Wait until a view finds this to be ``result``; an error may be shown meanwhile."""
        body = json.dumps(result)
        await_that(lambda: ask(self.address, path_of(code))[1].endswith(f'"result": {body}}}'))

    def await_version(self) -> None:
        """Wait until the version is that of the project; an error may be shown meanwhile."""
        body = f'"version": {self.project.version}}}'
        await_that(lambda: ask(self.address, "/version/")[1].endswith(body))

    @property
    def child(self) -> psutil.Process | None:
        """The site process that has started last; None if it has ended since."""
        try:
            return psutil.Process(self.project.notes("site start")[-1].pid)
        except psutil.NoSuchProcess:
            return None

    def spares(self) -> list[psutil.Process]:
        """Return the children of the launcher besides the site process."""
        child = self.project.notes("site start")[-1].pid
        return [each for each in psutil.Process(self.site.pid).children() if each.pid != child]

    def await_spare(self) -> int:
        """Wait until there is a spare that is prepared, which then sleeps; return its PID."""
        found: list[int] = []

        def is_there() -> bool:
            # One that is not fit sleeps, too, for as long as the launcher takes to end it.
            found[:] = [each.pid for each in self.spares() if sleeps(each, 0.3)]
            return found == [each.pid for each in self.spares()] != []

        await_that(is_there, self.spares)
        return found[0]

    def await_reload(self, count: int = 1) -> None:
        """Wait until the site has been started again a number of times more."""
        self.reloads += count
        self.site.wait_for_line(r"^Serving again after", count=self.reloads)

    def await_calm(self) -> None:
        """Wait until the site process does nothing but watch."""
        await_that(lambda: self.child is not None and sleeps(self.child))

    def expect_version(self, version: int) -> int:
        """Wait until the version is this one; return the PID of the process that answers."""
        deadline = time.monotonic() + DEADLINE
        while (answer := self.version())[0] != version:
            assert time.monotonic() < deadline, (answer, version)
            time.sleep(0.01)
        return answer[1]

    def expect_no_reload(self, act: Callable[[], object] = lambda: None) -> None:
        """Assert that no reload comes of an act: the only reloads are those of two edits after it."""
        self.await_calm()
        self.reloads = len(self.restarts())
        act()
        for _ in range(2):
            version = self.project.edit()
            self.await_reload()
            self.expect_version(version)
        assert len(self.restarts()) == self.reloads, self.restarts()
        assert self.changes()[-1] == "shop/version.py"

    def restarts(self) -> list[str]:
        return [line for line in self.site.lines if line.startswith("Serving again")]

    def changes(self) -> list[str]:
        """Return the files of the project that the terminal has named as changed."""
        found = (re.fullmatch(r"(.*) changed, reloading\.", line) for line in self.site.lines)
        return [match[1].removeprefix(f"{self.project.root}/") for match in found if match]


def evaluate(address: str, code: str) -> Any:
    """Return what a view finds ``result`` to be."""
    status, body = ask(address, path_of(code))
    assert status == 200, body[:2000]
    return json.loads(body)["result"]


def path_of(code: str) -> str:
    return "/run/?" + urlencode({"code": code})


def sleeps(process: psutil.Process, duration: float = 0.1) -> bool:
    """Return whether a process has slept for some seconds."""
    try:
        before = process.cpu_times()
        time.sleep(duration)
        return process.cpu_times() == before and process.status() == psutil.STATUS_SLEEPING
    except psutil.NoSuchProcess:
        return False
