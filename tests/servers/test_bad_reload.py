"""A reload of code that cannot serve: the old code answers every request, and the next good one works."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.processes import RunningSite

from .conftest import GUNICORN, address_of, configure
from .faults import EXCEPTION, FAULTS, HANG, Fault, broken
from .load import (
    Load,
    Shop,
    addresses_of,
    attempt,
    await_that,
    await_value,
    await_version,
    pids,
    status_of,
    version_of,
)

WRONG = {
    **FAULTS,
    "settings-wrong": Fault("settings.py", "\nWSPBUS['NO_SUCH'] = 1\n", "no valid server 'default'", False),
}


class Serving(NamedTuple):
    shop: Shop
    site: RunningSite
    addresses: list[str]


@contextlib.contextmanager
def serve(folder: Path, **options: Any) -> Iterator[Serving]:
    """Run a site of one server, which serves on a TCP and on a Unix socket."""
    shop = Shop(folder)
    with tempfile.TemporaryDirectory() as short:  # as the names of Unix sockets have to be
        bind = ["127.0.0.1:0", f"unix:{short}/site.sock"]
        server = {"BACKEND": GUNICORN, "BIND": bind, "OPTIONS": {"workers": 2, **options}}
        configure(shop, {"default": server}, WARMUP=["/version/"])
        with shop.serve("-v2") as site:
            yield Serving(shop, site, addresses_of(site))
            assert site.stop() == 0
            assert site.members() == []


SYNC, GTHREAD = {}, {"threads": 4}  # type: ignore[var-annotated]
# A fault is the same to workers of any kind: every third is enough for the other one.
CELLS = [
    *(pytest.param(GTHREAD, name, id=f"gthread-{name}") for name in WRONG),
    *(pytest.param(SYNC, name, id=f"sync-{name}") for name in list(WRONG)[::3]),
]


@pytest.fixture(scope="module")
def serving(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One site for all faults of a kind of server."""
    with serve(tmp_path_factory.mktemp("shop"), **request.param) as serving:
        yield serving


@pytest.fixture(scope="module")
def lazy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One site whose workers import the project by themselves."""
    with serve(tmp_path_factory.mktemp("shop"), threads=4, preload_app=False) as serving:
        yield serving


@pytest.mark.parametrize(("serving", "name"), CELLS, indirect=["serving"])
def test_the_old_code_answers_on_and_the_next_good_reload_works(serving: Serving, name: str) -> None:
    fail_and_recover(serving, WRONG[name])


@pytest.mark.parametrize(
    "name", ["models-exception", "models-exit", "urls-syntax", "start-exit", "warmup-exception"]
)
def test_what_each_worker_imports_by_itself_is_told_once(lazy: Serving, name: str) -> None:
    fail_and_recover(lazy, WRONG[name])


@pytest.mark.parametrize("options", [{}, {"threads": 4}], ids=["sync", "gthread"])
def test_a_boot_that_hangs_is_given_up_in_time(tmp_path: Path, options: dict[str, int]) -> None:
    shop = Shop(tmp_path)
    servers = {"default": {"BACKEND": GUNICORN, "OPTIONS": {"workers": 2, **options}}}
    configure(shop, servers)
    with shop.serve("-v2") as site:
        address = address_of(site)
        configure(shop, servers, READY_TIMEOUT=2)  # for all but this start, which may take its time
        assert attempt(address, "restart")["result"] is None
        site.wait_for_line("^Quit with", count=2)
        await_that(lambda: len(pids(site)) == 4, site.members)
        before = pids(site)
        with Load(address, keep_alive=1, one_shot=1, slow=0, think=0.02) as load, broken(shop, HANG):
            began = time.monotonic()
            error = attempt(address, "graceful")["error"]
            assert 2 <= time.monotonic() - began < 20
            load.wait_for_all(lambda answer: answer.began > began + 2)
            assert {answer.pid for answer in load.finish()} <= before
        assert HANG.told in error
        assert pids(site) == before
        # Again, if this machine is so slow.
        await_that(lambda: HANG.told not in attempt(address, "graceful").get("error", ""))
        await_version(address, shop.version)
        assert "Traceback" not in site.output
        assert site.stop() == 0


def test_what_a_boot_has_started_before_it_failed_is_gone_with_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    configure(shop, {"default": {"BACKEND": GUNICORN}})
    helper = Fault(
        "shop/models.py",
        f"\nimport subprocess\n\nsubprocess.Popen(['sleep', '60']){EXCEPTION}",
        "RuntimeError: broken on purpose",
    )
    with shop.serve("-v2") as site:
        address = address_of(site)
        before = pids(site)
        for what in ("graceful", "restart", "graceful"):
            with broken(shop, helper):
                assert helper.told in attempt(address, what)["error"]
            await_value(lambda: pids(site), before)
        assert site.stop() == 0


def fail_and_recover(serving: Serving, fault: Fault) -> None:
    shop, site, addresses = serving
    old, address = version_of(addresses[0]), addresses[0]
    workers = set(status_of(address)["servers"]["default"]["workers"])
    before = pids(site)
    seen, reloads = len(site.lines), site.output.count("Reloaded after")
    with Load(addresses, keep_alive=1, one_shot=1, slow=0, think=0.02) as load:
        with broken(shop, fault):
            load.wait_for_all()
            error = attempt(address, "graceful")["error"]
            failed = time.monotonic()
            load.wait_for_all(lambda answer: answer.began > failed)
        answers = load.finish()

    assert error.startswith("RuntimeError: The reload failed, and the old code serves on: ")
    assert fault.told in error
    assert error.count("Traceback (most recent call last)") == fault.has_traceback
    assert {answer.pid for answer in answers} <= workers
    assert {answer.version for answer in answers} == {old}
    assert pids(site) == before
    status = status_of(address)
    assert status["condition"] == "ready"
    assert status["last_failure"] == error.partition(": ")[2]

    assert attempt(address, "graceful")["result"] is None
    await_version(address, shop.version)
    site.wait_for_line("Reloaded after", count=reloads + 1)
    output = "\n".join(site.lines[seen:])
    assert output.count("Traceback (most recent call last)") == fault.has_traceback
    assert output.count("The reload failed") == 1
    assert output.count(fault.told) == 1
    assert status_of(address)["last_failure"] is None
    await_that(lambda: len(pids(site)) == len(before), site.members)
