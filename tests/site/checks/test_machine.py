from __future__ import annotations

import grp
import os
import pwd
import socket

import pytest

from django_wspbus.site.checks.machine import check_machine

SERVER = {"BIND": "127.0.0.1:0"}


@pytest.fixture
def machine(read):
    return lambda **wspbus: list(check_machine(read(**wspbus)))


# Users and groups


@pytest.mark.parametrize("key", ["USER", "GROUP"])
def test_a_name_that_this_machine_does_not_know(machine, key):
    (problem,) = machine(**{key: "no-such-name"})
    assert (problem.id, problem.path) == ("E009", f'WSPBUS["{key}"]')
    assert problem.message == f"there is no {key.lower()} 'no-such-name' on this machine."


def test_a_user_that_is_not_root_may_name_itself(machine, monkeypatch):
    user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    monkeypatch.setattr(os, "geteuid", lambda: user.pw_uid or 4711)
    assert machine(GROUP=group.gr_name) == machine(GROUP=group.gr_gid) == []
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert machine(USER=4711) == []


@pytest.mark.parametrize("key", ["USER", "GROUP"])
@pytest.mark.parametrize("name", ["root", 0])
def test_only_root_may_become_another(machine, monkeypatch, key, name):
    if key == "GROUP" and name == "root":
        name = grp.getgrgid(0).gr_name
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(os, "getegid", lambda: 4711)
    (problem,) = machine(**{key: name})
    assert (problem.id, problem.path) == ("E009", f'WSPBUS["{key}"]')
    assert problem.message == f"only root may become {name!r}."
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert machine(**{key: name}) == []


# Files


@pytest.fixture
def nothing_is_writable(monkeypatch):
    """Root may write anything, so the permissions of real files show nothing to it."""
    monkeypatch.setattr(os, "access", lambda *args: False)


def test_a_pid_file_and_output_files_may_be_new_or_there(machine, tmp_path):
    (tmp_path / "there").touch()
    for name in ("there", "new"):
        path = str(tmp_path / name)
        assert machine(PIDFILE=path, DAEMONIZE={"STDOUT": path, "STDERR": path}) == []


def test_a_directory_in_the_place_of_a_file(machine, tmp_path):
    path = str(tmp_path)
    problems = machine(PIDFILE=path, DAEMONIZE={"STDOUT": path, "STDERR": path})
    assert [(problem.id, problem.path) for problem in problems] == [
        ("E010", 'WSPBUS["PIDFILE"]'),
        ("E011", 'WSPBUS["DAEMONIZE"]["STDOUT"]'),
        ("E011", 'WSPBUS["DAEMONIZE"]["STDERR"]'),
    ]
    assert all(problem.message == f"{path!r} is a directory." for problem in problems)


@pytest.mark.parametrize("log", ["accesslog", "errorlog"])
def test_a_log_of_gunicorn_that_cannot_be_written(machine, tmp_path, log):
    def logging_to(value):
        return machine(SERVERS={"default": {**SERVER, "OPTIONS": {log: value}}})

    (problem,) = logging_to(str(tmp_path / "nowhere" / "log"))
    assert (problem.id, problem.path) == ("E011", f'WSPBUS["SERVERS"]["default"]["OPTIONS"]["{log}"]')
    assert logging_to("-") == logging_to(str(tmp_path / "log")) == []


def test_a_directory_that_is_not_there(machine, tmp_path):
    (problem,) = machine(PIDFILE=str(tmp_path / "nowhere" / "site.pid"))
    assert problem.message == f"there is no directory {str(tmp_path / 'nowhere')!r}."


@pytest.mark.usefixtures("nothing_is_writable")
def test_files_that_cannot_be_written(machine, tmp_path):
    (tmp_path / "there").touch()
    there, new = str(tmp_path / "there"), str(tmp_path / "new")
    problems = machine(PIDFILE=there, DAEMONIZE={"STDOUT": there, "STDERR": new})
    assert [(problem.id, problem.message) for problem in problems] == [
        ("E010", f"the directory {str(tmp_path)!r} cannot be written."),  # it is replaced as a whole
        ("E011", f"the file {there!r} cannot be written."),
        ("E011", f"the directory {str(tmp_path)!r} cannot be written."),
    ]


def test_the_folder_of_a_unix_socket_must_be_there(machine, tmp_path):
    def bound_to(path):
        return machine(SERVERS={"default": {"BIND": f"unix:{path}"}})

    (problem,) = bound_to(tmp_path / "nowhere" / "site.sock")
    assert (problem.id, problem.path) == ("E011", 'WSPBUS["SERVERS"]["default"]["BIND"]')
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "site.sock"))
    assert bound_to(tmp_path / "site.sock") == bound_to(tmp_path / "new.sock") == []
