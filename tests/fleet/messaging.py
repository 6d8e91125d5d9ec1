"""A project whose pages broadcast and ask, and whose listeners write what arrives into the journal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from ..processes import fetch, fetch_json
from ..projects import GUNICORN, Project

LISTENERS = """
import os
import time

bus.subscribe("shop.changed", lambda value: note(f"changed {value}"))
bus.subscribe("fleet.gap", lambda sender, missed: note(f"gap {missed}"))
bus.subscribe("shop.pid", os.getpid)
bus.subscribe("shop.asked", lambda: note("asked"))
bus.subscribe("shop.flood", lambda number: note(f"flood {number}") if number % 1000 == 999 else None)
bus.subscribe("shop.say", lambda value: bus.broadcast("shop.changed", value), role="site")


@bus.subscribe("shop.slow", role="worker")
def slow(pid):
    if pid == os.getpid():
        note("slow")
        time.sleep(5)


@bus.subscribe("shop.fails", role="worker")
def fails():
    raise ValueError("no stock")
"""

URLS = """
import json
import os
import time
from dataclasses import asdict

from django.http import HttpResponse, JsonResponse
from django.urls import path

from django_wspbus import bus

from .journal import PATH, note


def broadcast(request):
    channel = request.GET.get("channel", "shop.changed")
    for value in json.loads(request.GET["values"]):
        bus.broadcast(channel, value)
    return HttpResponse(str(os.getpid()))


def ask(request):
    channel, timeout = request.GET["channel"], float(request.GET.get("timeout", 10))
    replies = bus.ask(channel, timeout=timeout)
    return JsonResponse([asdict(each) | {"result": each.result} for each in replies], safe=False)


def flood(request):
    for number in range(int(request.GET["count"])):
        bus.broadcast("shop.flood", number)
    return HttpResponse("")


def say(request):
    bus.site.publish("shop.say", request.GET["value"])
    return HttpResponse(str(os.getpid()))


def wait(request):
    note("waits")
    while not PATH.with_name("go").exists():
        time.sleep(0.01)
    return HttpResponse(str(os.getpid()))


urlpatterns = [
    path("", lambda request: HttpResponse(str(os.getpid()))),
    path("wait", wait),
    path("broadcast", broadcast),
    path("ask", ask),
    path("say", say),
    path("flood", flood),
    path("restart", lambda request: HttpResponse(str(bus.site.restart()))),
]
"""


def write_messaging(project: Project, server: dict[str, Any] = GUNICORN, **wspbus: Any) -> None:
    """Write the pages and the listeners, and settings with one server."""
    project.listeners(LISTENERS)
    project.write("shop/urls.py", URLS)
    project.serves(server, **wspbus)


def broadcast(url: str, values: Iterable[Any], channel: str = "shop.changed") -> int:
    """Have a process of a site broadcast values; return its PID."""
    query = urlencode({"channel": channel, "values": json.dumps(list(values))})
    return int(fetch(f"{url}/broadcast?{query}"))


def ask(url: str, channel: str, timeout: float = 10) -> list[dict[str, Any]]:
    replies: list[dict[str, Any]] = fetch_json(f"{url}/ask?channel={channel}&timeout={timeout}")
    return replies
