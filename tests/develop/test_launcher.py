"""The launcher over real sites: signals, ends of whatever process, edits of what it holds."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.processes import DEADLINE
from tests.servers.conftest import address_of, is_free
from tests.servers.load import Load, attempt, await_that
from tests.terminals import CONTROL_C, Terminal

from .broken import (
    BREAKS,
    Mending,
    appended,
    await_error,
    await_fixed,
    develop,
    look,
    told,
    without_spare,
)

HANGING = """
import time

@bus.subscribe("{channel}", role="site")
def hang():
    note("hanging")
    time.sleep(60)
"""
FAILING = """
@bus.subscribe("stop", role="site")
def fail():
    raise RuntimeError("the stop is broken")
"""
MOST_MEMORY = 20 << 20


def child_of(site):
    """Return the process that serves, or shows an error."""
    pid = serving(site)
    return next(each for each in psutil.Process(site.pid).children() if each.pid == pid)


def serving(site):
    """Return the PID of the site that serves now."""
    return int(re.search(r'"pid": (\d+)', look(address_of(site))[1])[1])


def spare_of(site):
    """Return the warm spare, once it is there."""
    found = []

    def is_there():
        pid = serving(site)
        found[:] = [each for each in psutil.Process(site.pid).children() if each.pid != pid]
        return len(found) == 1

    await_that(is_there)
    return found[0]


def break_it(shop, site, name="import of urls"):
    """Break the code, and wait for the page; return what mends it."""
    mending = Mending(shop)
    BREAKS[name].does(shop)
    await_error(address_of(site), BREAKS[name].said)
    return mending


def mend(shop, site, mending):
    version = shop.deploy()
    mending.mend()
    await_fixed(address_of(site), version)


def expect_end(site, status):
    assert site.wait() == status
    assert site.members() == []


# What it is


def test_it_is_small_and_knows_neither_django_nor_the_project(shop):
    with shop.serve() as site:
        address_of(site)
        launcher = psutil.Process(site.pid)
        maps = Path(f"/proc/{site.pid}/maps").read_text() if sys.platform == "linux" else ""
        bare = subprocess.Popen([sys.executable, "-I", "-S"], stdin=subprocess.PIPE)
        with bare:
            sizes = [each.memory_info().rss >> 10 for each in (launcher, psutil.Process(bare.pid))]
        sys.stdout.write(f"The launcher has {sizes[0]} KiB, an interpreter {sizes[1]} KiB.\n")
        assert launcher.memory_info().rss < MOST_MEMORY
        assert "site-packages" not in maps
        assert site.stop() == 0
        assert site.members() == []


# Ends of its processes


def test_a_site_that_is_killed_is_started_again_and_nobody_is_refused(shop):
    with shop.serve() as site:
        address = address_of(site)
        child = child_of(site)
        time.sleep(max(0.0, child.create_time() + 2.2 - time.time()))  # it is one that has been of use
        with Load(address, keep_alive=0, one_shot=1, slow=0) as load:
            load.wait_for_all()
            child.kill()
            site.wait_for_line("The site ended by itself, killed by SIGKILL: it is started again.")
            load.wait_for(lambda answer: answer.pid != child.pid)
            load.stop()
        # Only whoever was just being answered by the one that was killed.
        assert all("Error" in failure.outcome or "Remote" in failure.outcome for failure in load.failures)
        assert len(load.failures) <= 1
        assert site.stop() == 0
        assert site.members() == []


def test_a_site_that_dies_at_once_each_time_is_shown_and_not_started_without_end(shop):
    with shop.serve() as site:
        address = address_of(site)
        mending = Mending(shop)
        source = """
import os

@bus.subscribe("start", role="site")
def start():
    bus.defer(lambda: os._exit(9))
"""
        appended("shop/listeners.py", source)(shop)
        await_error(address, "The site ended by itself, with status 9")
        assert told(site, "The site ended by itself") == 1
        mend(shop, site, mending)
        assert site.stop() == 0
        assert site.members() == []


def test_without_the_spare_that_was_killed_the_next_site_is_started_all_the_same(shop):
    develop(shop)
    with shop.serve() as site:
        spare = spare_of(site)
        spare.kill()
        await_that(lambda: not spare.is_running())
        for _ in range(2):  # the second one with a spare again
            await_fixed(address_of(site), shop.deploy())
            assert spare_of(site).pid != spare.pid
        assert site.stop() == 0
        assert site.members() == []


@pytest.mark.parametrize("shows", ["site", "page", "boot"])
def test_when_it_is_killed_all_that_it_has_started_ends(shop, shows):
    develop(shop)
    with shop.serve() as site:
        address_of(site)
        spare_of(site)
        if shows == "page":
            break_it(shop, site)
        elif shows == "boot":
            appended("shop/urls.py", "\nfrom .journal import note\nnote('boots')\nwhile True: pass\n")(shop)
            shop.expect_note("boots")
        site.process.kill()
        site.process.wait(DEADLINE)
        await_that(lambda: site.members() == [])
        stops = len(shop.notes("site stop"))
        assert stops == len(shop.notes("site start")) > 0


# Signals


@pytest.mark.parametrize("shows", ["site", "page"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(shop, number, shows):
    develop(shop)
    with shop.serve() as site:
        address = address_of(site)
        spare_of(site)
        if shows == "page":
            break_it(shop, site)
        site.send(number)
        expect_end(site, 0)
        assert len(shop.notes("site stop")) == 1
        assert is_free(address)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("age", ["at once", "later"])
def test_a_signal_to_the_site_alone_ends_all_with_0(shop, number, age):
    with shop.serve() as site:
        child = child_of(site)
        if age == "later":
            await_fixed(address_of(site), shop.deploy())
            child = child_of(site)
        child.send_signal(number)
        expect_end(site, 0)


@pytest.mark.parametrize("shows", ["site", "page"])
def test_control_c_ends_it_with_0_and_without_a_traceback(shop, shows):
    develop(shop)
    with Terminal(shop) as site:
        address_of(site)
        spare_of(site)
        if shows == "page":
            break_it(shop, site, "settings of WSPBUS")
        site.press(CONTROL_C)
        expect_end(site, 0)
        assert "Traceback" not in site.output
        assert "KeyboardInterrupt" not in site.output


def test_control_c_while_the_code_is_imported_ends_it(shop):
    with Terminal(shop) as site:
        address_of(site)
        appended("shop/models.py", "\nfrom .journal import note\nnote('boots')\nwhile True: pass\n")(shop)
        shop.expect_note("boots")
        site.press(CONTROL_C)
        assert site.wait() == 0
        assert site.members() == []
        assert "Traceback" not in site.output
        assert told(site, "The site was told to exit while it was starting.") == 1


def test_a_second_signal_ends_it_at_once(shop):
    shop.listeners(HANGING.format(channel="stop"))
    with shop.serve() as site:
        address_of(site)
        site.send(signal.SIGTERM)
        shop.expect_note("hanging")
        time.sleep(0.2)  # or it is taken for the same request
        site.send(signal.SIGTERM)
        expect_end(site, 128 + signal.SIGTERM)
        assert told(site, "Caught SIGTERM again: ending at once.") == 1


@pytest.mark.parametrize("shows", ["site", "page"])
def test_the_end_of_its_terminal_ends_it(shop, shows):
    with Terminal(shop) as site:
        address_of(site)
        if shows == "page":
            break_it(shop, site)
        site.send(signal.SIGHUP)
        expect_end(site, 0)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_without_a_terminal_it_is_told_to_start_the_site_again(shop, number):
    with shop.serve() as site:
        address_of(site)
        before = serving(site)
        site.send(number)
        await_that(lambda: serving(site) != before)
        mending = break_it(shop, site)
        site.send(number)
        await_that(lambda: told(site, BREAKS["import of urls"].said) == 2)
        mend(shop, site, mending)
        assert site.stop() == 0
        assert site.members() == []


def test_a_signal_for_the_site_while_it_boots_does_no_harm(shop):
    with shop.serve() as site:
        address_of(site)
        source = "\nfrom .journal import note\nnote('boots')\nimport time\ntime.sleep(0.5)\n"
        appended("shop/models.py", source)(shop)
        shop.expect_note("boots")
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            site.send(number)
        site.wait_for_line("^Serving again")
        assert told(site, "ended by itself") == 0
        assert site.stop() == 0


def test_graceful_is_for_the_site(shop):
    with shop.serve() as site:
        address_of(site)
        site.send(signal.SIGUSR1)
        shop.expect_note("site graceful")
        assert site.stop() == 0


# The end of the site by its own will


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_view_may_end_all(shop, is_broken):
    if is_broken:
        shop.listeners(FAILING)
    with shop.serve() as site:
        attempt(address_of(site), "exit")
        expect_end(site, 70 if is_broken else 0)


def test_a_stop_listener_that_fails_at_the_end_is_the_status(shop):
    shop.listeners(FAILING)
    with shop.serve() as site:
        address_of(site)
        assert site.stop() == 70
        assert site.members() == []


def test_a_view_may_have_the_site_started_again(shop):
    with shop.serve() as site:
        address = address_of(site)
        before = serving(site)
        attempt(address, "restart")
        await_that(lambda: serving(site) != before)
        assert site.stop() == 0


@pytest.mark.parametrize("source", [HANGING.format(channel="stop"), FAILING], ids=["hangs", "fails"])
def test_a_stop_listener_that_hangs_or_fails_does_not_end_development(shop, source):
    develop(shop, STOP_TIMEOUT=1)
    shop.listeners(source)
    with shop.serve() as site:
        address_of(site)
        shop.listeners("")
        await_fixed(address_of(site), shop.deploy())
        assert site.stop() == 0
        assert site.members() == []


# A boot that does not end


@pytest.mark.parametrize("setting_up", [develop, without_spare])
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_boot_that_hangs_is_ended_by_the_next_save(shop, setting_up, stubborn):
    setting_up(shop)
    with shop.serve() as site:
        address = address_of(site)
        mending = Mending(shop)
        source = "\nfrom .journal import note\nnote('boots')\n"
        if stubborn:
            source += "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        appended("shop/models.py", f"{source}while True: pass\n")(shop)
        shop.expect_note("boots")
        with Load(address, keep_alive=0, one_shot=1, slow=0) as load:
            version = shop.deploy()
            mending.mend()
            load.wait_for_all()
            assert {answer.version for answer in load.finish()} == {version}
        assert site.stop() == 0
        assert site.members() == []


def test_a_boot_that_takes_long_is_not_ended_if_nothing_changes(shop):
    with shop.serve() as site:
        address = address_of(site)
        appended("shop/models.py", "\nimport time\ntime.sleep(4)\n")(shop)
        version = shop.deploy()
        await_fixed(address, version)
        assert len(shop.notes("site start")) == 2
        await_that(lambda: len(psutil.Process(site.pid).children()) <= 2)
        assert site.stop() == 0
        assert site.members() == []
