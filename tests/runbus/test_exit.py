"""The status with which ``manage.py runbus`` exits, and the lines that it writes then."""

from __future__ import annotations

import pytest

from ..projects import GUNICORN, SLOW_START, THREADED, reason_of


def extended(*values):
    return pytest.param(*values, marks=pytest.mark.extended)


@pytest.mark.parametrize(
    ("role", "channel"),
    [
        ("worker", "exit"),
        *[extended("worker", "start"), extended("worker", "stop")],
        *[extended("site", "start"), extended("site", "stop"), extended("site", "exit")],
    ],
)
def test_a_listener_that_fails_in_any_process_is_named_and_the_status_is_70(project, role, channel):
    project.serves({**GUNICORN, "OPTIONS": {"workers": 2}})
    project.listeners(
        f"""
@bus.subscribe("{channel}", role="{role}")
def one_that_fails():
    raise RuntimeError("on purpose")


bus.subscribe("exit", lambda: note("site exit"), 99, role="site")
"""
    )
    with project.serve("--pidfile", "site.pid") as site:
        if channel == "start":
            assert site.wait() == 70
            assert "Quit with" not in site.output
        else:
            site.wait_until_started()
            assert site.stop() == 70
    assert "RuntimeError: on purpose" in site.output
    assert "one_that_fails" in site.output
    assert len(project.notes("site exit")) == 1
    assert not (project.root / "site.pid").exists()


def test_logs_are_written_also_where_a_wsgi_py_sets_up_logging_again(project):
    """A LOGGING that does not say otherwise disables the loggers that are there."""
    project.write(
        "shop/wsgi.py",
        "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n",
    )
    handlers = {"console": {"class": "logging.StreamHandler"}}
    project.configure(
        WSPBUS={"SERVERS": {"child": GUNICORN, "thread": THREADED}},
        WSGI_APPLICATION="shop.wsgi.application",
        LOGGING={"version": 1, "handlers": handlers, "root": {"handlers": ["console"], "level": "INFO"}},
    )
    project.listeners('@bus.subscribe("stop")\ndef one_that_fails():\n    raise RuntimeError("on purpose")\n')
    with project.serve() as site:
        site.wait_until_started()
        assert site.stop() == 70
    assert site.output.count("RuntimeError: on purpose") == 2  # in the worker and in the site process
    assert "Booting worker" in site.output


def test_a_listener_that_refuses_leaves_with_1_and_its_reason(project):
    project.serves(THREADED)
    project.listeners(
        """
from django_wspbus import Refusal


@bus.subscribe("start", role="site")
def refuse():
    raise Refusal("The moon is not right.")
"""
    )
    result = project.run("runbus")
    assert result.returncode == 1
    assert reason_of(result) == "CommandError: The moon is not right."


@pytest.mark.parametrize(
    ("server", "role"), [(THREADED, "site"), (GUNICORN, "worker"), extended(THREADED, "worker")]
)
def test_a_first_signal_during_the_start_leaves_with_0_and_one_line(project, server, role):
    project.serves(server)
    project.listeners(SLOW_START.format(role=role))
    with project.serve() as site:
        project.expect_note("slow start")
        assert site.stop() == 0
    assert site.lines == ["The site was told to exit while it was starting."]
    assert project.events() == ["slow start"]


@pytest.mark.extended
def test_a_signal_while_the_application_is_imported_leaves_with_0_and_one_line(project):
    project.serves(GUNICORN)
    project.write(
        "shop/urls.py",
        "import time\nfrom .journal import note\nnote('importing')\nwhile True:\n    time.sleep(0.05)\n",
    )
    with project.serve() as site:
        project.expect_note("importing")
        assert site.stop() == 0
    assert site.lines == ["The site was told to exit while it was starting."]


def test_ctrl_c_before_our_handlers_stand_leaves_as_a_shell_expects(project):
    project.serves(THREADED, PLUGINS=[{"BACKEND": "shop.plugins.Interrupted"}])
    project.write(
        "shop/plugins.py",
        """
import os
import signal

from django_wspbus import Plugin


class Interrupted(Plugin):
    def __init__(self, bus):
        os.kill(os.getpid(), signal.SIGINT)
""",
    )
    result = project.run("runbus")
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
