"""What the launcher's child tells of a command that has failed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from django.core.management.base import CommandError, SystemCheckError

from django_wspbus import launched
from django_wspbus.launched import report_of, tell
from django_wspbus.parcels import Parcels

from .processes import DEADLINE, ROOT


@pytest.fixture
def project_file(tmp_path):
    """Return what runs source as a file of a project, and returns the error that it raises."""

    def error_of(source):
        path = tmp_path / "views.py"
        path.write_text(source)
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            launched.execute([str(path)])
        error = caught.value
        return error.with_traceback(error.__traceback__.tb_next)

    return error_of


@pytest.fixture
def told():
    """Return what has `tell` tell an error, and returns the status and the messages."""
    ours, theirs = map(Parcels, socket.socketpair())

    def tell_of(error):
        status = tell(theirs, error)
        theirs.send({})
        return status, [message for message, _ in ours.receive()][:-1]

    yield tell_of
    ours.close()
    theirs.close()


def test_an_error_is_its_traceback_from_the_projects_code_on(project_file):
    report = report_of(project_file("def f():\n    raise ValueError('no\\nsuch thing')\n\nf()\n"))
    assert report["title"] == "ValueError: no"
    lines = report["text"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith('views.py", line 4, in <module>')
    assert lines[-2:] == ["ValueError: no", "such thing"]


def test_a_syntax_error_has_no_frame_of_ours(project_file):
    report = report_of(project_file("def f(:\n"))
    assert report["title"].startswith("SyntaxError: ")
    assert "launched.py" not in report["text"]
    assert "def f(:" in report["text"]


def test_a_refusal_is_in_its_own_words_with_the_error_of_the_project_beneath(project_file):
    cause = project_file("1 / 0\n")
    refusal = CommandError("It does not start.")
    refusal.__cause__ = cause
    report = report_of(refusal)
    assert report["title"] == "ZeroDivisionError: division by zero"
    assert report["text"].startswith("It does not start.\n\nTraceback")
    assert report["text"].endswith("ZeroDivisionError: division by zero")


def test_a_refusal_with_a_traceback_in_it_is_left_as_it_is(project_file):
    text = "A worker failed.\nTraceback (most recent call last):\n  File ...\nKeyError: 'x'"
    assert report_of(CommandError(text)) == {"title": "KeyError: 'x'", "text": text}
    with_cause = CommandError(text)
    with_cause.__cause__ = project_file("1 / 0\n")
    assert report_of(with_cause) == {"title": "ZeroDivisionError: division by zero", "text": text}


def test_a_refusal_without_a_cause_is_a_line():
    title = "bad"
    assert report_of(SystemCheckError("bad")) == {"title": title, "text": "bad"}


def test_of_many_errors_the_first_is_the_title(project_file):
    class Many(Exception):
        def get_instances(self):
            return [inner]

    inner = project_file("raise KeyError('first')\n")
    error = CommandError("Many.")
    error.__cause__ = Many()
    assert report_of(error)["title"] == "KeyError: 'first'"


@pytest.mark.parametrize(
    ("code", "status", "written"),
    [(None, 0, ""), (0, 0, ""), (3, 3, ""), (7, 7, ""), ("no", 1, "no\n"), ([1], 1, "[1]\n")],
)
def test_the_status_of_an_exit_is_that_of_python(told, capsys, code, status, written):
    found, messages = told(SystemExit(code))
    assert found == status
    assert capsys.readouterr().err == written
    assert [message["failed"]["is_told"] for message in messages] == ([] if status in (0, 3) else [True])


def test_an_interruption_is_for_the_launcher_to_judge(told, capsys):
    for error in (KeyboardInterrupt(), SystemExit(130)):
        status, (message,) = told(error)
        assert status == 130
        assert message["failed"]["is_told"] is False
    assert capsys.readouterr().err == ""


def test_an_error_is_printed_once_and_told_with_what_may_mend_it(told, project_file, capsys):
    status, (message,) = told(project_file("1 / 0\n"))
    assert status == 1
    assert message["failed"]["debug"] is False  # as the settings of the tests are
    assert capsys.readouterr().err == message["failed"]["text"] + "\n"
    assert __file__ in message["watch"]["files"]
    assert all(os.path.isdir(folder) for folder, _ in message["watch"]["dirs"])


def test_without_settings_it_is_not_known_whether_clients_may_see_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "django.conf")
    assert launched.debug() is None


def test_an_output_that_is_closed_is_no_trouble(monkeypatch, told):
    monkeypatch.setattr(sys, "stderr", None)
    assert told(ValueError("no"))[0] == 1


def test_a_child_without_a_launcher_ends():
    ours, theirs = socket.socketpair()
    program = "import sys; sys.path.append(sys.argv[1]); from django_wspbus.launched import main; "
    command = [sys.executable, "-c", f"{program}main(int(sys.argv[2]))", str(ROOT), str(theirs.fileno())]
    with theirs, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        ours.close()
        assert process.wait(DEADLINE) == 0
