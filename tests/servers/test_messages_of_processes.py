"""Messages between the processes of a site, of any size, and to a process that is stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.processes import DEADLINE, RunningSite
from tests.projects import Project

from .conftest import GUNICORN, Later, address_of, ask, configure

URLS = """\
import json
import os
import threading

from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from django_wspbus import bus

from .journal import note


def publish(channel, *args):
    try:
        return bus.site.publish(channel, *args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@csrf_exempt
def at_once(request):
    results = []
    letters = json.loads(request.body)

    def send(letter):
        note("asks")
        results.extend(publish("shop.length", letter * 300_000) for _ in range(5))

    threads = [threading.Thread(target=send, args=[letter]) for letter in letters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return JsonResponse({"results": results})


@csrf_exempt
def large(request):
    size = json.loads(request.body)
    note("asks")
    return JsonResponse({"pid": os.getpid(), "length": len(publish("shop.large", size)[0])})


@csrf_exempt
def send(request):
    size = json.loads(request.body)
    return JsonResponse({"result": publish("shop.length", "x" * size)})


urlpatterns = [path("at-once/", at_once), path("large/", large), path("send/", send)]
"""

LISTENERS = """\
import time
from pathlib import Path

bus.subscribe("shop.length", len, role="site")


@bus.subscribe("shop.large", role="site")
def large(size):
    deadline = time.monotonic() + 20
    while not Path("stopped").exists() and time.monotonic() < deadline:  # the worker that asks
        time.sleep(0.01)
    return "x" * size


@bus.subscribe("start", priority=100, role="site")
def tell_when_it_serves():
    bus.defer(lambda: note("site serves"))


@bus.subscribe("stop", priority=10, role="site")
def stop():
    note("site stops")
    deadline = time.monotonic() + 20
    while Path("hold").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


bus.subscribe("start", lambda: note("worker starts"))
bus.subscribe("stop", lambda: note("worker stops"))
"""


@pytest.fixture
def shop(project: Project) -> Project:
    project.write("shop/urls.py", URLS)
    project.listeners(LISTENERS)
    configure(project, {"shop": {"BACKEND": GUNICORN, "OPTIONS": {"threads": 8}}})
    return project


@pytest.fixture
def site(shop: Project) -> Iterator[RunningSite]:
    with shop.serve() as site:
        yield site


def post(address: str, path: str, value: Any) -> Any:
    status, body = ask(address, path, json.dumps(value).encode())
    assert status == 200
    return json.loads(body)


@pytest.mark.extended
def test_messages_of_threads_do_not_mix_and_have_a_limit_that_is_said(site: RunningSite) -> None:
    address = address_of(site, "shop")

    assert post(address, "/at-once/", "abcd") == {"results": [[300_000]] * 20}
    assert post(address, "/send/", 16_000_000) == {"result": [16_000_000]}
    refused = post(address, "/send/", 30_000_000)["result"]
    assert refused.startswith("ValueError: a message has at most 16,777,216 bytes in JSON, and this one")
    assert site.stop() == 0
    assert "lost" not in site.output


@pytest.mark.extended
def test_a_worker_that_is_stopped_before_it_reads_a_large_answer_holds_up_nothing(
    shop: Project, site: RunningSite, later: Later
) -> None:
    answer = later(post, address_of(site, "shop"), "/large/", 10_000_000)
    worker = psutil.Process(shop.expect_note("asks")[0].pid)
    worker.suspend()
    (shop.root / "stopped").touch()
    site.send(signal.SIGUSR1)
    site.wait_for_line(r"^Reloaded in \d+\.\d\d s\.$")
    worker.resume()

    assert answer.result(DEADLINE) == {"pid": worker.pid, "length": 10_000_000}
    assert site.stop() == 0


@pytest.mark.extended
def test_questions_of_any_size_that_a_restart_interrupts_are_answered_after_it(
    shop: Project, site: RunningSite, later: Later
) -> None:
    address = address_of(site, "shop")
    (shop.root / "hold").touch()
    site.send(signal.SIGUSR2)
    shop.expect_note("site stops")
    answers = [later(post, address, "/at-once/", "abc") for _ in range(2)]
    shop.expect_note("asks", 6)
    (shop.root / "hold").unlink()
    site.wait_for_line(r"^Restarted in \d+\.\d\d s\.$")

    assert [answer.result(DEADLINE) for answer in answers] == [{"results": [[300_000]] * 15}] * 2
    assert site.stop() == 0


@pytest.mark.extended
def test_with_verbosity_0_a_reload_is_silent(shop: Project) -> None:
    with shop.serve("-v", "0") as site:
        shop.expect_note("site serves")
        site.send(signal.SIGUSR1)
        shop.expect_note("worker stops")  # once its successor serves
        assert site.stop() == 0

    assert site.output == ""
