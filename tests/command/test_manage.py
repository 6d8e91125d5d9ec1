"""``manage.py wspbus``: what it has beyond ``python -m django_wspbus``."""

from __future__ import annotations

import pytest
from django.core.management import call_command

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
