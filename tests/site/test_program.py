"""The program of the site, without the command that starts it."""

from __future__ import annotations

import io

import pytest
from django.core.management.base import BaseCommand, CommandError

from django_wspbus import Refusal, conf
from django_wspbus.management.commands.runbus import Command
from django_wspbus.site.program import Program, failing_as, refusing


@pytest.fixture
def program(settings):
    """Make the program of a command line; return it and its output."""
    server = {"BACKEND": conf.THREADED, "BIND": "127.0.0.1:0"}
    settings.WSPBUS = {"SERVERS": {"default": server}, "PIDFILE": "site.pid"}

    def make(*arguments):
        output = io.StringIO()
        options = vars(Command().create_parser("manage.py", "runbus").parse_args(arguments))
        return Program(BaseCommand(stdout=output, stderr=output, no_color=True), options), output

    return make


def test_it_prints_the_settings_in_force_on_the_output_of_the_command(program):
    made, output = program("--print-settings", "--pidfile", "other.pid")
    made.run()
    assert "WSPBUS[\"PIDFILE\"] = 'other.pid'" in output.getvalue().splitlines()


def test_it_checks_that_the_site_would_start(program):
    made, output = program("--check")
    made.run()
    assert output.getvalue() == "The settings are valid, and the applications of default load.\n"


def test_wrong_settings_are_an_error_with_a_line_for_each(program, settings):
    settings.WSPBUS = {"PIDFILE": 1, "UMASK": "9"}
    made, _ = program()
    with pytest.raises(CommandError) as caught:
        made.run()
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        'WSPBUS["PIDFILE"]',
        'WSPBUS["UMASK"]',
    ]


def test_a_refusal_is_an_error_of_the_command_with_its_status():
    with pytest.raises(CommandError, match="no room") as caught, refusing():
        raise Refusal("no room", status=70)
    assert caught.value.returncode == 70


def test_an_error_in_the_code_of_the_project_is_shown_with_its_traceback():
    with pytest.raises(CommandError) as caught, failing_as("It does not load"):
        1 / 0  # noqa: B018
    assert str(caught.value).startswith("It does not load: ")
    assert str(caught.value).endswith("ZeroDivisionError: division by zero")


def test_a_refusal_keeps_its_own_words_in_the_code_of_the_project():
    with pytest.raises(CommandError, match=r"^no room$"), failing_as("It does not load"):
        raise Refusal("no room")
