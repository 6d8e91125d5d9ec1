"""A restart of a site that cannot serve: it is refused, with the reason, and the site serves on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .clients import ask
from .conftest import BOTH, KINDS, address_of, configure, descriptors
from .faults import FAULTS, Fault, Serving, broken, fail_and_recover, give_up_what_hangs, rows, serve
from .load import Shop, attempt, await_that, await_value, pids

# Settings and models fail in the site process, whatever its servers are.
OF_CHILDREN = ("start-exception", "urls-syntax", "warmup-exception")
OF_THREADED = (
    *("models-exit", "warmup-503", "settings-syntax", "models-exception"),
    *("urls-syntax", "views-exception", "ready-syntax", "warmup-exception"),
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


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One site for all faults of a server in a child process."""
    with serve(tmp_path_factory.mktemp("shop"), KINDS["gthread"]) as serving:
        yield serving


@pytest.fixture(scope="module")
def threaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One site for all faults of a server in the site process."""
    with serve(tmp_path_factory.mktemp("shop"), KINDS["threaded"]) as serving:
        yield serving


@pytest.mark.parametrize("name", rows(OF_CHILDREN, 1))
def test_the_old_children_answer_on_and_the_next_good_restart_works(children: Serving, name: str) -> None:
    fail_and_recover(children, FAULTS[name], method="restart")


@pytest.mark.parametrize("name", rows(OF_THREADED, 1))
def test_the_site_process_answers_on_and_the_next_good_restart_works(threaded: Serving, name: str) -> None:
    fail_and_recover(threaded, FAULTS[name], method="restart")


@pytest.mark.parametrize("name", rows(REFUSED, 2))
def test_settings_that_this_process_cannot_take_on_are_refused(
    threaded: Serving, name: str, taken_port: int
) -> None:
    shop, site, addresses = threaded
    change, reason = REFUSED[name]
    change = change.replace("{shop}", "WSPBUS['SERVERS']['default']").replace("{port}", str(taken_port))
    before, opened = pids(site), descriptors(site.pid)
    with broken(shop, Fault("settings.py", f"\n{change}\n", reason)):
        error = attempt(addresses[0], "restart")["error"]

    assert "The restart failed; the old code keeps serving: " in error
    assert reason in error
    assert [ask(address)[0] for address in addresses] == [200, 200]
    await_value(lambda: pids(site), before)
    await_that(lambda: descriptors(site.pid) <= opened)


@pytest.mark.extended
def test_a_boot_that_hangs_is_given_up_in_time(shop: Shop) -> None:
    configure(shop, BOTH, READY_TIMEOUT=15)
    with shop.serve("-v2") as site:
        give_up_what_hangs(site, shop, address_of(site, "child"), "restart")
        assert site.stop() == 0
