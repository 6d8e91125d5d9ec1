"""The site's end of the launcher, without one."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

from django_wspbus.handover import hand_over
from django_wspbus.inheritance import LAUNCHED
from django_wspbus.link import Switchboard
from django_wspbus.parcels import Parcels
from django_wspbus.plugins.relaunch import RELAUNCH, Launch, Relaunch
from django_wspbus.wspbus import Bus
from tests.processes import DEADLINE
from tests.servers.load import await_that


@pytest.fixture
def pair():
    """The launcher's end, and what the site has been told."""
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE)
    launch = Launch(Parcels(theirs), since=0, seen={}, repeats={}, changed=[], launches=2)
    launcher = Parcels(ours)
    yield launcher, launch
    launcher.close()
    launch.parcels.close()


@pytest.fixture
def site(pair):
    """A bus with the plugin; ``parted`` holds an entry for each time that it took the sockets for itself."""
    bus, switchboard, parted = Bus(), Switchboard(), []
    plugin = Relaunch(
        bus,
        pair[1],
        switchboard,
        held=list,
        part=lambda: parted.append(True),
        watched={"files": ["a"], "dirs": []},
        resuming={"default"},
        has_spare=False,
        debug=True,
    )
    plugin.role = None
    bus.listeners.setdefault("execv", set())
    bus.listeners.setdefault("autoreload", set())
    bus.subscribe("start", plugin.lend, 21)
    for channel in ("start", "stop", "execv", "autoreload"):
        bus.subscribe(channel, getattr(plugin, channel))
    yield SimpleNamespace(bus=bus, plugin=plugin, parted=parted)
    if bus.state is bus.states.STARTED:
        bus.exit()
    switchboard.close()


def hear(launcher, until):
    """Return the messages up to one that has a key."""
    found = []
    while not any(until in message for message in found):
        found += [message for message, _ in launcher.receive()]
    return found


def test_what_was_told_to_another_process_is_not_taken(monkeypatch):
    monkeypatch.delenv(LAUNCHED, raising=False)
    assert Launch.take() is None
    monkeypatch.setenv(LAUNCHED, f"{os.getpid() + 1}:0")
    assert Launch.take() is None
    assert LAUNCHED not in os.environ


def test_what_was_told_is_taken_once(monkeypatch):
    ours, theirs = socket.socketpair()
    told = {"descriptor": theirs.detach(), "connections": []}
    told |= {"since": 1, "seen": {"a": "b"}, "repeats": {}, "changed": ["c"], "launches": 1}
    monkeypatch.setenv(LAUNCHED, hand_over(LAUNCHED, told)[LAUNCHED])
    launch = Launch.take()
    assert (launch.since, launch.seen, launch.changed) == (1, {"a": "b"}, ["c"])
    assert list(launch.news(["banner"])) == ["banner"]
    launch.tell({"heard": 1})
    assert hear(Parcels(ours), "heard") == [{"heard": 1}]
    ours.close()
    launch.tell({"heard": 2})  # by nobody, which is no error
    launch.parcels.close()
    assert Launch.take() is None


def test_it_is_told_in_a_line_that_the_site_serves_again(pair):
    (line,) = pair[1].news(["banner"])
    assert line.startswith("Serving again after ")


def test_connections_are_claimed_by_the_server_that_listens_there(pair, tmp_path):
    launch = pair[1]
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        clients = [socket.create_connection(tcp.getsockname()), socket.socket(socket.AF_UNIX)]
        clients[1].connect(unix.getsockname())
        launch.connections = [tcp.accept()[0], unix.accept()[0]]
        with socket.create_server(("127.0.0.1", 0)) as other:
            assert launch.claim(other) == []
        of_unix, of_tcp = launch.claim(unix), launch.claim(tcp)
        assert [each.family for each in (*of_unix, *of_tcp)] == [socket.AF_UNIX, socket.AF_INET]
        assert launch.connections == []
        for sock in (*clients, *of_unix, *of_tcp):
            sock.close()


def test_connections_that_nobody_claims_are_closed(site, pair):
    mine, its = socket.socketpair()
    pair[1].connections = [its]
    site.bus.start()
    with mine:
        assert mine.recv(1) == b""


def test_a_start_an_edit_and_a_stop_are_told(site, pair):
    site.bus.start()
    site.plugin.tell_started()
    started = hear(pair[0], "library")
    assert started[0] == {"sockets": []}
    assert {"started": True} in started
    assert any("a" in message["watch"]["files"] for message in started if "watch" in message)
    assert started[-1] == {"library": None}
    site.plugin.autoreload(["shop/views.py"], {"a": "digest"}, {"a": 1})
    site.bus.wait_for(lambda: site.bus.execv, DEADLINE)  # it is for the main thread to do
    told = hear(pair[0], "relaunching")
    assert told[0] == {"seen": {"a": "digest"}, "repeats": {"a": 1}}
    assert told[-1] == {"relaunching": ["shop/views.py"]}
    assert site.parted == []
    with pytest.raises(SystemExit) as leaving:
        site.plugin.execv()
    assert leaving.value.code == RELAUNCH


def test_an_exit_is_told_and_an_edit_meanwhile_is_not(site, pair):
    site.bus.start()
    site.plugin.tell_started()
    hear(pair[0], "library")
    site.bus.exit()
    site.plugin.autoreload(["shop/views.py"], {})
    site.plugin.tell_started()
    assert hear(pair[0], "exiting") == [{"exiting": True}]
    assert site.parted == [True]


def test_the_end_of_the_launcher_is_that_of_the_site(site, pair):
    site.bus.start()
    pair[0].close()
    await_that(lambda: site.parted == [True])
    site.bus.block()
    assert site.bus.state is site.bus.states.EXITING
