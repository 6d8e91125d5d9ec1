"""``manage.py wspbus``: what it has beyond ``python -m django_wspbus``."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from django_wspbus.management.commands.wspbus import directories
from django_wspbus.successor.invocation import Invocation
from tests.processes import DEADLINE
from tests.projects import GUNICORN

ADDRESS = "127.0.0.1:8123"


def test_systemd_prints_a_unit_and_its_socket_file(project):
    project.serves({**GUNICORN, "BIND": ADDRESS})
    result = project.run("wspbus", "systemd", "--name", "shop", "--settings", "settings")
    assert (result.returncode, result.stderr) == (0, "")
    service, found, socket = result.stdout.partition("# /etc/systemd/system/shop.socket\n")
    assert found
    assert service.startswith("# /etc/systemd/system/shop.service\n[Unit]\n")
    assert f"/{project.root.name}/manage.py runbus --settings settings\n" in service
    assert f"ListenStream={ADDRESS}\n" in socket


def test_systemd_writes_the_files_into_a_folder(project, tmp_path):
    project.serves({**GUNICORN, "BIND": ADDRESS})
    result = project.run("wspbus", "systemd", "--write", str(tmp_path))
    paths = [tmp_path / "project.service", tmp_path / "project.socket"]
    assert (result.stdout.splitlines(), result.stderr) == ([*map(str, paths)], "")
    assert [path.read_text().endswith("\n") for path in paths] == [True, True]
    result = project.run("wspbus", "systemd", "--write", str(tmp_path), "--json")
    assert json.loads(result.stdout) == {"files": {str(path): path.read_text() for path in paths}}
    result = project.run("wspbus", "systemd", "--write", str(tmp_path / "nowhere"))
    assert result.returncode == 1
    assert result.stderr.endswith("project.service cannot be written: No such file or directory.\n")


def test_settings_with_which_a_site_cannot_be_a_unit_are_refused(project):
    project.serves({**GUNICORN, "BIND": ADDRESS}, DAEMONIZE=True)
    result = project.run("wspbus", "systemd")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith('CommandError: WSPBUS["DAEMONIZE"] is on')


def test_it_can_be_called_from_code(capsys):
    with pytest.raises(SystemExit) as raised:
        call_command("wspbus", "status", "--project", "no such project")
    assert raised.value.code == 3
    assert "No site of this user with the project 'no such project'" in capsys.readouterr().err


def test_a_wrong_argument_in_code_is_an_error_of_the_command():
    with pytest.raises(CommandError, match="a server has at least 1 worker"):
        call_command("wspbus", "scale", "default", "0")


def test_errors_are_json_too(project):
    project.serves({**GUNICORN, "BIND": ADDRESS}, DAEMONIZE=True)
    for arguments, status in ((["systemd"], 1), (["scale", "default", "0"], 2)):
        result = project.run("wspbus", *arguments, "--json")
        values = json.loads(result.stdout)
        assert (result.returncode, values["status"]) == (status, status)
        assert values["error"] in result.stderr


def test_closed_streams_leave_no_traceback(project):
    command = [sys.executable, project.manage, "wspbus", "status", "--project", "no such project"]
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command],
        cwd=project.root,
        env=os.environ | project.environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert result.returncode == 3
    assert result.stderr.startswith("No site of this user with the project 'no such project'")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (["manage.py"], ["/srv/shop", "/srv/shop"]),
        (["/srv/blog/manage.py"], ["/srv/blog", "/srv/shop"]),
        (["-m", "django"], ["/srv/shop"]),
    ],
)
def test_the_directory_of_the_script_comes_before_the_working_directory(script, expected):
    assert directories(Invocation(sys.executable, [], [*script, "wspbus"], "/srv/shop", {})) == expected
