"""PROCESSES: what each key takes, and the checks of it."""

from __future__ import annotations

import pytest

from django_wspbus.conf.reading import read_raw
from django_wspbus.site.checks.programs import check_commands, check_programs


def read(**processes):
    return read_raw({"SERVERS": {"default": {}}, "PROCESSES": processes}, debug=False)


def only_problem(**processes):
    _, (problem,) = read(**processes)
    return problem


def test_what_is_left_out_has_its_default():
    settings, problems = read(tasks={"COMMAND": ["db_worker"]})
    tasks = settings.processes["tasks"]
    assert problems == []
    assert (tasks.command, tasks.program, tasks.env) == (("db_worker",), (), {})
    assert (tasks.stop_signal, tasks.stop_timeout, tasks.count) == ("SIGTERM", 10, 1)
    assert (tasks.when, tasks.graceful) == ("always", "restart")


@pytest.mark.parametrize(
    ("entry", "key", "id", "words"),
    [
        ({}, "", "E002", "got neither. It takes COMMAND or PROGRAM."),
        ({"COMMAND": ["a"], "PROGRAM": ["b"]}, "", "E002", "got COMMAND and PROGRAM."),
        ({"COMMAND": "db_worker"}, '["COMMAND"]', "E002", "got 'db_worker'. It takes a list of words"),
        ({"PROGRAM": ["\0"]}, '["PROGRAM"]', "E002", "a list of words"),
        ({"PROGRAM": [""]}, '["PROGRAM"]', "E002", "a list of words"),
        ({"COMMAND": ["runbus"]}, '["COMMAND"]', "E002", "runbus serves the site itself."),
        ({"STOP_SIGNAL": "SIGTEM"}, '["STOP_SIGNAL"]', "E007", "Did you mean 'SIGTERM'?"),
        ({"STOP_SIGNAL": 15}, '["STOP_SIGNAL"]', "E007", "there is no signal 15"),
        ({"STOP_SIGNAL": "SIG_DFL"}, '["STOP_SIGNAL"]', "E007", "there is no signal 'SIG_DFL'"),
        ({"STOP_TIMEOUT": 0}, '["STOP_TIMEOUT"]', "E015", "above 0"),
        ({"ENV": {"A": 1}}, '["ENV"]', "E002", "all of them strings"),
        ({"ENV": {"A=B": "1"}}, '["ENV"]', "E002", "all of them strings"),
        ({"COUNT": 0}, '["COUNT"]', "E015", "from 1 to 1000"),
        ({"COUNT": True}, '["COUNT"]', "E002", "a whole number"),
        ({"WHEN": "DEBUG"}, '["WHEN"]', "E002", '"always", "debug", "production"'),
        ({"GRACEFUL": False}, '["GRACEFUL"]', "E002", '"restart", "keep"'),
        ({"COMAND": ["x"], "COMMAND": ["x"]}, '["COMAND"]', "E001", "'COMMAND'"),
    ],
)
def test_a_wrong_value_is_named_with_what_the_key_takes(entry, key, id, words):  # noqa: A002
    if not any(name in entry for name in ("COMMAND", "PROGRAM")) and entry:
        entry = {"COMMAND": ["x"], **entry}
    problem = only_problem(tasks=entry)
    assert (problem.id, problem.path) == (id, f'WSPBUS["PROCESSES"]["tasks"]{key}')
    assert words in f"{problem.message} {problem.hint}"


@pytest.mark.parametrize("raw", [None, [], "tasks"])
def test_processes_is_a_dict(raw):
    _, (problem,) = read_raw({"SERVERS": {"default": {}}, "PROCESSES": raw}, debug=False)
    assert (problem.id, problem.path) == ("E002", 'WSPBUS["PROCESSES"]')


@pytest.mark.parametrize("alias", ["default", "leader"])
def test_an_alias_is_neither_that_of_a_server_nor_that_of_the_leader_process(alias):
    problem = only_problem(**{alias: {"COMMAND": ["x"]}})
    assert (problem.id, problem.path) == ("E027", f'WSPBUS["PROCESSES"]["{alias}"]')


def test_a_server_has_another_alias_than_the_leader_process():
    _, (problem,) = read_raw({"SERVERS": {"default": {}, "leader": {}}}, debug=False)
    assert (problem.id, problem.path) == ("E027", 'WSPBUS["SERVERS"]["leader"]')


@pytest.mark.parametrize("alias", ["", 7])
def test_an_alias_is_a_string(alias):
    _, (problem,) = read_raw(
        {"SERVERS": {"default": {}}, "PROCESSES": {alias: {"COMMAND": ["x"]}}}, debug=False
    )
    assert problem.id == "E002"


@pytest.mark.parametrize(
    ("when", "in_debug", "in_production"),
    [("always", True, True), ("debug", True, False), ("production", False, True)],
)
def test_when_says_where_it_runs(when, in_debug, in_production):
    settings, _ = read(tasks={"COMMAND": ["x"], "WHEN": when})
    tasks = settings.processes["tasks"]
    assert (tasks.runs(debug=True), tasks.runs(debug=False)) == (in_debug, in_production)


def test_a_command_that_no_app_has_is_found_with_the_nearest_one():
    settings, _ = read(good={"COMMAND": ["migrate"]}, near={"COMMAND": ["migrat"]}, far={"COMMAND": ["qqqq"]})
    near, far = check_commands(settings.processes)
    assert (near.id, near.path) == ("E028", 'WSPBUS["PROCESSES"]["near"]["COMMAND"]')
    assert (near.hint, far.hint) == ("Did you mean 'migrate'?", "Is its app in INSTALLED_APPS?")


def test_a_command_of_an_app_that_is_installed_for_development_alone_is_no_error():
    settings, _ = read(styles={"COMMAND": ["tailwind", "start"], "WHEN": "debug"})
    assert list(check_commands(settings.processes)) == []


def test_a_file_that_is_not_executable_is_named_as_such(tmp_path):
    script = tmp_path / "work.sh"
    script.write_text("#!/bin/sh\n")
    settings, _ = read(script={"PROGRAM": [str(script)]}, folder={"PROGRAM": [str(tmp_path)]})
    assert [problem.message for problem in check_programs(settings.processes)] == [
        f"the file {str(script)!r} is not executable.",
        f"there is no program {str(tmp_path)!r}.",
    ]


def test_a_program_that_the_machine_does_not_have_is_found():
    settings, _ = read(
        good={"PROGRAM": ["sh"]},
        path={"PROGRAM": ["/bin/sh"]},
        bad={"PROGRAM": ["no-such-program"]},
        elsewhere={"PROGRAM": ["no-such-program"], "WHEN": "debug"},
        other={"PROGRAM": ["sh"], "ENV": {"PATH": "/nowhere"}},
    )
    found = [(problem.id, problem.path) for problem in check_programs(settings.processes)]
    assert found == [
        ("E028", 'WSPBUS["PROCESSES"]["bad"]["PROGRAM"]'),
        ("E028", 'WSPBUS["PROCESSES"]["other"]["PROGRAM"]'),
    ]
