"""The launcher over real sites: signals, ends of its processes, boots that do not end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from django_wspbus.development.launcher.program import SHORT_LIFETIME
from tests.controlled import site_of
from tests.processes import DEADLINE
from tests.servers.conftest import address_of, is_free
from tests.servers.load import Load, attempt, await_that
from tests.terminals import CONTROL_C, Terminal

from .broken import (
    BREAKS,
    Edited,
    Mending,
    appended,
    await_fixed,
    break_it,
    count_of,
    develop,
    ends_well,
    look,
    mend,
    without_spare,
)
from .controlling import result

STOPPING = """
import time

@bus.subscribe("stop", role="site")
def stop():
    note("stopping")
    {statement}
"""
HANGING = STOPPING.format(statement="while True: time.sleep(0.01)")
FAILING = STOPPING.format(statement="raise RuntimeError('the stop is broken')")

BOOTING = "\nfrom .journal import note\nnote('boots')\n"
ENDLESS = f"{BOOTING}import threading\nthreading.Event().wait()\n"
DEAF = "\nimport signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"

MOST_MEMORY = 20 << 20

SITE = "site"
PAGE = pytest.param("page", marks=pytest.mark.extended)


def serving(site):
    """Return the PID of the site that serves now."""
    return int(re.search(r'"pid": (\d+)', look(address_of(site))[1])[1])


def await_spare(site):
    """Wait until the launcher has the site and a spare."""
    await_that(lambda: len(psutil.Process(site.pid).children()) == 2)


def expect_end(site, status):
    assert site.wait() == status
    assert site.members() == []


# One site, which each of these leaves as it was


@pytest.fixture(scope="module")
def shared_shop(tmp_path_factory):
    shop = Edited(tmp_path_factory.mktemp("project"))
    without_spare(shop)
    return shop


@pytest.fixture(scope="module")
def shared_site(shared_shop):
    with ends_well(shared_shop.serve()) as site:
        address_of(site)
        yield site


@pytest.fixture
def site(shared_shop, shared_site):
    await_fixed(address_of(shared_site), shared_shop.version)
    return shared_site


def test_it_is_small_and_has_imported_nothing_installed(site):
    launcher = psutil.Process(site.pid)
    maps = Path(f"/proc/{site.pid}/maps").read_text() if sys.platform == "linux" else ""
    with subprocess.Popen([sys.executable, "-I", "-S"], stdin=subprocess.PIPE) as bare:
        sizes = [each.memory_info().rss >> 10 for each in (launcher, psutil.Process(bare.pid))]
    sys.stdout.write(f"The launcher has {sizes[0]} KiB, an interpreter {sizes[1]} KiB.\n")
    assert launcher.memory_info().rss < MOST_MEMORY
    assert "site-packages" not in maps


def test_without_a_spare_in_the_settings_it_has_only_the_site(site):
    launcher = psutil.Process(site.pid)
    await_that(lambda: [each.pid for each in launcher.children()] == [serving(site)], launcher.children)


def test_a_graceful_reload_is_left_to_the_site(site, shared_shop):
    before = shared_shop.notes("site graceful")
    site.send(signal.SIGUSR1)
    shared_shop.expect_note("site graceful", len(before) + 1)


def test_a_view_may_restart_the_site(site):
    before = serving(site)
    attempt(address_of(site), "restart")
    await_that(lambda: serving(site) != before)


@pytest.mark.extended
@pytest.mark.usefixtures("new_interpreters")
def test_a_signal_restarts_the_site_or_has_the_page_try_again(site, shared_shop):
    def count():
        return count_of(site, BREAKS["import of urls"].said)

    before, shown = serving(site), count()
    site.send(signal.SIGHUP)  # without a terminal it is no hangup
    await_that(lambda: serving(site) != before)
    mending = break_it(shared_shop, address_of(site))
    await_that(lambda: count() == shown + 1)
    site.send(signal.SIGUSR2)
    await_that(lambda: count() == shown + 2)
    mend(shared_shop, address_of(site), mending)


@pytest.mark.extended
def test_a_signal_for_the_site_while_it_boots_does_no_harm(site, shared_shop):
    mending = Mending(shared_shop)
    count, ends = len(shared_shop.notes("boots")), count_of(site, "The site exited")
    appended("shop/models.py", f"{BOOTING}import time\ntime.sleep(0.5)\n")(shared_shop)
    shared_shop.expect_note("boots", count + 1)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        site.send(number)
    await_fixed(address_of(site), shared_shop.version)
    assert count_of(site, "The site exited") == ends
    mending.mend()
    await_fixed(address_of(site), shared_shop.deploy())


def test_a_site_that_is_killed_is_started_again_and_no_client_is_refused(site):
    address = address_of(site)
    killed = serving(site)
    await_that(lambda: result(site_of(site), "status")["pid"] == killed)  # else the launcher has not noted it
    time.sleep(SHORT_LIFETIME)
    with Load(address, keep_alive=0, one_shot=1, slow=0) as load:
        load.wait_for_all()
        psutil.Process(killed).kill()
        site.wait_for_line("The site was killed by SIGKILL; restarting it.")
        load.wait_for(lambda answer: answer.pid != killed)
        load.stop()
    # Only the request that the killed process was answering, or a part of whose answer it had sent.
    refused = ("ConnectionRefusedError", "status")
    assert [failure for failure in load.failures if failure.outcome.startswith(refused)] == []
    assert len(load.failures) <= 1


@pytest.mark.extended
@pytest.mark.parametrize("is_deaf", [False, pytest.param(True, marks=pytest.mark.extended)])
def test_a_boot_that_hangs_is_ended_by_the_next_save(site, shared_shop, is_deaf):
    mending = Mending(shared_shop)
    count = len(shared_shop.notes("boots"))
    appended("shop/models.py", DEAF * is_deaf + ENDLESS)(shared_shop)
    shared_shop.expect_note("boots", count + 1)
    with Load(address_of(site), keep_alive=0, one_shot=1, slow=0) as load:
        version = shared_shop.deploy()
        mending.mend()
        load.wait_for_all()
        assert {answer.version for answer in load.finish()} == {version}


# Its end


@pytest.mark.parametrize("shows", [SITE, PAGE])
def test_sigterm_ends_it_with_0(shop, shows):
    develop(shop)
    with shop.serve() as site:
        address = address_of(site)
        await_spare(site)
        if shows == "page":
            break_it(shop, address_of(site))
        site.send(signal.SIGTERM)
        expect_end(site, 0)
        assert len(shop.notes("site stop")) == 1
        assert is_free(address)


@pytest.mark.parametrize("shows", [SITE, PAGE])
def test_control_c_ends_it_with_0_and_without_a_traceback(shop, shows):
    develop(shop)
    with Terminal(shop) as site:
        address_of(site)
        await_spare(site)
        if shows == "page":
            break_it(shop, address_of(site), "settings of WSPBUS")
        site.press(CONTROL_C)
        expect_end(site, 0)
        assert "Traceback" not in site.output
        assert "KeyboardInterrupt" not in site.output


def test_control_c_while_the_code_is_imported_ends_it(shop):
    with Terminal(shop) as site:
        address_of(site)
        appended("shop/models.py", ENDLESS)(shop)
        shop.expect_note("boots")
        site.press(CONTROL_C)
        expect_end(site, 0)
        assert "Traceback" not in site.output
        assert count_of(site, "The site was told to exit while it was starting.") == 1


@pytest.mark.parametrize("shows", [SITE, PAGE])
def test_the_end_of_its_terminal_ends_it(shop, shows):
    with Terminal(shop) as site:
        address_of(site)
        if shows == "page":
            break_it(shop, address_of(site))
        site.send(signal.SIGHUP)
        expect_end(site, 0)


@pytest.mark.parametrize("shows", [SITE, PAGE, pytest.param("boot", marks=pytest.mark.extended)])
def test_when_it_is_killed_all_that_it_has_started_ends(shop, shows):
    develop(shop)
    with shop.serve() as site:
        address_of(site)
        await_spare(site)
        if shows == "page":
            break_it(shop, address_of(site))
        elif shows == "boot":
            appended("shop/urls.py", ENDLESS)(shop)
            shop.expect_note("boots")
        site.process.kill()
        site.process.wait(DEADLINE)
        await_that(lambda: site.members() == [])
        stops = len(shop.notes("site stop"))
        assert stops == len(shop.notes("site start")) > 0


@pytest.mark.extended
def test_a_signal_to_the_site_alone_ends_all_with_0(shop):
    with shop.serve() as site:
        await_fixed(address_of(site), shop.deploy())
        psutil.Process(serving(site)).send_signal(signal.SIGINT)
        expect_end(site, 0)


def test_a_second_signal_ends_it_at_once(shop):
    shop.listeners(HANGING)
    with shop.serve() as site:
        address_of(site)
        site.send(signal.SIGTERM)
        shop.expect_note("stopping")
        time.sleep(0.2)  # or it is taken for the same request
        site.send(signal.SIGTERM)
        expect_end(site, 128 + signal.SIGTERM)
        assert count_of(site, "Caught SIGTERM again: ending at once.") == 1


def test_a_view_may_end_all(shop):
    with shop.serve() as site:
        attempt(address_of(site), "exit")
        expect_end(site, 0)


@pytest.mark.extended
@pytest.mark.parametrize(
    "source", [HANGING, pytest.param(FAILING, marks=pytest.mark.extended)], ids=["hangs", "fails"]
)
def test_a_stop_listener_that_hangs_or_fails_does_not_end_development(shop, source):
    without_spare(shop, STOP_TIMEOUT=1)
    shop.listeners(source)
    with ends_well(shop.serve()) as site:
        address_of(site)
        shop.listeners("")
        without_spare(shop)  # so that this site has the time for its end
        await_fixed(address_of(site), shop.deploy())
