"""The project of each site of a fleet, whose processes write what they do into one journal.

| event | and its values |
| --- | --- |
| ``leads``, ``acts`` | ``token``, valid at a moment from ``since`` until the note; acts are 20 a second |
| ``stops`` | ``token``; the stop listeners of the role "leader" run |
| ``stores``, ``refused`` | ``token``; a store of all sites took an effect, or had seen a larger token |
| ``fenced`` | ``token``, ``number``; a row of the table ``effect``, in ``bus.leader.fence()`` |
| ``runs`` | ``tick``; a job with a tick in each ``interval`` of seconds |
| ``sent`` | ``sender``, ``number``; a message of ``/send``, in the process that sends it |
| ``received`` | the same, in each process |
| ``gap`` | ``sender``, ``missed``; the channel ``fleet.gap`` |

Each note has its time, the name of the site, and the PID. Times are seconds of CLOCK_REALTIME, which is the
same one in all namespaces.
"""

JOURNAL = """\
import fcntl
import json
import os
import secrets
import time
from pathlib import Path

ROOT = Path({root!r})
SITE = {site!r}
SENDER = f"{{SITE}}-{{secrets.token_hex(4)}}"


def now():
    return time.clock_gettime(time.CLOCK_REALTIME)


def note(event, **values):
    line = json.dumps({{"at": now(), "site": SITE, "pid": os.getpid(), "event": event, **values}})
    descriptor = os.open(ROOT / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, f"{{line}}\\n".encode())
    finally:
        os.close(descriptor)


def store(token):
    with open(ROOT / "store", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if token < int(file.read() or 0):
            note("refused", token=token)
            return
        file.truncate(0)
        file.write(str(token))
        file.flush()
        note("stores", token=token)
"""

OFTEN = """
import math

from django_wspbus.fleet.cron import JOBS, Job, Schedule


class Often(Schedule):
    def after(self, time):
        tick = math.floor(time / INTERVAL) * INTERVAL
        while True:
            tick += INTERVAL
            yield tick

"""
"""A schedule with a tick in each INTERVAL, in seconds, which can be shorter than a minute."""

LISTENERS = f"""\
import threading

from django_wspbus import NotLeader, bus, every

from .journal import note, now, store

INTERVAL = {{interval!r}}
{OFTEN}

@bus.lifespan(role="leader")
def leading():
    since, token = now(), bus.leader.token
    note("leads", token=token, since=since)
    yield
    note("stops", token=token)


@every(0.05, role="leader")
def act():
    since = now()
    try:
        token = bus.leader.token
        note("acts", token=token, since=since)
        store(token)
    except NotLeader:
        pass


def run():
    # A job gets no arguments: the tick is in those of its thread.
    note("runs", tick=threading.current_thread()._args[1].tick)


bus.subscribe(JOBS, Job(run, Often("* * * * *", "UTC"), name="often"), role="leader")
bus.subscribe("shop.number", lambda sender, number: note("received", sender=sender, number=number))
bus.subscribe("fleet.gap", lambda sender, missed: note("gap", sender=sender, missed=missed))
"""

FENCED = """

@every(0.1, role="leader")
def fenced():
    from django.db import DatabaseError, connection

    try:
        with bus.leader.fence() as token, connection.cursor() as cursor:
            cursor.execute("INSERT INTO effect (token) VALUES (%s) RETURNING number", [token])
            (number,) = cursor.fetchone()
        note("fenced", token=token, number=number)
    except NotLeader:
        pass
    except DatabaseError:
        connection.close()
"""

URLS = """\
import itertools
import os

from django.http import HttpResponse
from django.urls import path

from django_wspbus import bus

from .journal import SENDER, note

numbers = itertools.count(1)


def send(request):
    sender = f"{SENDER}-{os.getpid()}"  # a worker is a fork
    for _ in range(int(request.GET["count"])):
        number = next(numbers)
        note("sent", sender=sender, number=number)
        bus.broadcast("shop.number", sender, number)
    return HttpResponse(sender)


urlpatterns = [
    path("", lambda request: HttpResponse(str(os.getpid()))),
    path("send", send),
]
"""

EFFECT = "CREATE TABLE IF NOT EXISTS effect (number serial, token bigint)"
"""The table of the effects."""
