"""Ways in which a developer breaks a project, and what is to be seen of each."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django_wspbus.servers.threaded.request_handler import LAST_CHANCE
from tests.processes import DEADLINE, Running, RunningSite
from tests.projects import THREADED, Project
from tests.servers.conftest import Client
from tests.servers.load import Load, Shop

BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"
TEXT = "*/*"
JSON = "application/json"


def develop(project: Project, servers: dict[str, Any] | None = None, **wspbus: Any) -> None:
    """Write settings.py as it is in development: servers by alias, and other keys of WSPBUS."""
    project.configure(DEBUG=True, WSPBUS={"SERVERS": servers or {"default": THREADED}, **wspbus})


def without_spare(project: Project, servers: dict[str, Any] | None = None, **wspbus: Any) -> None:
    """Write settings.py for what a spare does not matter to."""
    develop(project, servers, AUTORELOAD={"SPARE": False}, **wspbus)


def look(address: str, accept: str = TEXT, path: str = "/version/") -> tuple[int, str]:
    """Return the status and the body of an answer to a client of some kind."""
    with contextlib.closing(Client(address)) as client:
        client.request("GET", path, headers={"Accept": accept})
        response = client.getresponse()
        return response.status, response.read().decode()


def await_answer(address: str, condition: Callable[[int, str], bool], accept: str = TEXT) -> str:
    """Ask until a condition is true of the answer; return its body. A connection that fails is an error."""
    deadline = time.monotonic() + DEADLINE
    while not condition(*(answer := look(address, accept))):
        assert time.monotonic() < deadline, answer
        time.sleep(0.02)
    return answer[1]


def await_error(address: str, text: str, accept: str = TEXT) -> str:
    return await_answer(address, lambda status, body: status == 500 and text in body, accept)


def await_fixed(address: str, version: int) -> None:
    await_answer(address, lambda status, body: status == 200 and json.loads(body)["version"] == version)


def count_of(site: RunningSite, text: str) -> int:
    """Return how many lines of the terminal hold a text."""
    return sum(text in line for line in site.lines)


@contextlib.contextmanager
def never_refused(address: str) -> Iterator[None]:
    """Send requests all the time; each gets an answer, if only the error."""
    with Load(address, keep_alive=1, one_shot=1, slow=0, think=0.05, kept=LAST_CHANCE) as load:
        yield
        load.wait_for_all()
    assert len(load.answers) > 0
    assert [each for each in load.failures if not each.outcome.startswith("status 500: ")] == []


@dataclass(frozen=True)
class Break:
    """``does(shop)`` breaks its code; ``said``: what is in one line of the terminal, and in the page.

    ``shown``: what else a browser is to show; ``title``: what a program gets as the error.
    """

    does: Callable[[Shop], object]
    said: str
    shown: str = ""
    title: str = ""


def appended(name: str, text: str) -> Callable[[Shop], object]:
    return lambda shop: shop.write(name, (shop.root / name).read_text() + text)


def raising(name: str, mark: str, error: str = "RuntimeError") -> Break:
    line = f'raise {error}("{mark}")'
    return Break(appended(name, f"\n{line}\n"), line, mark, f"{error}: {mark}")


def listener(role: str, mark: str) -> Break:
    line = f'raise RuntimeError("{mark}")'
    source = f'\n\n@bus.subscribe("start", role="{role}")\ndef start():\n    {line}\n'
    return Break(appended("shop/listeners.py", source), line, mark, f"RuntimeError: {mark}")


def in_ready(shop: Shop) -> None:
    shop.write(
        "shop/apps.py", (shop.root / "shop/apps.py").read_text() + '        raise RuntimeError("unready")\n'
    )


def go_in_circles(shop: Shop) -> None:
    shop.write("shop/chicken.py", "from .egg import egg\n\nchicken = 1\n")
    shop.write("shop/egg.py", "from .chicken import chicken\n\negg = 1\n")
    appended("shop/views.py", "\nfrom .chicken import chicken\n")(shop)


def delete_package(shop: Shop) -> None:
    shutil.rmtree(shop.root / "shop" / "prices")


def rename_views(shop: Shop) -> None:
    (shop.root / "shop" / "views.py").rename(shop.root / "shop" / "pages.py")


def fail_check(shop: Shop) -> None:
    source = """
from django.core import checks


@checks.register
def look(app_configs, **kwargs):
    return [checks.Error("the shop is empty", id="shop.E001")]
"""
    appended("shop/listeners.py", source)(shop)


CIRCLE = "cannot import name 'chicken' from partially initialized module 'shop.chicken'"
ENDED = " before it served"

BREAKS = {
    "syntax of views": Break(
        appended("shop/views.py", "\ndef f(:\n"), "def f(:", "invalid syntax", "SyntaxError"
    ),
    "import of views": raising("shop/views.py", "views are broken"),
    "import of urls": raising("shop/urls.py", "urls are broken", "ValueError"),
    "import of models": raising("shop/models.py", "models are broken"),
    "syntax of models": Break(
        appended("shop/models.py", "\nclass :\n"), "class :", "invalid syntax", "SyntaxError"
    ),
    "settings": raising("settings.py", "settings are broken"),
    "syntax of settings": Break(
        appended("settings.py", "\nA = [[\n"), "A = [[", "never closed", "SyntaxError"
    ),
    "ready": Break(in_ready, 'raise RuntimeError("unready")', "unready", "RuntimeError: unready"),
    "start listener of the site": listener("site", "the site is broken"),
    "start listener of the worker": listener("worker", "the worker is broken"),
    "views renamed": Break(
        rename_views, "ImportError: cannot import name 'views'", "cannot import", "ImportError"
    ),
    "deleted package": Break(
        delete_package, "ImportError: cannot import name 'prices'", "prices", "ImportError"
    ),
    "circular import": Break(go_in_circles, f"ImportError: {CIRCLE}", "chicken", "ImportError"),
    "settings of WSPBUS": Break(
        appended("settings.py", "\nWSPBUS['SERVERS']['default']['BNID'] = 1\n"), "'BNID'", "BNID"
    ),
    "system check": Break(fail_check, "(shop.E001)", "the shop is empty"),
    "recursion": Break(
        appended("shop/views.py", "\n\ndef f():\n    f()\n\n\nf()\n"),
        "RecursionError:",
        "f()",
        "RecursionError",
    ),
    "BaseException": Break(
        appended("shop/urls.py", "\n\nclass Odd(BaseException):\n    pass\n\n\nraise Odd('odd')\n"),
        "raise Odd('odd')",
        "odd",
    ),
    "KeyboardInterrupt": raising("shop/urls.py", "interrupted", "KeyboardInterrupt"),
    "os._exit": Break(appended("shop/urls.py", "\nos._exit(7)\n"), "The site exited with status 7", ENDED),
    "sys.exit(0)": Break(
        appended("shop/urls.py", "\nimport sys\nsys.exit(0)\n"),
        "The site exited with status 0",
        ENDED,
    ),
    "sys.exit(text)": Break(
        appended("shop/models.py", '\nimport sys\nsys.exit("no models " "today")\n'),
        "no models today",
        "sys.exit",
    ),
    "SIGKILL": Break(
        appended("shop/urls.py", "\nos.kill(os.getpid(), 9)\n"),
        "The site was killed by SIGKILL",
        ENDED,
    ),
    "SIGSEGV": Break(
        appended("shop/urls.py", "\nos.kill(os.getpid(), 11)\n"),
        "The site was killed by SIGSEGV",
        ENDED,
    ),
}


class Edited(Shop):
    """A shop of which no file is ever half written, but by a test that means it."""

    def write(self, name: str, text: str) -> Path:
        """Put a whole file in place."""
        path = self.root / name
        whole = super().write(f"{name}.whole", text)
        return whole.rename(path)


class Mending:
    """A shop's files as they are now, to be put back."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.files = {path: path.read_text() for path in shop.root.rglob("*.py") if path.name != "version.py"}

    def mend(self) -> None:
        """Put the files back that are not as they were, each when it is whole."""
        for path, text in self.files.items():
            path.parent.mkdir(exist_ok=True)
            if not path.exists() or path.read_text() != text:
                temporary = path.with_suffix(".whole")
                temporary.write_text(text)
                temporary.rename(path)


def break_it(shop: Shop, address: str, name: str = "import of urls") -> Mending:
    """Break the code, and wait until the page shows it; return what mends it."""
    mending = Mending(shop)
    BREAKS[name].does(shop)
    await_error(address, BREAKS[name].said)
    return mending


def mend(shop: Shop, address: str, mending: Mending) -> None:
    """Mend code that does not boot, and wait until it serves: it is one save, and one reload."""
    mending.mend()
    await_fixed(address, shop.version)


def break_and_mend(shop: Shop, address: str) -> None:
    mend(shop, address, break_it(shop, address))


@contextlib.contextmanager
def ends_well(site: Running) -> Iterator[Any]:
    """Run a site in the block, after which SIGTERM ends all of its processes, with the status 0."""
    with site:
        yield site
        assert site.stop() == 0
        assert site.members() == []
