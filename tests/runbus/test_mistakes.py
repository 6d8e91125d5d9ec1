"""What ``manage.py runbus`` says of a mistake, before it does anything."""

from __future__ import annotations

import pytest

from ..projects import GUNICORN, THREADED, reason_of


@pytest.mark.parametrize(
    ("wspbus", "arguments", "reason"),
    [
        ({"PIDFILES": "x"}, [], 'WSPBUS["PIDFILES"]: there is no key'),
        pytest.param(
            {}, ["--user", "no-such-user"], "there is no user 'no-such-user'", marks=pytest.mark.extended
        ),
    ],
    ids=["setting", "option"],
)
def test_a_mistake_is_one_line_and_exits_with_1_before_anything_is_done(project, wspbus, arguments, reason):
    project.configure(WSPBUS={"SERVERS": {"default": GUNICORN}, **wspbus})
    project.listeners("bus.subscribe('exit', lambda: note('exit'), role='any')\n")
    before = set(project.root.iterdir())
    result = project.run("runbus", *arguments, "--pidfile", "site.pid", "--daemonize")
    assert result.returncode == 1
    assert reason in reason_of(result)
    assert {path.name for path in set(project.root.iterdir()) - before} <= {"__pycache__"}


@pytest.mark.parametrize(
    ("server", "application", "reason"),
    [
        pytest.param(GUNICORN, "nowhere.app", "does not import", marks=pytest.mark.extended),
        (THREADED, "os.name", "is not callable"),
    ],
    ids=["gunicorn", "threaded"],
)
def test_a_wrong_name_of_the_application_is_one_line_and_leaves_with_1(project, server, application, reason):
    project.serves({**server, "APPLICATION": application})
    result = project.run("runbus", "--pidfile", "site.pid")
    assert result.returncode == 1
    assert reason in reason_of(result)
    assert not (project.root / "site.pid").exists()


@pytest.mark.parametrize("server", [GUNICORN, pytest.param(THREADED, marks=pytest.mark.extended)])
def test_an_application_that_fails_is_shown_with_its_place_and_leaves_with_1(project, server):
    project.serves(server)
    project.write("shop/urls.py", "\n1 / 0\n")
    result = project.run("runbus", "--pidfile", "site.pid")
    assert result.returncode == 1
    assert "The server 'default' did not start: its application does not load: " in result.stderr
    assert result.stderr.count("Traceback") == 1
    assert 'shop/urls.py", line 2' in result.stderr
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert result.stdout == ""
    assert not (project.root / "site.pid").exists()


def test_a_plugin_that_does_not_take_its_options_is_a_mistake_too(project):
    project.write("shop/plugins.py", "def make(bus, **options):\n    raise ValueError('a path is needed')\n")
    project.serves(THREADED, PLUGINS=[{"BACKEND": "shop.plugins.make"}])
    result = project.run("runbus")
    assert result.returncode == 1
    assert reason_of(result) == (
        'CommandError: WSPBUS["PLUGINS"][0]: shop.plugins.make does not take these OPTIONS: a path is needed.'
    )
