"""``python -m django_wspbus`` as a program: what it imports, what it takes, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from django_wspbus.command.parser import ACTIONS
from django_wspbus.control import address
from django_wspbus.control.calls import ClientGone
from tests.processes import DEADLINE

from .conftest import PROGRAM, run

WELL = {"well": True, "condition": "ready", "since": 3.2, "reason": "", "pid": 4101}


def test_an_action_imports_neither_django_nor_the_project(play, project):
    project.write("settings.py", "SECRET_KEY = [[\n")
    project.write("json.py", "1 / 0\n")
    site = play(status=WELL)
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "django_wspbus", "status", "--socket", site.name],
        cwd=project.root,
        env={"DJANGO_SETTINGS_MODULE": "settings"},  # no HOME, no PATH, no LANG
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, "Well: ready, for 3.2 s")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert {"django_wspbus", "argparse"} <= imported
    assert {"django", "gunicorn", "rich", "settings", "shop", "asyncio"} & imported == set()


@pytest.mark.parametrize("word", ["migrate", "check"])
def test_another_command_is_refused_and_manage_is_named(project, word):
    result = run(word, cwd=project.root)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"there is no action '{word}', only runbus, status, " in result.stderr
    assert f"`manage.py {word}`" in result.stderr


def test_an_action_that_needs_the_project_names_manage():
    result = run("systemd")
    assert (result.returncode, result.stdout) == (2, "")
    assert "`manage.py wspbus systemd`" in result.stderr


def test_runbus_without_a_project_says_where_to_run_it(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    result = run("runbus", cwd=tmp_path, env=environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("There is no manage.py in this directory: change to that of the project")


def test_without_an_action_it_shows_its_usage():
    result = run()
    assert result.returncode == 2
    assert "usage: python -m django_wspbus" in result.stderr


def test_the_help_names_each_action():
    result = run("--help")
    assert result.returncode == 0
    for name in (*ACTIONS, "runbus"):
        assert f"\n    {name}" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["publish", "prices", "sku-1"], "'sku-1' is not JSON (a string has quotes: '\"sku-1\"')"),
        (["scale", "default", "0"], "a server has at least 1 worker"),
        (["scale", "default", "many"], "'many' is not a whole number"),
        (["publish", "prices", "NaN"], "'NaN' is not JSON"),
        (["stacks", "worker"], "invalid int value: 'worker'"),
    ],
)
def test_a_wrong_argument_is_refused_before_a_site_is_asked(arguments, reason):
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert reason in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["scale", "default", "0"], ["no-such-action"], ["status", "here"], []])
def test_a_wrong_command_line_is_an_error_as_json_too(arguments):
    result = run(*arguments, "--json")
    assert result.returncode == 2
    values = json.loads(result.stdout)
    assert values["status"] == 2
    assert result.stderr.endswith(f"error: {values['error']}\n")


def test_control_c_ends_it_without_a_word(play):
    site = play(graceful=lambda call: (call.step("booting 'default'"), call.wait_until_gone(DEADLINE)))
    with subprocess.Popen(
        [*PROGRAM, "graceful", "--socket", site.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout.readline() == "booting 'default'\n"
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=DEADLINE) == ("", "")
        assert program.returncode == 130


def test_a_closed_pipe_leaves_no_traceback(play):
    records = [{"time": 0, "pid": 1, "level": "INFO", "logger": "a", "text": "x" * 1000}] * 1000
    site = play(logs={"records": records})
    with subprocess.Popen(
        [*PROGRAM, "logs", "--socket", site.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        program.stdout.readline()
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait(DEADLINE) == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
def test_an_output_that_takes_nothing_is_named(play):
    with open("/dev/full", "w") as full:
        result = play(status=WELL).run("status", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (
        1,
        "The output cannot be written: No space left on device\n",
    )


def test_closed_streams_are_no_error(play):
    site = play(status=WELL)
    command = " ".join([*PROGRAM, "status", "--socket", site.name, "<&- >&- 2>&-"])
    assert subprocess.run(["sh", "-c", command], timeout=DEADLINE, check=False).returncode == 0


def test_json_is_the_result_as_the_site_sends_it(play):
    values = {**WELL, "servers": {"default": {"title": "\u202e\x1b[2J"}}}
    result = play(status=values).run("status", "--json")
    assert json.loads(result.stdout) == values
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout


def test_a_site_that_closes_the_connection_without_an_answer_is_named(play):
    def close(call):
        raise ClientGone

    result = play(status=close).run("status")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "The site has ended, or closed the connection, before it answered.\n"


def test_the_stacks_of_a_site_that_does_not_answer_are_those_of_its_process():
    sock, name = address.listen(os.getpid())
    with sock:
        result = run("stacks", "--socket", name.text)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert "does not answer: it is starting, or stopped, or C code holds the GIL" in lines[0]
    assert lines[1] == "These are the stacks of its own process:"
    assert f"Process {os.getpid()}, site" in result.stdout
    assert "It writes no stacks" in result.stdout  # the tests are no site


def test_watch_goes_on_while_the_site_refuses(play):
    def refuse(call):
        raise RuntimeError("Not now.")

    command = [*PROGRAM, "status", "--watch", "--json", "--socket", play(status=refuse).name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        found = [json.loads(program.stdout.readline()) for _ in range(2)]
        program.send_signal(signal.SIGINT)
        assert program.wait(DEADLINE) == 130
    assert found == [{"error": "Not now.", "status": 1}] * 2
