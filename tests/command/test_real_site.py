"""The command on sites that are served."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import ExitStack

import pytest

from tests.projects import GUNICORN, THREADED
from tests.servers.clients import connect
from tests.servers.conftest import address_of
from tests.servers.load import await_that

from .conftest import run

HANG = """\
import ctypes

from django.http import HttpResponse
from django.urls import path


def hang(request):
    ctypes.PyDLL(None).sleep(600)  # it keeps the GIL
    return HttpResponse()


urlpatterns = [path("", lambda request: HttpResponse("ok")), path("hang", hang)]
"""


def test_a_site_is_operated_by_both_commands_also_when_its_code_is_broken(project):
    project.serves({**GUNICORN, "OPTIONS": {"workers": 1}})
    with project.serve() as site:
        site.wait_until_started()
        result = run("graceful", "--pid", str(site.pid), cwd="/")
        assert (result.returncode, result.stderr) == (0, "")
        assert "booting 'default'" in result.stdout
        assert result.stdout.splitlines()[-1].startswith("Reloaded in ")
        result = project.run("wspbus", "status", "--json", "--settings", "settings")
        assert (result.stderr, json.loads(result.stdout)["pid"]) == ("", site.pid)
        project.write("shop/urls.py", "A = [[\n")
        result = run("graceful", "--pid", str(site.pid))
        assert result.returncode == 1
        assert result.stderr.rstrip().endswith("SyntaxError: '[' was never closed")
        status = run("status", "--pid", str(site.pid))
        assert (status.returncode, status.stderr) == (0, "")
        assert status.stdout.startswith("Well: ready, for ")
        assert "\nThe last reload failed " in status.stdout
        assert re.search(r"^default +1/1 +0 +0/\d +0 +\d+ MB  gunicorn", status.stdout, re.MULTILINE)
        assert status.stdout.rstrip().endswith("SyntaxError: '[' was never closed")
        project.write("settings.py", "A = [[\n")
        result = run("status", "--json", "--pid", str(site.pid), cwd=project.root)
        assert json.loads(result.stdout)["pid"] == site.pid
        result = run("stop", "--pid", str(site.pid))
        assert (result.returncode, result.stderr) == (0, "")
        assert not os.path.exists(f"/proc/{site.pid}/exe")
        assert site.wait() == 0
        result = run("status", "--pid", str(site.pid))
        assert result.returncode == 3


def test_the_command_of_another_project_does_not_find_the_site(project, tmp_path_factory):
    project.configure(ROOT_URLCONF="shop.urls")
    project.serves(THREADED)
    other = type(project)(tmp_path_factory.mktemp("other"))
    other.write("elsewhere.py", (other.root / "settings.py").read_text())
    with project.serve() as site:
        site.wait_until_started()
        result = other.run("wspbus", "stop", DJANGO_SETTINGS_MODULE="elsewhere")
        assert (result.returncode, result.stdout) == (1, "")
        assert "No site of this user with the project 'elsewhere' is running" in result.stderr
        assert f"{site.pid}  project" in result.stderr
        assert site.stop() == 0


@pytest.mark.extended
@pytest.mark.parametrize("how", ["C code holds the GIL", "stopped"])
def test_the_stacks_of_a_site_that_does_not_answer_are_shown_without_it(project, how):
    project.write("shop/urls.py", HANG)
    project.serves(THREADED)
    with project.serve() as site, ExitStack() as stack:
        address = address_of(site)
        if how == "stopped":
            site.send(signal.SIGSTOP)
        else:
            client = stack.enter_context(connect(address))
            client.sendall(b"GET /hang HTTP/1.1\r\nHost: shop\r\n\r\n")
        await_that(lambda: run("status", "--pid", str(site.pid)).returncode == 1)
        status = run("status", "--pid", str(site.pid))
        assert (status.returncode, status.stdout) == (1, "")
        assert f"The site with the PID {site.pid} does not answer" in status.stderr
        assert "The action `stacks` shows what its process is doing." in status.stderr
        result = run("stacks", "--pid", str(site.pid))
        assert result.returncode == 1
        assert "These are the stacks of its own process:" in result.stderr
        assert f"Process {site.pid}, site" in result.stdout
        if how == "stopped":
            assert f"It is stopped (SIGSTOP): `kill -CONT {site.pid}` lets it go on." in result.stdout
        else:
            assert "in hang\n" in result.stdout
            values = json.loads(run("stacks", "--json", "--pid", str(site.pid)).stdout)
            assert "in hang\n" in values["processes"][0]["stacks"]
