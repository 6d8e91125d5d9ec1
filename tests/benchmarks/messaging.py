"""The time from a broadcast to its arrival in every process of four sites, beside channels_redis."""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.engines import PostgresServer, RedisServer
from tests.processes import Running, RunningSite, fetch
from tests.projects import GUNICORN, Project

from .measure import table

SITES, WORKERS = 4, 7
PROCESSES = SITES * (WORKERS + 1)
RATE, COUNT = 200, 1000
"""Messages in a second, and in all."""

FLOOD = 2000
"""Messages that are sent as fast as possible."""

RUNS = (("warm", 200, RATE), ("steady", COUNT, RATE), ("flood", FLOOD, 0))
"""The name of each run, the number of its messages, and their rate; 0: as fast as possible."""

MOST_QUIET = 30.0
"""Seconds without a further arrival after which the rest counts as lost."""

LISTENERS = """
import json
import os
import time
from pathlib import Path

ARRIVALS = []
FOLDER = Path(__file__).parent.parent / "arrivals"


@bus.subscribe("bench.ping")
def arrive(sent):
    ARRIVALS.append([sent, time.monotonic_ns()])


@bus.subscribe("bench.save")
def save(name):
    file = FOLDER / f"{name}.{os.getpid()}.partial"
    file.write_text(json.dumps(ARRIVALS))
    file.rename(file.with_suffix(".json"))
    ARRIVALS.clear()
"""

URLS = """
import time

from django.http import HttpResponse
from django.urls import path

from django_wspbus import bus


def send(request):
    count, rate = int(request.GET["count"]), int(request.GET["rate"])
    began = time.monotonic()
    for number in range(count):
        if rate:
            time.sleep(max(began + number / rate - time.monotonic(), 0))
        bus.broadcast("bench.ping", time.monotonic_ns())
    bus.broadcast("bench.save", request.GET["name"])  # of the same process, so that it is the last to arrive
    return HttpResponse("")


def count(request):
    return HttpResponse(str(len(bus.ask("bench.count", timeout=5))))


urlpatterns = [path("send", send), path("count", count)]
"""

# A process with a layer of channels: at a message of the type "save" it writes what has arrived.
PEER = """
import asyncio, json, os, sys, time
from channels_redis.{module} import {layer} as Layer

url, folder, sends = sys.argv[1], sys.argv[2], sys.argv[3] == "sender"


async def send(layer, count, rate):
    began = time.monotonic()
    for number in range(count):
        if rate:
            await asyncio.sleep(max(began + number / rate - time.monotonic(), 0))
        await layer.group_send("bench", {{"type": "ping", "sent": time.monotonic_ns()}})


async def obey(layer):
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, count, rate = line.split()
        await send(layer, int(count), int(rate))
        await layer.group_send("bench", {{"type": "save", "name": name}})


async def receive(layer, channel):
    arrivals = []
    while True:
        message = await layer.receive(channel)
        if message["type"] == "ping":
            arrivals.append([message["sent"], time.monotonic_ns()])
        else:
            file = f"{{folder}}/{{message['name']}}.{{os.getpid()}}"
            with open(file + ".partial", "w") as output:
                json.dump(arrivals, output)
            os.rename(file + ".partial", file + ".json")
            arrivals = []


async def main():
    hosts = [{{"address": url, "socket_timeout": None}}]  # as long as a process waits for a message
    layer = Layer(hosts=hosts, **json.loads(sys.argv[4]))
    channel = await layer.new_channel()
    await layer.group_add("bench", channel)
    print("ready", flush=True)
    await asyncio.gather(receive(layer, channel), *([obey(layer)] if sends else []))

asyncio.run(main())
"""


def run() -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # the output of servers and sites
        rows = measure()
    columns = ["median (ms)", "99th percentile (ms)", "arrived", "messages per second at most", "arrived"]
    table(f"{RATE} messages per second to {PROCESSES} processes, and as many as possible", columns, rows)


def measure() -> dict[str, list[str]]:
    rows = {}
    with RedisServer() as redis:
        redis.start()
        options = {"url": redis.url}
        rows["django-wspbus, Redis"] = measure_sites("django_wspbus.fleet.redis.RedisFleet", options, {})
        if find_spec("channels_redis") is None:
            print("channels_redis is not installed: pip install channels-redis", file=sys.stderr)
        else:
            rows["channels_redis `group_send`"] = measure_peers(
                *(redis.url, "core", "RedisChannelLayer", {"capacity": 10_000})
            )
            rows["channels_redis, pub/sub"] = measure_peers(
                redis.url, "pubsub", "RedisPubSubChannelLayer", {}
            )
    with PostgresServer() as postgres:
        postgres.start()
        backend = "django_wspbus.fleet.postgres.PostgresFleet"
        rows["django-wspbus, PostgreSQL"] = measure_sites(backend, {}, postgres.settings)
    return rows


# The sites


def measure_sites(backend: str, options: dict[str, Any], database: dict[str, Any]) -> list[str]:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        project = write_project(folder, backend, options, database)
        if database:
            assert project.run("migrate", "-v", "0").returncode == 0
        sites: list[RunningSite] = []
        for _ in range(SITES):
            sites.append(stack.enter_context(project.serve()))
            url = sites[-1].wait_until_started()["default"]
        while int(fetch(f"{url}/count")) < PROCESSES:
            pass
        results = []
        for run_name, count, rate in RUNS:
            fetch(f"{url}/send?count={count}&rate={rate}&name={run_name}")
            results.append(collect(folder, run_name))
        return [*of_steady(results[1]), *of_flood(results[2])]


def write_project(folder: Path, backend: str, options: dict[str, Any], database: dict[str, Any]) -> Project:
    project = Project(folder)
    project.listeners(LISTENERS)
    project.write("shop/urls.py", URLS)
    (folder / "arrivals").mkdir()
    server = {**GUNICORN, "OPTIONS": {"workers": WORKERS, "threads": 2}}
    fleet = {"NAME": "bench", "BACKEND": backend, "OPTIONS": options}
    extra: dict[str, Any] = {"DATABASES": {"default": database}} if database else {}
    apps = ["django_wspbus", "shop", *(["django_wspbus.fleet.postgres"] if database else [])]
    project.configure(INSTALLED_APPS=apps, WSPBUS={"SERVERS": {"default": server}, "FLEET": fleet}, **extra)
    return project


# channels_redis


def measure_peers(url: str, module: str, layer: str, options: dict[str, Any]) -> list[str]:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "arrivals").mkdir()
        program = folder / "peer.py"
        program.write_text(PEER.format(module=module, layer=layer))
        sender = stack.enter_context(peers(program, url, folder, options))
        results = []
        for run_name, count, rate in RUNS:
            sender.write(f"{run_name} {count} {rate}\n")
            sender.flush()
            results.append(collect(folder, run_name))
        return [*of_steady(results[1]), *of_flood(results[2])]


@contextlib.contextmanager
def peers(program: Path, url: str, folder: Path, options: dict[str, Any]) -> Iterator[Any]:
    """Run the processes; yield the standard input of the one that sends."""
    arrivals = str(folder / "arrivals")
    with contextlib.ExitStack() as stack:
        for _ in range(PROCESSES - 1):
            running = Running(str(program), url, arrivals, "peer", json.dumps(options))
            stack.enter_context(running).wait_for_line("ready")
        command = [sys.executable, str(program), url, arrivals, "sender", json.dumps(options)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process.stdin
        finally:
            process.kill()
            process.communicate()


# Results

Arrivals = list[list[tuple[float, float]]]
"""For each process, the times in seconds at which each message was sent, and has arrived."""


def collect(folder: Path, name: str) -> Arrivals:
    """Return the arrivals in each process, once all have written theirs, or no more do."""
    last, found = time.monotonic(), 0
    while True:
        files = list((folder / "arrivals").glob(f"{name}.*.json"))
        if len(files) > found:
            last, found = time.monotonic(), len(files)
        if found == PROCESSES or (found and time.monotonic() - last > MOST_QUIET):
            written = [json.loads(file.read_text()) for file in files]
            return [[(sent / 1e9, arrived / 1e9) for sent, arrived in each] for each in written]
        time.sleep(0.05)


def of_steady(processes: Arrivals) -> list[str]:
    every = [arrived - sent for process in processes for sent, arrived in process]
    percentiles = statistics.quantiles(every, n=100)
    share = len(every) / (COUNT * PROCESSES)
    return [f"{statistics.median(every) * 1000:.1f}", f"{percentiles[98] * 1000:.1f}", f"{share:.2%}"]


def of_flood(processes: Arrivals) -> list[str]:
    every = [each for process in processes for each in process]
    seconds = max(arrived for _, arrived in every) - min(sent for sent, _ in every)
    share = len(every) / (FLOOD * PROCESSES)
    return [f"{len(every) / PROCESSES / seconds:,.0f}", f"{share:.2%}"]
