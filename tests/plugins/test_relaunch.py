"""The site's end of the launcher, without one."""

from __future__ import annotations

import os
import signal
import socket
import threading
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from django_wspbus.development.launch import CHANGED, Launch, current
from django_wspbus.development.watching.files import WatchList
from django_wspbus.plugins.relaunch import RELAUNCH, Relaunch
from django_wspbus.process.messages import LARGEST, Link
from django_wspbus.process.switchboard import Switchboard
from django_wspbus.process.worker_orders import Changed
from django_wspbus.wspbus import Bus
from tests.processes import DEADLINE
from tests.servers.load import await_that


@pytest.fixture
def pair():
    """Return the launcher's end of the link, and the site's `Launch`."""
    ours, theirs = socket.socketpair()
    launch = Launch(link=Link(theirs), launches=2, has_served=True)
    launcher = Link(ours)
    yield launcher, launch
    launcher.close()
    launch.link.close()


@pytest.fixture
def site(pair):
    """A bus with the plugin.

    ``parted`` holds an entry for each time that it took the sockets for itself; ``workers`` those in other
    processes, and ``asked`` what they were asked.
    """
    bus, switchboard, parted, asked, workers = Bus(), Switchboard(), [], [], []
    plugin = Relaunch(
        bus,
        pair[1],
        switchboard,
        sockets=list,
        take_back=lambda: parted.append(True),
        order_workers=lambda order: len(asked.append(order) or workers),
        preload=None,
        debug=True,
        stop_timeout=25,
    )
    plugin.role = None
    bus.listeners.setdefault("autoreload", set())
    bus.subscribe("start", plugin.lend, 21)
    for channel in ("start", "stop", "autoreload"):
        bus.subscribe(channel, getattr(plugin, channel))
    yield SimpleNamespace(bus=bus, plugin=plugin, parted=parted, asked=asked, workers=workers)
    if bus.state is bus.states.STARTED:
        bus.exit()
    switchboard.close()


def hear(launcher, until):
    """Return the messages up to one that has a key."""
    found = []
    while not any(until in message for message in found):
        found += [message for message, _ in launcher.receive(DEADLINE)]
    return found


def test_the_launch_of_a_process_is_taken_once(pair):
    current.append(pair[1])
    assert Launch.take() is pair[1]
    assert Launch.take() is None


def test_the_first_start_that_serves_shows_the_banner(pair):
    pair[1].has_served = False
    assert list(pair[1].lines(["banner"])) == ["banner"]


def test_a_launcher_that_is_gone_is_no_error(site, pair):
    site.plugin.send({"heard": 1})
    assert hear(pair[0], "heard") == [{"heard": 1}]
    pair[0].close()
    site.plugin.send({"heard": 2})


def test_a_message_that_is_too_large_for_the_launcher_costs_only_itself(site, pair):
    logged = []
    site.bus.subscribe("log", lambda message, level: logged.append(message))
    site.plugin.send({"seen": "x" * LARGEST})
    site.plugin.send({"heard": 1})
    assert hear(pair[0], "heard") == [{"heard": 1}]
    assert ["has at most" in message for message in logged] == [True]


def test_a_line_says_that_the_site_serves_again(pair):
    (line,) = pair[1].lines(["banner"])
    assert line.startswith("Serving again after ")


def test_a_start_an_edit_and_a_stop_are_reported(site, pair):
    site.bus.start()
    site.plugin.report_start()
    started = hear(pair[0], "library")
    assert started[0] == {"sockets": [], "stop_timeout": 25}
    assert {"started": True} in started
    assert started[-1] == {"library": None}
    site.plugin.autoreload(["shop/views.py"])
    site.bus.wait_for(lambda: site.bus.execv, DEADLINE)  # it is for the main thread to do
    assert hear(pair[0], "relaunching")[-1] == {"relaunching": True}
    assert site.parted == []
    with pytest.raises(SystemExit) as leaving:
        site.plugin.replace()
    assert leaving.value.code == RELAUNCH


def test_an_exit_is_reported_and_an_edit_meanwhile_is_not(site, pair):
    site.bus.start()
    site.plugin.report_start()
    hear(pair[0], "library")
    site.bus.exit()
    site.plugin.autoreload(["shop/views.py"])
    site.plugin.report_start()
    assert hear(pair[0], "exiting") == [{"exiting": True}]
    assert site.parted == [True]


def test_a_boot_that_is_given_up_at_its_end_leaves_the_sockets_to_the_launcher(site, pair):
    site.bus.start()
    site.bus.stop_timeout = DEADLINE
    site.bus.watchdog.expect_exit()  # as the handler of a signal does, before the bus exits
    site.plugin.report_start()
    site.bus.exit()
    assert not any("started" in message for message in hear(pair[0], "exiting"))
    assert site.parted == []


def test_the_end_of_the_launcher_is_that_of_the_site(site, pair):
    site.bus.start()
    pair[0].close()
    await_that(lambda: site.parted == [True])
    site.bus.block()
    assert site.bus.state is site.bus.states.EXITING


def test_what_a_worker_watches_goes_to_the_launcher_with_what_the_site_is_made_of(site, pair):
    site.plugin.report_watched(asdict(WatchList(["views.py"], [["texts", "*.md"]], True)), None)
    site.plugin.report_watched(asdict(WatchList(["late.py"])), 5)
    first, second = [message for message, _ in pair[0].receive(DEADLINE)]
    watched = WatchList(**first["watch"])
    assert {"views.py", __file__} <= set(watched.files)
    assert (watched.globs, watched.poll, first["since"]) == ([["texts", "*.md"]], True, None)
    assert second == {"watch": asdict(WatchList(["late.py"])), "since": 5}


@pytest.mark.parametrize("worker", ["here", "elsewhere"])
def test_the_launcher_has_workers_asked_about_files(worker, site, pair):
    heard = threading.Event()
    if worker == "here":
        site.bus.subscribe(CHANGED, lambda paths: heard.set(), role="any")
    else:
        site.workers.append("one")
    site.bus.start()
    pair[0].send({"changed": ["views.py"]})
    await_that(lambda: site.asked == [Changed(["views.py"])])
    assert worker == "elsewhere" or heard.wait(DEADLINE)
    site.bus.wait_for(lambda: site.bus.execv, 0.1)
    assert not site.bus.execv


@pytest.mark.parametrize("message", [{"changed": ["views.py"]}, {"again": True}])
def test_without_a_worker_to_ask_and_when_the_launcher_says_so_it_starts_again(message, site, pair):
    site.bus.start()
    pair[0].send(message)
    site.bus.wait_for(lambda: site.bus.execv, DEADLINE)
    assert site.bus.execv


@pytest.mark.parametrize(
    ("state", "times"), [("serving", 1), ("told by a signal", 0), ("exiting", 0)], ids=str
)
def test_an_interrupt_of_the_launcher_reaches_a_site_that_was_not_interrupted_itself(
    state, times, site, pair, monkeypatch
):
    sent, heard = [], threading.Event()
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    site.plugin.ask_about = lambda paths: heard.set()
    site.bus.start()
    if state == "told by a signal":
        site.bus.watchdog.expected = 1.0
    site.bus.exit_under_way.is_asked = state == "exiting"
    pair[0].send({"interrupted": True})
    pair[0].send({"changed": []})
    assert heard.wait(DEADLINE)
    assert sent == [(os.getpid(), signal.SIGINT)] * times
    site.bus.watchdog.expected, site.bus.exit_under_way.is_asked = None, False
