"""How ``manage.py runbus`` leaves: with which status, and how many words."""

from __future__ import annotations

import signal

import pytest

from .projects import GUNICORN, SLOW_START, THREADED, reason_of


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_stop_leaves_with_0(project, server, number):
    project.serves(server)
    with project.serve() as site:
        site.wait_until_started()
        assert site.stop(number) == 0
    assert "Traceback" not in site.output
    assert "Error" not in site.output


@pytest.mark.parametrize("channel", ["start", "stop", "exit"])
@pytest.mark.parametrize("role", ["site", "worker"])
def test_a_listener_that_fails_in_any_process_leaves_with_70_and_is_named(project, role, channel):
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


@pytest.mark.parametrize("channel", ["start", "stop", "exit"])
def test_a_listener_that_fails_in_a_site_of_one_process_leaves_with_70(project, channel):
    project.serves(THREADED)
    project.listeners(
        f'@bus.subscribe("{channel}")\ndef one_that_fails():\n    raise RuntimeError("on purpose")\n'
    )
    with project.serve() as site:
        if channel == "start":
            assert site.wait() == 70
        else:
            site.wait_until_started()
            assert site.stop() == 70
    assert site.output.count("RuntimeError: on purpose") == 1
    assert "one_that_fails" in site.output


def test_logs_are_written_also_where_a_wsgi_py_sets_up_logging_again(project, server):
    """A LOGGING that does not say otherwise disables the loggers that are there."""
    project.write(
        "shop/wsgi.py",
        "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n",
    )
    handlers = {"console": {"class": "logging.StreamHandler"}}
    project.configure(
        WSPBUS={"SERVERS": {"default": server}},
        WSGI_APPLICATION="shop.wsgi.application",
        LOGGING={"version": 1, "handlers": handlers, "root": {"handlers": ["console"], "level": "INFO"}},
    )
    project.listeners('@bus.subscribe("stop")\ndef one_that_fails():\n    raise RuntimeError("on purpose")\n')
    with project.serve() as site:
        site.wait_until_started()
        assert site.stop() == 70
    assert site.output.count("RuntimeError: on purpose") == 1
    assert ("Booting worker" in site.output) is (server is GUNICORN)


def test_a_listener_that_refuses_leaves_with_1_and_its_reason(project, server):
    project.serves(server)
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


@pytest.mark.parametrize("role", ["site", "worker"])
def test_a_first_signal_during_the_start_leaves_with_0_and_one_line(project, server, role):
    project.serves(server)
    project.listeners(SLOW_START.format(role=role))
    with project.serve() as site:
        project.expect_note("slow start")
        assert site.stop() == 0
    assert site.lines == ["The site was told to exit while it was starting."]
    assert project.events() == ["slow start"]


def test_a_signal_while_the_application_is_imported_leaves_with_0_and_one_line(project):
    project.serves(GUNICORN)
    project.write(
        "shop/urls.py",
        "import time\nfrom .journal import note\nnote('importing')\ntime.sleep(20)\nurlpatterns = []\n",
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
