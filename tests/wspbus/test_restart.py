"""restart(): the process that executes itself anew is given all that it was given before."""

from __future__ import annotations

import json
import os
import sys

import pytest

from .conftest import ROOT

SITE = """
import json, os, sys, threading
from django_wspbus.wspbus import Bus

def describe():
    print(json.dumps({
        "pid": os.getpid(),
        "orig_argv": sys.orig_argv[1:],
        "argv": sys.argv[1:],
        "optimize": sys.flags.optimize,
        "dev_mode": sys.flags.dev_mode,
        "utf8_mode": sys.flags.utf8_mode,
        "xoptions": {key: value for key, value in sys._xoptions.items()},
        "warnoptions": [option for option in sys.warnoptions],
        "cwd": os.getcwd(),
        "environ": {key: os.environ.get(key) for key in ("GIVEN", "SET", "PYTHONPATH")},
        "name": __name__,
        "import_path": sys.path[0],
    }), flush=True)

def main():
    describe()
    if "SET" in os.environ:
        return
    os.environ["SET"] = "by the first"
    os.chdir("/")  # as a daemon does
    bus = Bus()
    bus.subscribe("log", lambda msg, level: print(msg, file=sys.stderr))
    bus.start()
    threading.Thread(target=bus.restart).start()
    print("not flushed")
    bus.block()
    print("never", flush=True)

if __name__ == "__main__":
    main()
"""

FLAGS = ["-O", "-X", "utf8", "-X", "site.option=1", "-W", "error", "-W", "ignore::ImportWarning"]


@pytest.mark.parametrize("how", ["script", "-m module", "-m package", "-c"])
def test_a_restart_from_a_thread_keeps_flags_arguments_directory_environment_and_pid(run, tmp_path, how):
    (tmp_path / "site_module.py").write_text(SITE)
    (tmp_path / "site_package").mkdir()
    (tmp_path / "site_package" / "__init__.py").write_text("")
    (tmp_path / "site_package" / "__main__.py").write_text(SITE)
    command = {
        "script": ["site_module.py"],
        "-m module": ["-m", "site_module"],
        "-m package": ["-m", "site_package"],
        "-c": ["-c", SITE],
    }[how]
    arguments = ["--name", "with space", "", "--", "-O"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "GIVEN": "to the first"}
    process = run(None, *command, *arguments, flags=FLAGS, cwd=tmp_path, env=env)
    lines = process.finish()
    assert len(lines) == 3, process.err.text
    before, after = json.loads(lines[0]), json.loads(lines[2])
    assert lines[1] == "not flushed"
    assert before["pid"] == process.popen.pid
    assert before["orig_argv"] == [*FLAGS, *command, *arguments]
    assert before["cwd"] == str(tmp_path)
    assert before["optimize"] == before["utf8_mode"] == 1
    assert before["warnoptions"] == ["error", "ignore::ImportWarning"]
    assert before["environ"] == {"GIVEN": "to the first", "SET": None, "PYTHONPATH": str(ROOT)}
    assert after == before | {"environ": before["environ"] | {"SET": "by the first"}}
    assert any(line.startswith(f"Re-spawning {sys.executable} -O") for line in process.err.lines)


ONCE_MORE = """
import os, sys
from django_wspbus.wspbus import Bus

bus = Bus()
bus.subscribe("exit", lambda: print("exit", flush=True))
how = sys.argv[1]

@bus.subscribe("start")
def start():
    print("start", flush=True)
    if how == "start" and "SECOND" not in os.environ:
        os.environ["SECOND"] = "1"
        bus.restart()

bus.start()
if "SECOND" in os.environ and how != "start":
    bus.exit()
elif how == "deferred":
    os.environ["SECOND"] = "1"
    bus.defer(bus.restart)
elif how == "closed":
    os.environ["SECOND"] = "1"
    sys.stderr.close()
    sys.stderr = None
    bus.restart()
elif how == "exit":
    bus.restart()
    bus.exit()
if "SECOND" in os.environ and how == "start" and bus.state.name == "STARTED":
    bus.exit()
bus.block()
print("end", flush=True)
"""


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("deferred", ["start", "exit", "start", "exit", "end"]),
        ("start", ["start", "exit", "start", "exit", "end"]),
        ("closed", ["start", "exit", "start", "exit", "end"]),
        ("exit", ["start", "exit", "end"]),
    ],
)
def test_a_restart_executes_the_process_once_more_unless_an_exit_follows_it(run, how, expected):
    assert run(ONCE_MORE, how).finish() == expected


def test_block_calls_what_replaces_the_process_after_the_last_execv_listener(bus, journal):
    journal.listen_to_all()
    journal.listen("execv")
    bus.start()
    bus.defer(bus.restart)
    bus.block(replace=lambda: journal.events.append("replaced"))
    assert journal.events == ["start", "stop", "exit", "execv", "replaced"]


def test_block_replaces_nothing_after_an_exit(bus, journal):
    journal.listen("execv")
    bus.start()
    bus.defer(bus.exit)
    bus.block(replace=lambda: journal.events.append("replaced"))
    assert journal.events == []
