"""Members of a fleet without Django sites: ``python -m tests.benchmarks.light_members JSON``.

It prints a line when all of them listen. Then each line of its input is a command: ``send COUNT RATE``, by
which the first member broadcasts, or ``report``. The answer has the number of messages that have arrived so
far, and the processor time in seconds.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import django
from django.conf import settings
from django.utils.module_loading import import_string

from django_wspbus.fleet.base import LEADER, Member, MemberProcess
from django_wspbus.fleet.envelope import Message, Sender
from django_wspbus.fleet.relay import Relay, RelayState

LOOK_INTERVAL = 1.0
"""Seconds after which a candidate looks at the lease, as the leader process of a site does."""


class LightMember:
    """A relay that counts the messages which arrive."""

    def __init__(self, engine: Any, number: int) -> None:
        self.received = 0
        processes = [MemberProcess(each, ["worker"]) for each in range(8)]
        self.relay = Relay(
            engine,
            [settings.SECRET_KEY],
            lambda id: Sender(engine.name, "host", number, id),  # noqa: A006
            lambda: Member(self.relay.id, "host", number, "/srv/shop/1", "STARTED", processes),
            self,
            RelayState(),
        )
        self.relay.start()

    def deliver(self, message: Message) -> None:
        self.received += 1

    def miss(self, sender: str, count: int) -> None:
        raise AssertionError(f"{count} messages are missing")

    def flush(self) -> None:
        pass

    def hear(self, message: Message) -> None:
        pass

    def look(self) -> None:
        self.relay.commands.submit(lambda engine: engine.read(LEADER), lambda result, error: None)


def look(members: list[LightMember]) -> None:
    while True:
        for member in members:
            member.look()
            time.sleep(LOOK_INTERVAL / len(members))


def send(member: LightMember, count: int, rate: float) -> None:
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(began + number / rate - time.monotonic(), 0))
        member.relay.publish("message", "bench.ping", [number], 200)


def main() -> None:
    given = json.loads(sys.argv[1])
    databases = {"default": given["database"]} if given["database"] else {}
    settings.configure(DATABASES=databases, USE_TZ=True, SECRET_KEY=given["key"])
    django.setup()
    make = import_string(given["backend"])
    members = [LightMember(make("bench", **given["options"]), number) for number in range(given["count"])]
    for member in members:
        assert member.relay.messages.has_listened.wait(120)
    threading.Thread(target=look, args=(members,), daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        name, *arguments = line.split()
        if name == "send":
            send(members[0], int(arguments[0]), float(arguments[1]))
        received = sum(member.received for member in members)
        print(json.dumps({"received": received, "seconds": time.process_time()}), flush=True)


main()
