"""The site that a command is meant for."""

from __future__ import annotations

import argparse
import json
import os
import socket

import pytest

from django_wspbus.command.choosing import Own, as_values, chosen, explanation
from django_wspbus.command.plain import lines_of
from django_wspbus.control import address, finding
from django_wspbus.control.conversation import ControlError
from django_wspbus.control.finding import SeveralSites, SiteNotFound

from .conftest import run

OTHER = 65534
"""Another user."""


@pytest.fixture
def pid(monkeypatch):
    """The PID that the sites of a test claim; no other site is found meanwhile."""
    everyone = address.listed
    claimed = 10**9 + 100 + os.getpid() % 10**6 * 10
    monkeypatch.setattr(
        finding, "listed", lambda: [name for name in everyone() if name.pid in range(claimed, claimed + 10)]
    )
    return claimed


def choose(own=None, **options):
    return chosen(argparse.Namespace(**{"pid": None, "project": None, "socket": None, **options}), own)


def reason(error):
    return [line for block in explanation(error) for line in lines_of(block)]


def facts(pid, project, directory="/srv"):
    return {"hello": {"pid": pid, "project": project, "settings": "config.settings", "directory": directory}}


def test_several_sites_are_listed_with_their_state(play, pid):
    play(pid, **facts(pid, "shop"), status={"condition": "ready"})
    play(pid + 1, **facts(pid + 1, "blog\x1b"), status={"condition": "failed"})
    with pytest.raises(SeveralSites) as raised:
        choose()
    assert raised.value.status == 2
    assert [each["pid"] for each in as_values(raised.value)] == [pid, pid + 1]
    heading, titles, *lines = reason(raised.value)
    assert heading == "There are 2 sites: choose one with --pid or --project."
    assert titles.split() == ["Site", "Project", "User", "Directory", "State"]
    user = as_values(raised.value)[0]["user"]
    assert [line.split() for line in lines] == [
        [str(pid), "shop", user, "/srv", "ready"],
        [str(pid + 1), r"blog\x1b", user, "/srv", "failed"],
    ]
    assert choose(project="shop").pid == pid


def test_without_a_site_one_sentence_says_how_to_look(pid):
    with pytest.raises(SiteNotFound) as raised:
        choose()
    sentence, hint = reason(raised.value)
    assert sentence == "No site of this user is running in this network namespace."
    assert hint.startswith("If it runs: use its network namespace (docker exec)")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.skipif(not address.HAS_ABSTRACT_SOCKETS, reason="Linux has them")
def test_the_site_of_another_user_is_listed_and_refused(play, pid):
    play(pid, **facts(pid, "shop"))
    os.seteuid(OTHER)
    try:
        with pytest.raises(SiteNotFound) as raised:
            choose()
        lines = reason(raised.value)
        with pytest.raises(ControlError, match=f"The site with the PID {pid} belongs to the user"):
            choose(pid=pid)
    finally:
        os.seteuid(0)
    assert lines[2].split() == [str(pid), "-", "root", "-", "refused:", "belongs", "to", "root"]


def test_a_site_that_does_not_answer_is_named(pid):
    with address.listen(pid)[0], pytest.raises(ControlError, match="does not answer"):
        choose()


def test_manage_means_the_site_of_its_project_alone(play, pid):
    play(pid, **facts(pid, "shop", "/srv/shop"))
    assert choose(Own("config.settings", ["/srv/elsewhere"])).pid == pid
    with pytest.raises(SiteNotFound):
        choose(Own("blog.settings", ["/srv/blog"]))
    play(pid + 1, **facts(pid + 1, "blog", "/srv/blog"))
    assert choose(Own("config.settings", ["/srv/blog"])).pid == pid + 1
    assert choose(Own("config.settings", ["/srv/blog"]), pid=pid).pid == pid
    assert choose(Own("config.settings", ["/srv/blog", "/srv/shop"])).pid == pid + 1
    assert choose(Own("config.settings", ["/srv/venv/bin", "/srv/shop"])).pid == pid
    with pytest.raises(SeveralSites):
        choose(Own("config.settings", ["/srv/elsewhere"]))


def test_status_without_a_site_exits_with_3_and_other_actions_with_1():
    options = ["--project", "no such project", "--json"]
    result = run("status", *options)
    assert result.returncode == 3
    assert "No site of this user with the project 'no such project' is running" in result.stderr
    values = json.loads(result.stdout)
    assert values["status"] == 3
    assert isinstance(values["sites"], list)
    assert run("graceful", *options).returncode == 1


def test_a_socket_on_which_nothing_listens_is_named(tmp_path):
    result = run("status", "--socket", "site.sock", cwd=tmp_path)
    assert result.returncode == 3
    assert result.stderr.startswith("No site listens at 'site.sock'.\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0django-wspbus-test-{os.getpid()}")
        listener.listen()
        result = run("status", "--socket", f"@django-wspbus-test-{os.getpid()}")
    assert result.returncode == 1
    assert "does not answer" in result.stderr
