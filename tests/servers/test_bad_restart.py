"""A restart of a site that cannot serve: it is refused, with the reason, and the site serves on."""

from __future__ import annotations

import contextlib
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.processes import RunningSite, fetch

from .conftest import GUNICORN, THREADED, address_of, ask, configure, descriptors
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

OF_CHILDREN = ("settings-syntax", "models-exception", "start-exception", "warmup-exception")
OF_THREADED = (
    *("settings-syntax", "models-exception", "models-exit", "urls-syntax"),
    *("views-exception", "ready-syntax", "warmup-exception", "warmup-503"),
)

REFUSED = {
    "bind": (
        "{shop}['BIND'] = '127.0.0.1:0'",
        "a restart keeps the sockets. Stop the site and start it again.",
    ),
    "port": (
        "WSPBUS['SERVERS']['more'] = {'BIND': '127.0.0.1:{port}'}",
        "The server 'more' cannot listen on",
    ),
    "alias": ("WSPBUS['SERVERS'] = {'other': {shop}}", "The server 'other' cannot listen on unix:"),
    "no-server": ("WSPBUS['SERVERS'] = {}", "E002"),
}


class Serving(NamedTuple):
    shop: Shop
    site: RunningSite
    addresses: list[str]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    folder = tmp_path / "project"
    folder.mkdir()
    return Shop(folder)


@contextlib.contextmanager
def serve(folder: Path, **server: Any) -> Iterator[Serving]:
    """Run a site of one server, which serves on a TCP and on a Unix socket."""
    shop = Shop(folder)
    with tempfile.TemporaryDirectory() as short:  # as the names of Unix sockets have to be
        server["BIND"] = ["127.0.0.1:0", f"unix:{short}/site.sock"]
        configure(shop, {"default": server}, WARMUP=["/version/"], PIDFILE="site.pid")
        with shop.serve("-v2") as site:
            yield Serving(shop, site, addresses_of(site))
            assert site.stop() == 0
            assert site.members() == []


@pytest.fixture(scope="module", params=[{}, {"threads": 4}], ids=["sync", "gthread"])
def children(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One site for all faults of a kind of server in a child process."""
    options = {"workers": 2, **request.param}
    with serve(tmp_path_factory.mktemp("shop"), BACKEND=GUNICORN, OPTIONS=options) as serving:
        yield serving


@pytest.fixture(scope="module")
def threaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One site for all faults of a server in the site process."""
    with serve(tmp_path_factory.mktemp("shop"), BACKEND=THREADED) as serving:
        yield serving


@pytest.mark.parametrize("name", OF_CHILDREN)
def test_the_old_children_answer_on_and_the_next_good_restart_works(children: Serving, name: str) -> None:
    refuse_and_recover(children, FAULTS[name])


@pytest.mark.parametrize("name", OF_THREADED)
def test_the_site_process_answers_on_and_the_next_good_restart_works(threaded: Serving, name: str) -> None:
    refuse_and_recover(threaded, FAULTS[name])


def refuse_and_recover(serving: Serving, fault: Fault) -> None:
    shop, site, addresses = serving
    old, address = version_of(addresses[0]), addresses[0]
    status = status_of(address)["servers"]["default"]
    serves = set(status.get("workers", [site.pid]))
    before = pids(site)
    seen, banners = len(site.lines), site.lines.count("Quit with CONTROL-C.")
    with Load(addresses, keep_alive=1, one_shot=1, slow=0, think=0.02) as load:
        with broken(shop, fault):
            load.wait_for_all()
            error = attempt(address, "restart")["error"].replace("\\n", "\n")
            failed = time.monotonic()
            load.wait_for_all(lambda answer: answer.began > failed)
        answers = load.finish()

    assert "The restart failed, and the old code serves on: " in error
    assert fault.told in error
    assert error.count("Traceback (most recent call last)") == fault.has_traceback
    assert {answer.pid for answer in answers} <= serves
    assert {answer.version for answer in answers} == {old}
    assert pids(site) == before
    status = status_of(address)
    assert status["condition"] == "ready"
    assert fault.told in status["last_failure"]
    assert (shop.root / "site.pid").read_text() == f"{site.pid}\n"

    assert "error" not in attempt(address, "restart")
    site.wait_for_line("^Quit with", count=banners + 1)
    await_version(address, shop.version)
    output = "\n".join(site.lines[seen:])
    assert output.count("Traceback (most recent call last)") == fault.has_traceback
    assert output.count("The restart failed") == 1
    assert output.count(fault.told) == 1
    assert status_of(address)["last_failure"] is None
    await_that(lambda: len(pids(site)) == len(before), site.members)


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_this_process_cannot_take_on_are_refused(
    threaded: Serving, name: str, taken_port: int
) -> None:
    shop, site, addresses = threaded
    change, told = REFUSED[name]
    change = change.replace("{shop}", "WSPBUS['SERVERS']['default']").replace("{port}", str(taken_port))
    before, opened = pids(site), descriptors(site.pid)
    with broken(shop, Fault("settings.py", f"\n{change}\n", told)):
        error = attempt(addresses[0], "restart")["error"]

    assert "The restart failed, and the old code serves on: " in error
    assert told in error
    assert [ask(address)[0] for address in addresses] == [200, 200]
    assert pids(site) == before
    await_that(lambda: descriptors(site.pid) <= opened)


def test_a_boot_that_hangs_is_given_up_in_time(shop: Shop) -> None:
    servers = {"child": {"BACKEND": GUNICORN}, "thread": {"BACKEND": THREADED}}
    configure(shop, servers)
    with shop.serve("-v2") as site:
        address = address_of(site, "child")
        configure(shop, servers, READY_TIMEOUT=2)  # for all but this start, which may take its time
        assert attempt(address, "restart")["result"] is None
        site.wait_for_line("^Quit with", count=2)
        await_value(lambda: len(pids(site)), 3)
        before = pids(site)
        with Load([address, address_of(site, "thread")], slow=0) as load, broken(shop, HANG):
            began = time.monotonic()
            error = attempt(address, "restart")["error"]
            assert 2 <= time.monotonic() - began < 20
            load.wait_for_all(lambda answer: answer.began > began + 2)
            assert {answer.pid for answer in load.finish()} <= before
        assert HANG.told in error
        assert pids(site) == before
        # Again, if this machine is so slow.
        await_that(lambda: HANG.told not in attempt(address, "restart").get("error", ""))
        await_version(address, shop.version)
        assert "Traceback" not in site.output
        assert site.stop() == 0


def test_a_start_listener_of_the_site_that_fails_only_then_does_not_end_it(shop: Shop) -> None:
    servers = {"child": {"BACKEND": GUNICORN}, "thread": {"BACKEND": THREADED}}
    configure(shop, servers, HEALTH="127.0.0.1:0", PIDFILE="site.pid")
    good = (shop.root / "shop" / "listeners.py").read_text()
    bad = "\n\nbus.subscribe('start', lambda: broken(), role='site')\n\n\ndef broken():\n"
    with shop.serve("-v2") as site:
        address = address_of(site, "child")
        probe = site.wait_for_line(r" (http://\S+/)livez")[1]
        shop.write("shop/listeners.py", f"{good}{bad}    {EXCEPTION.strip()}\n")
        shop.deploy()
        with Load([address, address_of(site, "thread")], keep_alive=0, slow=0) as load:
            assert attempt(address, "restart")["result"] is None
            load.wait_for_all(lambda answer: answer.version == shop.version)
            load.finish()
        site.wait_for_line("^Quit with", count=2)
        assert site.output.count("Traceback (most recent call last)") == 1
        assert site.output.count("RuntimeError: broken on purpose") == 1
        status = status_of(address)
        assert (status["state"], status["condition"]) == ("STARTED", "failed")
        assert "broken on purpose" in status["reason"]
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            fetch(f"{probe}readyz")
        assert refused.value.read().startswith(b"failed: A start listener failed")
        assert fetch(f"{probe}livez").startswith("failed")

        shop.write("shop/listeners.py", good)
        assert attempt(address, "restart")["result"] is None
        site.wait_for_line("^Quit with", count=3)
        assert status_of(address)["condition"] == "ready"
        assert fetch(f"{probe}readyz") == "ready\n"
        assert (shop.root / "site.pid").read_text() == f"{site.pid}\n"
        assert site.stop() == 0
