"""The report of ``status``: what an operator wants to know first comes first."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_wspbus.command.plain import lines_of
from django_wspbus.command.status import report
from django_wspbus.command.text import escape
from tests.processes import DEADLINE

from .conftest import PROGRAM


def process(pid, state, role="worker", **values):
    usual = {"age": 3600.0, "threads": 4, "busy": 1, "answered": 120, "memory": 40_000_000, "reason": None}
    return {"pid": pid, "role": role, "state": state, **usual, **values}


def server(*processes, **values):
    usual = {"urls": ["http://127.0.0.1:8000/"], "title": "gunicorn", "wanted": 2, "queue": 0, "threads": 8}
    return {**usual, "busy": 3, "processes": list(processes), **values}


WORKERS = [process(4105, "serving"), process(4106, "ready"), process(4107, "standby", busy=None)]
MASTER = process(4104, "serving", "master", threads=None, busy=None, answered=None, memory=12_000_000)
WELL = {
    "pid": 4101,
    "state": "STARTED",
    "condition": "ready",
    "reason": "",
    "well": True,
    "since": 3 * 86400 + 4 * 3600,
    "uptime": 5 * 86400,
    "project": "shop",
    "settings": "shop.settings",
    "directory": "/srv/current",
    "versions": {"django-wspbus": "0.1.0", "Django": "5.2.8", "Python": "3.11.2"},
    "servers": {"default": server(MASTER, *WORKERS)},
    "last_operation": {
        "operation": "reload",
        "succeeded": True,
        "ago": 7200.0,
        "seconds": 0.84,
        "error": None,
    },
}


def text_of(status):
    return [line for block in report(status) for line in lines_of(block)]


def test_a_site_that_is_well(play):
    result = play(status=WELL).run("status")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "Well: ready, for 3 d 4 h",
        "Site 4101, project 'shop', settings 'shop.settings', directory /srv/current, up 5 d",
        "django-wspbus 0.1.0, Django 5.2.8, Python 3.11.2",
        "",
        "Server   Workers  Standby  Busy  Queue  Memory  Served by  URL",
        "default      2/2        1   3/8      0  132 MB  gunicorn   http://127.0.0.1:8000/",
        "",
        "Last reload: succeeded 2 h ago, after 0.84 s",
    ]


def test_the_first_lines_say_why_a_site_is_not_well_and_that_the_last_deploy_failed(play):
    workers = [
        process(4105, "stuck", busy=4, reason="no progress for 30 s"),
        process(4106, "stopped", memory=None),
        process(4107, "booting", threads=None, busy=None, answered=0),
    ]
    error = "The new code does not boot:\nTraceback (most recent call last):\nSyntaxError: [["
    operation = {"operation": "reload", "succeeded": False, "ago": 200, "seconds": 0.52, "error": error}
    status = {
        **WELL,
        "well": False,
        "condition": "stuck",
        "reason": "a stuck worker cannot be replaced\n  because",
        "since": 185,
        "servers": {"default": server(*workers, busy=8, queue=17)},
        "last_operation": operation,
        "last_failure": "The reload failed",
    }
    result = play(status=status).run("status")
    assert (result.returncode, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[:4] == [
        "Not well: stuck, for 3 min 5 s: a stuck worker cannot be replaced",
        "    a stuck worker cannot be replaced",
        "      because",
        "The last reload failed 3 min 20 s ago; the error is shown below",
    ]
    assert lines[6:] == [
        "",
        "Server   Workers  Standby  Busy  Queue  Memory  Served by  URL",
        "default      0/2        0   8/8     17   80 MB  gunicorn   http://127.0.0.1:8000/",
        "",
        "Process  Server   Role    State    Age  Busy  Answered  Memory  Reason",
        "   4105  default  worker  stuck    1 h   4/4       120   40 MB  no progress for 30 s",
        "   4106  default  worker  stopped  1 h   1/4       120       -  -",
        "   4107  default  worker  booting  1 h     -         0   40 MB  -",
        "",
        "Last reload: failed 3 min 20 s ago, after 0.52 s",
        *(f"    {line}" for line in error.splitlines()),
    ]


def test_the_code_that_does_not_boot_is_shown_with_its_traceback():
    failure = "shop/urls.py, line 8: SyntaxError\n\nTraceback (most recent call last):\n  File shop/urls.py"
    lines = text_of({**WELL, "last_failure": failure})
    assert lines[1:6] == [
        "Last failure: shop/urls.py, line 8: SyntaxError",
        "    shop/urls.py, line 8: SyntaxError",
        "",
        "    Traceback (most recent call last):",
        "      File shop/urls.py",
    ]


def test_a_worker_that_retires_is_shown_with_the_reason():
    retiring = process(4105, "retiring", reason="memory: 600 MB")
    lines = text_of({**WELL, "servers": {"default": server(retiring, *WORKERS)}})
    assert [line for line in lines if "retiring" in line] == [
        "   4105  default  worker  retiring  1 h   1/4       120   40 MB  memory: 600 MB"
    ]


def test_a_server_in_the_site_process_has_no_fixed_number_of_workers_and_threads():
    threaded = server(
        process(4101, "serving", "site", threads=None), wanted=None, threads=None, title="threaded"
    )
    assert "default        -        -     3      0   40 MB  threaded   http://127.0.0.1:8000/" in text_of(
        {**WELL, "servers": {"default": threaded}}
    )


def test_programs_have_a_row_for_each_instance():
    usual = {"age": 60.0, "memory": 40_000_000, "starts": 1, "reason": None}
    tasks = {"index": 1, "pid": 4201, "state": "running", **usual}
    waiting = {"index": 2, "pid": None, "state": "waiting", **usual, "age": None, "memory": None, "starts": 7}
    waiting["reason"] = "it exited with status 1"
    programs = {
        "tasks": {"command": ["db_worker"], "instances": [tasks]},
        "celery": {
            "command": ["celery", "w{index}", "s" * 60],
            "instances": [{**tasks, "pid": 4202}, waiting],
        },
    }
    lines = text_of({**WELL, "processes": programs})
    begin = lines.index(next(line for line in lines if line.startswith("Program")))
    assert [line.split() for line in lines[begin : begin + 4]] == [
        ["Program", "Process", "State", "Age", "Starts", "Memory", "Command", "Reason"],
        ["tasks", "4201", "running", "60", "s", "1", "40", "MB", "db_worker", "-"],
        ["celery.1", "4202", "running", "60", "s", "1", "40", "MB", "celery", "w1", f"{'s' * 47}...", "-"],
        [
            "celery.2",
            "-",
            "waiting",
            "-",
            "7",
            "-",
            "celery",
            "w2",
            f"{'s' * 47}...",
            *waiting["reason"].split(),
        ],
    ]


def test_a_site_of_another_version_is_reported_with_what_it_sends(play):
    """As the present `bus.site.status()`, or as that of a later version."""
    status = {"pid": 4101, "state": "STARTED", "condition": "ready", "reason": "", "servers": {"default": {}}}
    result = play(status=status).run("status")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith("Not well: ready\nSite 4101\n")


names = st.text(max_size=20)
numbers = st.none() | st.integers(0, 10**12)
processes = st.fixed_dictionaries(
    {"pid": numbers, "role": names, "state": names, "memory": numbers, "age": numbers, "reason": names}
)
servers = st.fixed_dictionaries(
    {"urls": st.lists(names), "title": names, "wanted": numbers, "processes": st.lists(processes)}
)
instances = st.fixed_dictionaries(
    {"index": numbers, "pid": numbers, "state": names, "memory": numbers, "age": numbers, "reason": names}
)
programs = st.fixed_dictionaries({"command": st.lists(names), "instances": st.lists(instances)})
operations = st.fixed_dictionaries(
    {"operation": names, "succeeded": st.booleans(), "ago": numbers, "seconds": numbers, "error": names}
)


@settings(deadline=None, max_examples=50)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "well": st.booleans(),
            "condition": names,
            "reason": names,
            "since": numbers,
            "project": names,
            "directory": names,
            "versions": st.dictionaries(names, names),
            "servers": st.dictionaries(names, servers, max_size=3),
            "processes": st.dictionaries(names, programs, max_size=3),
            "last_operation": st.none() | operations,
            "last_failure": st.none() | names,
        },
    )
)
def test_any_names_are_reported_in_printable_lines(status):
    lines = text_of(status)
    assert lines[0].startswith(("Well: ", "Not well: "))
    assert [line for line in lines if escape(line) != line] == []


@pytest.mark.parametrize("as_json", [False, pytest.param(True, marks=pytest.mark.extended)])
def test_watch_shows_the_status_again_until_control_c(play, as_json):
    options = ["--json"] if as_json else []
    site = play(status=WELL)
    with subprocess.Popen(
        [*PROGRAM, "status", "--watch", *options, "--socket", site.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        found = 0
        for line in program.stdout:
            found += (as_json and json.loads(line) == WELL) or line.startswith("Well: ready")
            if found == 2:
                program.send_signal(signal.SIGINT)
                break
        assert program.communicate(timeout=DEADLINE)[1] == ""
        assert program.returncode == 130


@pytest.mark.extended
def test_watch_shows_that_the_site_has_ended_and_goes_on(play):
    site = play(status=WELL)
    with subprocess.Popen(
        [*PROGRAM, "status", "--watch", "--socket", site.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        lines = iter(program.stdout)
        assert any(line.startswith("Well: ready") for line in lines)
        site.served.socket.close()
        assert "Not well: The site with the PID 4101 has ended.\n" in lines
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=DEADLINE)[1] == ""
        assert program.returncode == 130


FLEET = {
    "name": "shop-production",
    "engine": "django_wspbus.fleet.redis.RedisFleet",
    "up": True,
    "since": 180.0,
    "error": None,
    "waiting": 0,
    "unsent": 0,
    "missed": 0,
    "rejected": {},
}


def fleet_lines(**values):
    lines = text_of({**WELL, "fleet": {**FLEET, **values}})
    return [line for line in lines if line.startswith(("Fleet", "Messages"))]


def test_a_fleet_whose_engine_answers():
    assert fleet_lines() == ["Fleet 'shop-production': RedisFleet up, for 3 min"]


def test_a_fleet_whose_engine_is_away_and_what_was_lost():
    error = "Redis: Connection refused."
    found = fleet_lines(up=False, error=error, waiting=3, missed=2, rejected={"key": 4, "old": 1})
    assert found == [
        "Fleet 'shop-production': RedisFleet unavailable, for 3 min: Redis: Connection refused.",
        "Messages: 3 waiting to be sent, 2 missed",
        "Messages dropped: 4 signed with another SECRET_KEY",
        "Messages dropped: 1 too old",
    ]
