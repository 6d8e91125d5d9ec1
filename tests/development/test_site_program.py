"""What the launcher's child tells of a command that has failed."""

from __future__ import annotations

import gc
import io
import os
import socket
import subprocess
import sys

import pytest
from django.core.management.base import CommandError, SystemCheckError

from django_wspbus.development import site_program
from django_wspbus.development.launch import Failure
from django_wspbus.development.reports import failure_of
from django_wspbus.development.site_program import report_failure
from django_wspbus.process.messages import Link
from django_wspbus.successor import program

from ..processes import DEADLINE, ROOT


@pytest.fixture
def project_file(tmp_path):
    """Return what runs source as a file of a project, and returns the error that it raises."""

    def error_of(source):
        path = tmp_path / "views.py"
        path.write_text(source)
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            program.execute([str(path)])
        error = caught.value
        return error.with_traceback(error.__traceback__.tb_next)

    return error_of


@pytest.fixture
def reported():
    """Return what has `tell` tell an error, and returns the status and the messages."""
    ours, theirs = map(Link, socket.socketpair())

    def tell_of(error):
        status = report_failure(theirs, error)
        theirs.send({})
        return status, [message for message, _ in ours.receive(DEADLINE)][:-1]

    yield tell_of
    ours.close()
    theirs.close()


def test_an_error_is_its_traceback_from_the_projects_code_on(project_file):
    failure = failure_of(project_file("def f():\n    raise ValueError('no\\nsuch thing')\n\nf()\n"))
    assert failure.title == "ValueError: no"
    lines = failure.text.splitlines()
    assert lines[0].endswith("views.py, line 2: ValueError: no")
    assert lines[2] == "Traceback (most recent call last):"
    assert lines[3].endswith('views.py", line 4, in <module>')
    assert lines[-2:] == ["ValueError: no", "such thing"]


def test_a_syntax_error_has_no_frame_of_ours(project_file):
    failure = failure_of(project_file("def f(:\n"))
    assert failure.title.startswith("SyntaxError: ")
    assert "site_program.py" not in failure.text
    assert "def f(:" in failure.text


def test_a_refusal_is_in_its_own_words_with_the_error_of_the_project_beneath(project_file):
    cause = project_file("1 / 0\n")
    refusal = CommandError("It does not start.")
    refusal.__cause__ = cause
    failure = failure_of(refusal)
    assert failure.title == "ZeroDivisionError: division by zero"
    first, _, second = failure.text.splitlines()[:3]
    assert first == "It does not start."
    assert second.endswith("views.py, line 1: ZeroDivisionError: division by zero")
    assert failure.text.endswith("ZeroDivisionError: division by zero")


def test_a_refusal_with_a_traceback_in_it_is_left_as_it_is(project_file):
    text = "A worker failed.\nTraceback (most recent call last):\n  File ...\nKeyError: 'x'"
    assert failure_of(CommandError(text)) == Failure("KeyError: 'x'", text)
    with_cause = CommandError(text)
    with_cause.__cause__ = project_file("1 / 0\n")
    assert failure_of(with_cause) == Failure("ZeroDivisionError: division by zero", text)


def test_a_refusal_without_a_cause_is_a_line():
    title = "bad"
    assert failure_of(SystemCheckError("bad")) == Failure(title, "bad")


def test_the_first_failing_check_is_the_title_and_colours_are_left_out():
    text = (
        "SystemCheckError: System check identified some issues:\n\n"
        "\x1b[31;1mERRORS:\n\x1b[0m\x1b[31;1mshop.Book: (models.E015) 'ordering' refers to nothing.\x1b[0m\n"
        "\x1b[31;1m?: (shop.E001) the shop is empty\n\tHINT: Fill it.\x1b[0m\n\n"
        "WARNINGS:\n\x1b[33;1m?: (shop.W001) it is dark\x1b[0m\n\n"
        "System check identified 3 issues (0 silenced).\x1b]0;title\x07"
    )
    failure = failure_of(SystemCheckError(text))
    assert failure.title == "shop.Book: (models.E015) 'ordering' refers to nothing."
    assert "\x1b" not in failure.text
    assert failure.text.endswith("System check identified 3 issues (0 silenced).")
    critical = SystemCheckError(f"{text}".replace("\n\n", "\n\nCRITICALS:\n?: (shop.C001) on fire\n\n", 1))
    assert failure_of(critical).title == "(shop.C001) on fire"


def test_an_error_of_another_process_may_say_more_than_a_line():
    text = 'No.\nTraceback (most recent call last):\n  File "x", line 1, in f\n    g()\nE: one\n two\nthree'
    assert failure_of(CommandError(text)).title == "E: one"


def test_an_error_among_its_own_causes_is_reported(project_file):
    error = project_file("1 / 0\n")
    error.__cause__ = error
    assert failure_of(error).title == "ZeroDivisionError: division by zero"


def test_of_many_errors_the_first_is_the_title(project_file):
    class Many(Exception):
        def get_instances(self):
            return [inner]

    inner = project_file("raise KeyError('first')\n")
    error = CommandError("Many.")
    error.__cause__ = Many()
    assert failure_of(error).title == "KeyError: 'first'"


@pytest.mark.parametrize(
    ("code", "status", "written"),
    [(None, 0, ""), (0, 0, ""), (3, 3, ""), (7, 7, ""), ("no", 1, "no\n"), ([1], 1, "[1]\n")],
)
def test_the_status_of_an_exit_is_that_of_python(reported, capsys, code, status, written):
    found, messages = reported(SystemExit(code))
    assert found == status
    assert capsys.readouterr().err == written
    assert [message["failed"]["is_shown"] for message in messages] == ([] if status in (0, 3) else [True])


def test_an_interruption_is_for_the_launcher_to_judge(reported, capsys):
    for error in (KeyboardInterrupt(), SystemExit(130)):
        status, (message,) = reported(error)
        assert status == 130
        assert message["failed"]["is_shown"] is False
    assert capsys.readouterr().err == ""


def test_an_error_is_printed_once_and_reported_with_the_files_to_watch(reported, project_file, capsys):
    status, (message,) = reported(project_file("1 / 0\n"))
    assert status == 1
    assert message["failed"]["debug"] is False  # as the settings of the tests are
    assert capsys.readouterr().err == message["failed"]["text"] + "\n"
    assert __file__ in message["watch"]["files"]
    assert all(os.path.isdir(folder) for folder, _ in message["watch"]["globs"])


def test_without_settings_it_is_not_known_whether_clients_may_see_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "django.conf")
    assert site_program.debug() is None


def test_an_output_that_is_closed_is_no_trouble(monkeypatch, reported):
    monkeypatch.setattr(sys, "stderr", None)
    assert reported(ValueError("no"))[0] == 1


def test_a_child_without_a_launcher_ends():
    ours, theirs = socket.socketpair()
    program = (
        "import sys; sys.path.append(sys.argv[1]); from django_wspbus.development.site_program import main; "
    )
    command = [sys.executable, "-c", f"{program}main(int(sys.argv[2]))", str(ROOT), str(theirs.fileno())]
    with theirs, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        ours.close()
        assert process.wait(DEADLINE) == 0


class Unhashable(type):
    """The class of classes that no set can hold."""

    __hash__ = None

    def __eq__(cls, other):
        return NotImplemented


@pytest.mark.parametrize("kept", [None, Unhashable("Odd", (), {})()], ids=["usual", "unhashable"])
def test_files_that_may_hold_what_is_not_written_are_found_among_all_objects(kept, tmp_path):
    log = type("Log", (io.TextIOWrapper,), {})
    with open(tmp_path / "a", "w") as text, log(open(tmp_path / "b", "wb")) as own:
        found = {id(each) for each in site_program.open_files()}
        assert {id(text), id(text.buffer), id(own), id(own.buffer)} <= found
        assert id(kept) not in found


def test_files_that_were_open_when_the_command_froze_its_objects_are_found(tmp_path):
    with open(tmp_path / "log", "w") as file:
        gc.freeze()
        assert any(each is file for each in site_program.open_files())
