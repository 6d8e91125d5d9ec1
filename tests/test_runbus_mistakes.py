"""What ``manage.py runbus`` says of a mistake, before it does anything."""

from __future__ import annotations

import pytest

from .projects import GUNICORN, THREADED, reason_of


def test_a_busy_port_names_the_server_and_the_address(project, server, taken_port):
    project.serves({**server, "BIND": f"127.0.0.1:{taken_port}"})
    result = project.run("runbus", "--pidfile", "site.pid")
    assert result.returncode == 1
    assert reason_of(result) == (
        f"CommandError: The server 'default' cannot listen on 127.0.0.1:{taken_port}: "
        "the address is in use by another process."
    )
    assert not (project.root / "site.pid").exists()


@pytest.mark.parametrize(
    ("wspbus", "arguments", "told"),
    [
        ({"PIDFILES": "x"}, [], 'WSPBUS["PIDFILES"]: there is no key'),
        ({"SERVERS": {"default": {"BIND": "x"}}}, [], "'x' is not an address."),
        ({"SERVERS": {"default": {"OPTIONS": {"worker": 1}}}}, [], "Did you mean 'workers'?"),
        ({}, ["nonsense"], "'nonsense' is not a valid port number"),
        ({}, ["--server", "other"], "there is no server 'other'"),
        ({}, ["--user", "no-such-user"], "there is no user 'no-such-user'"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_users_mistake_is_one_line_and_leaves_with_1_before_anything_is_done(
    project, wspbus, arguments, told
):
    project.configure(WSPBUS={"SERVERS": {"default": GUNICORN}, **wspbus})
    project.listeners("bus.subscribe('exit', lambda: note('exit'), role='any')\n")
    before = set(project.root.iterdir())
    result = project.run("runbus", *arguments, "--pidfile", "site.pid", "--daemonize")
    assert result.returncode == 1
    assert told in reason_of(result)
    assert {path.name for path in set(project.root.iterdir()) - before} <= {"__pycache__"}


@pytest.mark.parametrize(
    ("application", "told"),
    [("nowhere.app", "'nowhere.app' does not import"), ("os.name", "is not callable")],
)
def test_a_wrong_name_of_the_application_is_one_line_and_leaves_with_1(project, server, application, told):
    project.serves({**server, "APPLICATION": application})
    result = project.run("runbus", "--pidfile", "site.pid")
    assert result.returncode == 1
    assert told in reason_of(result)
    assert not (project.root / "site.pid").exists()


def test_an_application_that_fails_is_shown_with_its_place_and_leaves_with_1(project, server):
    project.serves(server)
    project.write("shop/urls.py", "\n1 / 0\n")
    result = project.run("runbus", "--pidfile", "site.pid")
    assert result.returncode == 1
    assert "CommandError: The server 'default' did not start: its application does not load." in result.stderr
    assert result.stderr.count("Traceback") == 1
    assert 'shop/urls.py", line 2' in result.stderr
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert result.stdout == ""
    assert not (project.root / "site.pid").exists()


def test_a_plugin_that_does_not_take_its_options_is_a_users_mistake(project):
    project.write("shop/plugins.py", "def make(bus, **options):\n    raise ValueError('a path is needed')\n")
    project.serves(THREADED, PLUGINS=[{"BACKEND": "shop.plugins.make"}])
    result = project.run("runbus")
    assert result.returncode == 1
    assert reason_of(result) == (
        'CommandError: WSPBUS["PLUGINS"][0]: shop.plugins.make does not take these OPTIONS: a path is needed.'
    )
