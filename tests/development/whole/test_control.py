"""The control socket in development: it answers whether the code boots or not."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Any

import pytest

from django_wspbus.control.address import listed
from django_wspbus.control.client import ask as request
from django_wspbus.control.conversation import ControlError
from django_wspbus.control.finding import FoundSite
from django_wspbus.control.protocol import Error, Result, Step
from tests import controlled
from tests.controlled import site_at, site_of
from tests.projects import GUNICORN
from tests.servers.conftest import Client, Later, address_of, ask
from tests.servers.load import Shop, await_that, status_of

from .broken import without_spare
from .controlling import HANGS, order, result

BROKEN = "import nothing\n"
# The launcher watches the file of the code, and not the one that makes it fail.
FRAGILE = "from pathlib import Path\nif Path('broken').exists():\n    import nothing\n"
NEVER = "import threading\nthreading.Event().wait()\n"
REASON = "shop/views.py, line 3: ModuleNotFoundError: No module named 'nothing'"

IN_C = """
from django.http import HttpResponse
from django.urls import path
from .journal import note
from .urls import urlpatterns as others

def hang(request):
    note("hangs")
    sum(range(10**12))

urlpatterns = [*others, path("hang/", hang)]
"""


def message(outcome: Any) -> str:
    assert isinstance(outcome, Result), outcome
    return str(outcome.value["message"])


def text(outcome: Any) -> str:
    assert isinstance(outcome, Error), outcome
    assert outcome.status == 1
    return outcome.text


def does_not_answer(site: FoundSite) -> bool:
    """Return whether the launcher says so; a request that the site has taken before gets no answer at all."""
    with contextlib.suppress(ControlError):
        return isinstance(list(request(site, "status", timeout=2))[-1], Error)
    return False


def test_the_launcher_has_the_socket_and_the_site_answers_over_it(shop: Shop) -> None:
    with shop.serve() as running:
        address = address_of(running)
        site = site_of(running)
        assert (site.pid, site.settings, site.directory) == (running.pid, "settings", str(shop.root))
        await_that(lambda: result(site, "status")["condition"] == "ready")
        assert result(site, "status")["pid"] == status_of(address)["pid"] != running.pid
        assert message(order(site, "stop")[1]).startswith("Stopped in")
        assert running.wait() == 0
        assert [name for name in listed() if name.pid == running.pid] == []


@pytest.mark.extended
def test_a_client_of_a_restart_gets_the_outcome_of_the_next_boot(shop: Shop, later: Later) -> None:
    shop.write("shop/views.py", FRAGILE + (shop.root / "shop/views.py").read_text())
    with shop.serve() as running:
        address_of(running)
        site = site_of(running)
        await_that(lambda: result(site, "status")["condition"] == "ready")
        before = result(site, "status")["pid"]
        for each in [later(order, site, "restart") for _ in range(3)]:
            steps, outcome = each.result()
            assert "booting the site" in steps
            assert message(outcome).startswith("Restarted in")
        assert result(site, "status")["pid"] != before

        (shop.root / "broken").touch()
        reason = text(order(site, "restart")[1])
        assert reason.startswith("The code does not boot: ")
        assert REASON in reason
        assert "Traceback (most recent call last):" in reason
        status = result(site, "status")
        assert (status["condition"], status["well"], status["pid"]) == ("failed", False, running.pid)
        assert status["reason"] == "ModuleNotFoundError: No module named 'nothing'"
        assert REASON in status["last_failure"]
        for action in ("requests", "stacks", "logs"):
            assert REASON in text(order(site, action)[1])
        steps, outcome = order(site, "graceful")
        assert steps == ["booting the site"]
        assert REASON in text(outcome)

        (shop.root / "broken").unlink()
        steps, outcome = order(site, "restart")
        assert message(outcome).startswith("Restarted in")
        assert ask(address_of(running))[0] == 200
        shop.write("shop/views.py", BROKEN)
        await_that(lambda: result(site, "status")["condition"] == "failed")
        assert message(order(site, "stop")[1]).startswith("Stopped in")
        assert running.wait() == 0


@pytest.mark.extended
def test_children_of_a_site_in_development_are_reloaded_by_the_site(shop: Shop) -> None:
    without_spare(shop, {"default": GUNICORN})
    with shop.serve() as running:
        address_of(running)
        site = site_of(running)
        await_that(lambda: result(site, "status")["condition"] == "ready")
        before = result(site, "status")
        steps, outcome = order(site, "graceful")
        assert message(outcome).startswith("Reloaded in")
        assert steps[0] == "booting 'default'"
        assert "switching" in steps
        after = result(site, "status")
        assert after["pid"] == before["pid"]
        assert after["servers"]["default"]["pid"] != before["servers"]["default"]["pid"]
        shop.write("shop/apps.py", (shop.root / "shop/apps.py").read_text() + BROKEN)
        assert "No module named 'nothing'" in text(order(site, "restart")[1])


@pytest.mark.extended
def test_a_boot_that_never_ends_is_shown_and_can_be_ended(shop: Shop) -> None:
    views = (shop.root / "shop/views.py").read_text()
    shop.write("shop/views.py", NEVER)
    with shop.serve() as running:
        await_that(lambda: [name for name in listed() if name.pid == running.pid])
        site = site_of(running)
        status = result(site, "status")
        assert (status["condition"], status["pid"]) == ("starting", running.pid)
        assert "The site is starting." in text(order(site, "requests")[1])
        replies = request(site, "restart", timeout=None)
        assert next(replies) == Step("booting the site")
        shop.write("shop/views.py", views)
        *_, outcome = replies
        assert message(outcome).startswith("Restarted in")
        assert ask(result(site, "status")["servers"]["default"]["bind"][0])[0] == 200


@pytest.mark.extended
@pytest.mark.parametrize("how", ["stopped", "in C"])
def test_a_site_that_hangs_is_reported_within_a_second_and_can_be_stopped(shop: Shop, how: str) -> None:
    without_spare(shop, STOP_TIMEOUT=1)
    shop.write("shop/hanging.py", IN_C)
    shop.write("settings.py", (shop.root / "settings.py").read_text() + "ROOT_URLCONF = 'shop.hanging'\n")
    with shop.serve() as running:
        address = address_of(running)
        site = site_of(running)
        await_that(lambda: result(site, "status")["condition"] == "ready")
        pid = result(site, "status")["pid"]
        with contextlib.closing(Client(address)) as client:
            if how == "stopped":
                os.kill(pid, signal.SIGSTOP)
            else:
                client.request("GET", "/hang/")
                shop.expect_note("hangs")
                await_that(lambda: does_not_answer(site))
            began = time.monotonic()
            for action in ("status", "graceful", "restart"):
                assert f"The site process {pid} {HANGS}" in text(controlled.order(site, action)[1])
            assert time.monotonic() - began < 3 * 5  # each takes less than one, on a machine that is idle
            steps, outcome = order(site, "stacks")
            assert f"The site process {pid} {HANGS}" in steps[0]
            (process,) = outcome.value["processes"]
            if how == "stopped":
                assert process["error"] == f"It is stopped (SIGSTOP): `kill -CONT {pid}` lets it go on."
            else:
                assert "in hang\n" in process["stacks"]
            steps, outcome = order(site, "stop")
            assert f"The site process {pid} {HANGS}" in steps[0]
            assert message(outcome).startswith("Stopped in")
        running.wait()


@pytest.mark.extended
def test_the_launcher_may_listen_at_a_path(shop: Shop) -> None:
    path = shop.root / "control.sock"
    without_spare(shop, CONTROL=str(path))
    with shop.serve() as running:
        address_of(running)
        site = site_at(str(path))
        assert site.pid == running.pid
        assert path.stat().st_mode & 0o777 == 0o600
        await_that(lambda: result(site, "status")["condition"] == "ready")
        assert message(order(site, "restart")[1]).startswith("Restarted in")
        assert message(order(site, "stop")[1]).startswith("Stopped in")
        running.wait()
        assert not path.exists()


@pytest.mark.extended
def test_it_answers_when_the_settings_do_not_load(shop: Shop) -> None:
    settings = (shop.root / "settings.py").read_text()
    shop.write("settings.py", settings + BROKEN)
    with shop.start(sys.executable, "-m", "django_wspbus", "runbus", "127.0.0.1:0") as running:
        await_that(lambda: [name for name in listed() if name.pid == running.pid])
        site = site_of(running)
        assert site.settings == "settings"
        await_that(lambda: result(site, "status")["condition"] == "failed")
        assert "No module named 'nothing'" in result(site, "status")["reason"]
        shop.write("settings.py", settings + "(\n")
        assert "SyntaxError" in text(order(site, "restart")[1])
        # The save is noticed as well, so that it may boot once more.
        await_that(lambda: "SyntaxError" in result(site, "status")["reason"])
        shop.write("settings.py", settings)
        assert message(order(site, "restart")[1]).startswith("Restarted in")
        assert message(order(site, "stop")[1]).startswith("Stopped in")
