"""A server of the project's own."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from django_wspbus.conf import ServerSettings, Settings
from django_wspbus.servers.base import Server
from django_wspbus.wspbus import Bus
from tests.projects import Project

from .conftest import address_of, configure

OWN = """\
import threading

from django_wspbus.servers.base import Server

from .journal import note


class Greeter(Server):
    title = "a greeter"

    def start(self):
        note("serves on " + self.bound()[0].name)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        connection, _ = self.bound()[0].socket.accept()
        with connection:
            connection.sendall(self.settings.options["word"].encode())

    def stop(self):
        self.thread.join()
"""


def test_it_serves_on_the_socket_that_the_site_has_bound(shop: Project) -> None:
    shop.write("shop/servers.py", OWN)
    configure(shop, {"own": {"BACKEND": "shop.servers.Greeter", "OPTIONS": {"word": "hello"}}})
    with shop.serve() as site:
        address = address_of(site, "own")
        assert "(a greeter)" in site.output
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            assert connection.recv(100) == b"hello"
        assert site.stop() == 0

    assert shop.notes(f"serves on {address}")
    assert "worker start" in shop.events()  # as it serves in the site process


def make(**options: Any) -> Server:
    settings = ServerSettings(
        alias="own", backend="a.B", bind=(), application=None, mounts={}, options=options
    )
    return Server(Bus(), settings, Settings(servers={}, stop_timeout=20), list)


def test_what_it_does_not_say_is_what_goes_without_saying(monkeypatch: pytest.MonkeyPatch) -> None:
    server = make(any=1)

    assert list(server.check_options(server.settings)) == []
    assert list(server.check_machine(server.settings)) == []
    assert server.effective_options(server.settings, server.site) == {"any": 1}
    assert server.status()["bind"] == []
    assert repr(server) == "<Server own>"
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: 0.0)
        assert server.time_to_stop() == pytest.approx(14.25)


@pytest.mark.parametrize(("method", "says"), [("start", "does not say how it starts"), ("stop", "stops")])
def test_without_a_start_or_a_stop_it_says_so(method: str, says: str) -> None:
    with pytest.raises(NotImplementedError, match=says):
        getattr(make(), method)()
