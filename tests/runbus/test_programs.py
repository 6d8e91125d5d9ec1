"""PROCESSES: programs and management commands beside the servers of a site."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import psutil
import pytest

from django_wspbus.control.protocol import Error, Result

from ..controlled import order, result, site_of
from ..processes import DEADLINE, Running, RunningSite, fetch_json
from ..projects import GUNICORN, THREADED, Project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a minder finds orphans in /proc")

WORK = """
import time

from django.core.management.base import BaseCommand

from django_wspbus import bus
from shop.journal import note


class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("name", nargs="?", default="work")

    def handle(self, *, name, **options):
        note(f"{name} begins")
        with bus.running("worker"):
            note(f"{name} runs in {type(bus.site).__name__}")
            bus.broadcast("said", name)
            while True:
                time.sleep(60)
"""

LISTENERS = """
import os

for channel in ("start", "stop"):
    bus.subscribe(channel, lambda channel=channel: note(f"worker {channel}"))


@bus.subscribe("where", role="any")
def where():
    return os.getpid()


bus.subscribe("said", lambda name: note(f"heard {name}"), role="any")
"""

URLS = """
from django.http import JsonResponse
from django.urls import path

from django_wspbus import bus



def ask(request):
    return JsonResponse([reply.result for reply in bus.ask("where", timeout=20)], safe=False)


urlpatterns = [path("ask/", ask)]
"""

ESCAPES = "setsid sleep 1000 & (setsid sh -c 'sleep 1001 & exec sleep 1002' &) ; echo up; sleep 1003"

STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.1; done"


@pytest.fixture
def shop(project: Project) -> Project:
    """A project with the management command ``work``, which joins the site."""
    for name in ("shop/management/__init__.py", "shop/management/commands/__init__.py"):
        project.write(name, "")
    project.write("shop/management/commands/work.py", WORK)
    project.listeners(LISTENERS)
    project.write("shop/urls.py", URLS)
    return project


def programs(site: Running) -> dict[str, Any]:
    """Return the processes in the status of a site."""
    found: dict[str, Any] = result(site_of(site), "status")["processes"]
    return found


def instance(site: Running, alias: str) -> dict[str, Any]:
    (found,) = programs(site)[alias]["instances"]
    return dict(found)


def await_instance(site: RunningSite, alias: str, **values: Any) -> dict[str, Any]:
    """Wait until an instance has these values; return it."""
    site.wait_until_started()
    deadline = time.monotonic() + DEADLINE
    while not values.items() <= (found := instance(site, alias)).items():
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def await_other(site: Running, alias: str, pid: int) -> dict[str, Any]:
    """Wait until another process than this one runs a program."""
    deadline = time.monotonic() + DEADLINE
    while (found := instance(site, alias))["state"] != "running" or found["pid"] == pid:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def sh(script: str, **keys: Any) -> dict[str, Any]:
    return {"PROGRAM": ["sh", "-c", script], **keys}


def test_a_command_joins_the_site_and_stops_with_it(shop: Project) -> None:
    shop.serves(THREADED, PROCESSES={"work": {"COMMAND": ["work", "w{index}"], "COUNT": 2}})
    with shop.serve() as site:
        urls = site.wait_until_started()
        pids = {shop.expect_note(f"w{number} runs in SiteOfProgram")[0].pid for number in (1, 2)}
        found = programs(site)["work"]
        assert found["command"] == ["work", "w{index}"]
        assert [(each["pid"] in pids, each["state"], each["starts"]) for each in found["instances"]] == [
            (True, "running", 1)
        ] * 2
        assert [each["joined"] for each in found["instances"]] == [
            [each["pid"]] for each in found["instances"]
        ]
        replies = result(site_of(site), "publish", channel="where", timeout=DEADLINE)["replies"]
        assert {each["pid"] for each in replies} == {site.pid, *pids}
        assert {each["server"] for each in replies if each["pid"] in pids} == {"work"}
        assert {site.pid, *pids} == set(fetch_json(f"{urls['default']}/ask/"))
        assert {site.pid, *pids} <= {
            note.pid for name in ("w1", "w2") for note in shop.expect_note(f"heard {name}", 2)
        }
        stacks = result(site_of(site), "stacks")["processes"]
        assert all("time.sleep" in each["stacks"] or "work.py" in each["stacks"] for each in stacks[1:])
        texts = [(each["pid"], each["text"]) for each in result(site_of(site), "logs")["records"]]
        assert {(pid, "Bus STARTED") for pid in pids} <= set(texts)
        assert site.stop() == 0
        assert not site.members()
    assert {note.pid for note in shop.notes("worker stop")} == {site.pid, *pids}


def test_kill_9_of_the_site_ends_all_that_programs_have_started(shop: Project) -> None:
    shop.serves(THREADED, PROCESSES={"escapes": sh(ESCAPES)})
    with shop.serve() as site:
        site.wait_for_line("^up")
        deadline = time.monotonic() + DEADLINE
        members = site.members()
        while [each.name() for each in members].count("sleep") < 4:
            assert time.monotonic() < deadline, members
            members = site.members()
        site.send(signal.SIGKILL)
        _, alive = psutil.wait_procs(members, DEADLINE)
        assert alive == []
        assert site.members() == []


@pytest.mark.extended
def test_what_does_not_stop_is_killed_and_named(shop: Project) -> None:
    shop.serves(THREADED, PROCESSES={"stubborn": sh(STUBBORN, STOP_TIMEOUT=0.3)})
    with shop.serve() as site:
        site.wait_for_line("^up")
        assert site.stop() == 0
        assert site.members() == []
    assert "The program 'stubborn' was killed: it had not stopped after 0.3 s." in site.output


@pytest.mark.extended
def test_the_whole_exit_is_no_longer_than_the_sites_own_timeout(shop: Project) -> None:
    shop.serves(THREADED, STOP_TIMEOUT=4, PROCESSES={"stubborn": sh(STUBBORN, STOP_TIMEOUT=300)})
    with shop.serve() as site:
        site.wait_for_line("^up")
        assert site.stop() == 0
        assert site.members() == []
    assert "The program 'stubborn' was killed" in site.output


@pytest.mark.extended
def test_a_crash_is_logged_once_and_backs_off_and_the_site_is_not_well(shop: Project) -> None:
    shop.serves(THREADED, PROCESSES={"broken": sh("echo cannot; exit 3"), "good": sh("sleep 1000")})
    with shop.serve() as site:
        site.wait_for_line("^cannot", count=5)
        found = await_instance(site, "broken", state="waiting")
        assert found["reason"] == "it exited with status 3"
        assert found["starts"] >= 4
        status = result(site_of(site), "status")
        assert (status["condition"], status["well"]) == ("ready", False)
        assert status["reason"] == "the program 'broken' does not run: it exited with status 3"
        assert instance(site, "good")["starts"] == 1
        records = result(site_of(site), "logs")["records"]
        assert [each["logger"] for each in records if each["text"] == "cannot"][:5] == ["broken"] * 5
        assert site.stop() == 0
    message = "The program 'broken' exited with status 3; starting it again, at intervals of up to 15 s."
    assert site.output.count(message) == 1


@pytest.mark.extended
def test_a_restart_of_one_program_waits_until_it_runs_or_says_why_it_does_not(shop: Project) -> None:
    shop.write("once.sh", "test -e once && exit 4; touch once; exec sleep 1000")
    shop.serves(
        THREADED,
        PROCESSES={"good": sh("exec sleep 1000"), "once": {"PROGRAM": ["sh", "once.sh"]}},
    )
    with shop.serve() as site:
        before = await_instance(site, "good", state="running")["pid"]
        await_instance(site, "once", state="running")
        steps, outcome = order(site_of(site), "restart", alias="good")
        assert isinstance(outcome, Result)
        assert outcome.value["message"].startswith("Restarted 'good' in ")
        assert steps == ["stopping 'good'", "starting 'good'"]
        assert instance(site, "good")["pid"] != before
        _, failed = order(site_of(site), "restart", alias="once")
        assert isinstance(failed, Error)
        assert failed.text == "The program 'once' does not run: it exited with status 4."
        _, unknown = order(site_of(site), "restart", alias="other")
        assert isinstance(unknown, Error)
        assert (
            unknown.text == "There is no server or program 'other'. The site has 'default', 'good', 'once'."
        )


RELOADED = {
    "tasks": sh("echo \"$PPID up\"; trap 'sleep 0.2; echo ended; exit' TERM; while :; do sleep 0.05; done"),
    "kept": sh("exec sleep 1000", GRACEFUL="keep"),
}


@pytest.mark.extended
def test_a_reload_restarts_programs_after_the_servers_and_leaves_others_alone(shop: Project) -> None:
    shop.serves(GUNICORN, PROCESSES=RELOADED)
    with shop.serve("-v2") as site:
        tasks = await_instance(site, "tasks", state="running")["pid"]
        kept = await_instance(site, "kept", state="running")["pid"]
        site.wait_for_line(" up$")
        site.send(signal.SIGUSR1)
        site.wait_for_line(" up$", count=2)
        await_other(site, "tasks", tasks)
        assert instance(site, "kept")["pid"] == kept
        lines = [line for line in site.lines if line.endswith(("up", "ended")) or "Reloaded after" in line]
        assert [line.split()[-1] for line in lines if "Reloaded" not in line] == ["up", "ended", "up"]
        reloaded = next(index for index, line in enumerate(lines) if "Reloaded" in line)
        assert reloaded < lines.index("ended")
        assert site.stop() == 0


@pytest.mark.extended
def test_a_refused_reload_and_a_refused_restart_leave_the_old_programs_running(shop: Project) -> None:
    shop.serves(GUNICORN, PROCESSES=RELOADED)
    with shop.serve() as site:
        pids = {alias: await_instance(site, alias, state="running")["pid"] for alias in RELOADED}
        shop.write("shop/urls.py", "1 / 0\n")
        for action in ("graceful", "restart"):
            _, outcome = order(site_of(site), action)
            assert isinstance(outcome, Error)
        assert {alias: instance(site, alias)["pid"] for alias in RELOADED} == pids
        assert {alias: instance(site, alias)["state"] for alias in RELOADED} == dict.fromkeys(pids, "running")
        assert site.stop() == 0


@pytest.mark.extended
def test_a_reload_of_a_site_without_children_restarts_its_programs(shop: Project) -> None:
    shop.serves(THREADED, PROCESSES={"tasks": sh("exec sleep 1000")})
    with shop.serve() as site:
        tasks = await_instance(site, "tasks", state="running")["pid"]
        site.send(signal.SIGUSR1)
        second = await_other(site, "tasks", tasks)["pid"]
        _, outcome = order(site_of(site), "graceful")
        assert isinstance(outcome, Result)
        assert outcome.value["message"].endswith(" Its programs are restarted.")
        await_other(site, "tasks", second)
        assert site.stop() == 0


@pytest.mark.extended
@pytest.mark.parametrize("server", [GUNICORN, THREADED], ids=["gunicorn", "threaded"])
def test_a_restart_hands_programs_over_and_replaces_them(shop: Project, server: dict[str, Any]) -> None:
    processes = {"work": {"COMMAND": ["work"]}, **RELOADED, "gone": sh("exec sleep 1000")}
    shop.serves(server, PROCESSES=processes)
    with shop.serve() as site:
        pids = {alias: await_instance(site, alias, state="running")["pid"] for alias in processes}
        (joined,) = shop.expect_note("work runs in SiteOfProgram")
        processes["added"] = processes.pop("gone")
        shop.serves(server, PROCESSES=processes)
        _, outcome = order(site_of(site), "restart")
        assert isinstance(outcome, Result)
        shop.expect_note("work runs in SiteOfProgram", count=2)
        for alias in ("work", *RELOADED):
            await_other(site, alias, pids[alias])
        assert set(programs(site)) == set(processes)
        await_instance(site, "added", state="running")
        psutil.wait_procs([psutil.Process(pids["gone"])] if psutil.pid_exists(pids["gone"]) else [], DEADLINE)
        # The one that had joined has run its stop listeners, and ended before the next one began.
        events = [note.event for note in shop.notes() if note.pid == joined.pid]
        events = [event for event in events if event != "heard work"]  # its own message, at any time
        assert events == ["work begins", "worker start", "work runs in SiteOfProgram", "worker stop"]
        begun = [index for index, note in enumerate(shop.notes()) if note.event == "work begins"]
        stops = [
            index
            for index, note in enumerate(shop.notes())
            if (note.pid, note.event) == (joined.pid, "worker stop")
        ]
        assert begun[0] < stops[0] < begun[1]
        assert site.stop() == 0
        assert site.members() == []


@pytest.mark.extended
def test_when_and_debug_and_printed_settings(shop: Project) -> None:
    processes = {name: sh(f"echo {name}; exec sleep 1000", WHEN=name) for name in ("debug", "production")}
    shop.serves(THREADED, PROCESSES=processes)
    printed = shop.run("runbus", "--print-settings")
    (line,) = [each for each in printed.stdout.splitlines() if each.startswith('WSPBUS["PROCESSES"]')]
    values = eval(line.partition(" = ")[2])
    assert values["debug"]["PROGRAM"] == processes["debug"]["PROGRAM"]
    assert (values["debug"]["COMMAND"], values["debug"]["COUNT"]) == (None, 1)
    with shop.serve() as site:
        site.wait_for_line("^production")
        assert set(programs(site)) == {"production"}
        assert site.stop() == 0
    assert "debug" not in site.lines


@pytest.mark.extended
def test_a_save_in_development_restarts_the_programs(shop: Project) -> None:
    processes = {"work": {"COMMAND": ["work"]}, "stubborn": sh(STUBBORN, STOP_TIMEOUT=300)}
    shop.configure(
        DEBUG=True,
        WSPBUS={
            "SERVERS": {"default": THREADED},
            "AUTORELOAD": {"SPARE": False},
            "PROCESSES": processes,
        },
    )
    with shop.serve() as site:
        (first,) = shop.expect_note("work runs in SiteOfProgram")
        site.wait_for_line("^up")
        shop.write("shop/management/commands/work.py", f"{WORK}\n# saved\n")  # no server loads it
        second = shop.expect_note("work runs in SiteOfProgram", count=2)[1]
        assert first.pid != second.pid
        site.wait_for_line("^up", count=2)
        assert not psutil.pid_exists(first.pid)
        os.kill(site.pid, signal.SIGINT)
        site.wait()
        assert site.members() == []
