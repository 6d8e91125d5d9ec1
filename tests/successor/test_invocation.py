"""The command line of a process, read so that it can be run again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from django_wspbus.successor.invocation import ADDRESSED_VARIABLES, OWN_VARIABLES, Invocation

Typed = Callable[..., Invocation]


@pytest.fixture
def srv(tmp_path: Path) -> Path:
    """Two releases, each with a script and a virtual environment, and a link to the first."""
    for release in ("1", "2"):
        folder = tmp_path / "releases" / release
        (folder / "venv" / "bin").mkdir(parents=True)
        (folder / "sub").mkdir()
        (folder / "manage.py").touch()
        (folder / "venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "current").symlink_to("releases/1")
    return tmp_path


@pytest.fixture
def typed(srv: Path) -> Typed:
    """Return what reads a command line that was typed in release 1; the kernel has resolved its directory."""

    def typed(*words: str, directory: str | None = "releases/1", **environment: str) -> Invocation:
        physical = None if directory is None else str(srv / directory)
        executable = str(srv / "releases/1/venv/bin/python") if "venv" in words[0] else sys.executable
        found = {name: value.format(srv=srv) for name, value in environment.items()}
        words = tuple(word.format(srv=srv) for word in words)
        return Invocation.typed(words, executable=executable, directory=physical, environment=found)

    return typed


@pytest.mark.parametrize(
    ("arguments", "options", "command"),
    [
        ([], [], []),
        (["manage.py", "-O"], [], ["manage.py", "-O"]),
        (["-", "-O"], [], ["-", "-O"]),
        (["-Bm", "django", "-O"], ["-B"], ["-m", "django", "-O"]),
        (["-mdjango", "-O"], [], ["-m", "django", "-O"]),
        (["-Oc", "pass", "-O"], ["-O"], ["-c", "pass", "-O"]),
        (["-OO", "-I", "manage.py"], ["-OO", "-I"], ["manage.py"]),
        (["-Xtracemalloc", "-X", "dev", "-O", "m.py"], ["-Xtracemalloc", "-Xdev", "-O"], ["m.py"]),
        (["-OW", "error", "-Wignore:::a.m", "m.py"], ["-O", "-Werror", "-Wignore:::a.m"], ["m.py"]),
        (
            ["--check-hash-based-pycs", "always", "-E", "m.py"],
            ["--check-hash-based-pycs", "always", "-E"],
            ["m.py"],
        ),
    ],
)
def test_options_of_the_interpreter_are_those_before_the_program(
    typed: Typed, arguments: list[str], options: list[str], command: list[str]
) -> None:
    invocation = typed("python", *arguments)
    assert (invocation.options, invocation.command) == (options, command)


@pytest.mark.parametrize(
    ("words", "directory", "environment", "expected"),
    [
        (["python", "manage.py"], "releases/1", {}, "{srv}/releases/1"),
        (["python", "manage.py"], "releases/1", {"PWD": "{srv}/current"}, "{srv}/current"),
        (["python", "manage.py"], "releases/1", {"PWD": "{srv}/releases/2"}, "{srv}/releases/1"),
        (["python", "manage.py"], "releases/1", {"PWD": "current"}, "{srv}/releases/1"),
        (["python", "{srv}/current/manage.py"], "releases/1", {"PWD": "/"}, "{srv}/current"),
        (["python", "{srv}/current/manage.py"], "releases/1/sub", {}, "{srv}/current/sub"),
        (["python", "{srv}/current/sub/manage.py"], "releases/1", {}, "{srv}/current"),
        (["{srv}/current/venv/bin/python", "manage.py"], "releases/1", {}, "{srv}/current"),
        (["{srv}/current/venv/bin/python", "-m", "django"], "releases/1", {}, "{srv}/current"),
        (["python", "{srv}/bin/django-admin"], "releases/1", {"PWD": "{srv}/current"}, "{srv}/current"),
        (
            ["python", "{srv}/releases/1/manage.py"],
            "releases/1",
            {"PWD": "{srv}/current"},
            "{srv}/releases/1",
        ),
        (["python", "{srv}/current/manage.py"], None, {}, "{srv}/current"),
        (["python", "manage.py"], None, {"PWD": "{srv}/gone"}, "{srv}/gone"),
    ],
)
def test_the_directory_keeps_the_links_by_which_it_was_reached(
    typed: Typed,
    srv: Path,
    words: list[str],
    directory: str | None,
    environment: dict[str, str],
    expected: str,
) -> None:
    assert typed(*words, directory=directory, **environment).directory == expected.format(srv=srv)


def test_a_script_that_is_elsewhere_leaves_the_directory_alone(typed: Typed, srv: Path) -> None:
    invocation = Invocation.typed(
        ["python", str(srv / "current/manage.py")], executable="", directory="/", environment={"PWD": "/"}
    )
    assert invocation.directory == "/"


def test_the_interpreter_of_a_release_is_that_of_the_next_one_when_the_link_is_changed(
    typed: Typed, srv: Path
) -> None:
    paths = [
        typed("venv/bin/python", "manage.py", PWD="{srv}/current").find_interpreter(),
        typed("{srv}/current/venv/bin/python", "manage.py").find_interpreter(),
        typed("venv/bin/python", "manage.py").find_interpreter(),
    ]
    assert paths == [
        *[str(srv / "current/venv/bin/python")] * 2,
        str(srv / "releases/1/venv/bin/python"),
    ]


def test_a_name_is_searched_on_path_again_if_that_is_how_it_was_found(srv: Path) -> None:
    folder = srv / "bin"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    environment = {"PATH": f"/nowhere:{folder}"}
    invocation = Invocation.typed(
        ["python", "manage.py"], executable=str(folder / "python"), directory="/", environment=environment
    )
    assert invocation.interpreter == "python"
    assert invocation.find_interpreter() == str(folder / "python")
    (folder / "python").unlink()
    with pytest.raises(FileNotFoundError, match="No such interpreter on PATH"):
        invocation.find_interpreter()
    other = Invocation.typed(
        ["foo", "manage.py"], executable=sys.executable, directory="/", environment=environment
    )
    assert other.find_interpreter() == sys.executable


def test_only_the_names_that_systemd_and_gunicorn_read_themselves_are_hidden(typed: Typed) -> None:
    kept = {"GUNICORN_WORKERS": "3", "WATCHDOG_URL": "x", "LISTEN_HOST": "y", "DJANGO_WSPBUS_MINE": "z"}
    hidden = dict.fromkeys((*ADDRESSED_VARIABLES, *OWN_VARIABLES), "1")
    invocation = typed("python", "manage.py", **kept, **hidden)
    assert invocation.environment_of_child() == kept
    assert invocation.environment == kept | dict.fromkeys(ADDRESSED_VARIABLES, "1")


@pytest.mark.parametrize("words", [[], ["uwsgi", "--http", ":8000", "-W"], ["mod_wsgi", "-W"], ["", "-X"]])
def test_the_command_line_of_a_program_that_embeds_python_is_no_obstacle(words: list[str]) -> None:
    assert Invocation.typed(words, executable="", directory="/", environment={}).interpreter == ""


def test_bytes_that_are_no_text_are_kept(typed: Typed) -> None:
    name = os.fsdecode(b"\xff")
    assert typed("python", name, GIVEN=name).words[-1] == name
