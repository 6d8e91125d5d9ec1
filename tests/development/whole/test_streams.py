"""Neither an answer without an end nor a silent client holds up a reload."""

from __future__ import annotations

import contextlib
import time

import pytest

from tests.processes import DEADLINE
from tests.servers.conftest import Client, connect

from .reloading import each_server

BROWSER = """
from django.urls import include

urlpatterns.append(path("__reload__/", include("django_browser_reload.urls")))
"""


def stream(address):
    """Ask for the stream of events; return the client, and the response to read lines from."""
    client = Client(address)
    client.request("GET", "/__reload__/events/", headers={"Accept": "text/event-stream"})
    return client, client.getresponse()


def next_event(response):
    while line := response.readline():
        if line.startswith(b"data:"):
            return line
    raise AssertionError("The stream has ended.")


@pytest.mark.extended
@each_server
def test_a_stream_without_an_end_is_cut_off_and_begins_anew_after_the_reload(development, server, spare):
    pytest.importorskip("django_browser_reload")
    apps = ["django.contrib.staticfiles", "django_browser_reload"]
    development.set_up(server, spare=spare, apps=apps, STATIC_URL="static/")
    development.append("shop/urls.py", BROWSER)
    with development.served() as served, contextlib.closing(connect(served.address)):
        served.version()
        client, events = stream(served.address)
        with contextlib.closing(client):
            first = next_event(events)
            development.write("templates/outer.txt", "outer 2")  # the browser hears of a template at once
            while b'"reload"' not in next_event(events):
                pass
            assert served.restarts() == []
            began = time.monotonic()
            version = development.edit()
            with contextlib.suppress(OSError):  # cut off in the middle of a part, as it may be
                while events.readline():
                    pass
            served.await_reload()
            assert time.monotonic() - began < DEADLINE / 2
        client, events = stream(served.address)
        with contextlib.closing(client):
            assert next_event(events) != first  # by which the browser knows that it has to reload
            served.expect_version(version)
