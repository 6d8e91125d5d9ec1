"""What a site knows of its requests and its log after a restart, and after the end of a whole child."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_wspbus.control.protocol import Result
from tests.controlled import order, result, site_of
from tests.projects import GUNICORN, Project
from tests.servers.clients import ask
from tests.servers.conftest import address_of
from tests.servers.load import await_that, await_value

from .test_actions import URLS


@pytest.mark.extended
def test_after_a_restart_the_log_goes_on_and_lost_requests_are_named(project: Project) -> None:
    project.write("shop/urls.py", URLS)
    project.serves({**GUNICORN, "OPTIONS": {"workers": 2, "threads": 2}})
    with project.serve() as program, ThreadPoolExecutor() as pool:
        program.wait_until_started()
        site, address = site_of(program), address_of(program)

        def texts() -> list[str]:
            return [record["text"] for record in result(site, "logs")["records"]]

        def requests() -> list[str]:
            return [request["path"] for request in result(site, "requests")["requests"]]

        for name in ("old", "new"):
            pool.submit(ask, address, f"/held/{name}")
            project.expect_note(f"held {name}")
            if name == "old":
                before = texts()
                _, outcome = order(site, "restart")
                assert isinstance(outcome, Result)

        assert texts()[: len(before)] == before
        assert sorted(requests()) == ["/held/new", "/held/old"]
        operation = result(site, "status")["last_operation"]
        assert (operation["operation"], operation["succeeded"]) == ("restart", True)
        assert operation["seconds"] > 0

        def rows() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = result(site, "status")["servers"]["default"]["processes"]
            return found

        await_value(lambda: {row["state"] for row in rows()}, {"draining", "serving"})
        for row in rows():  # the whole child that the program before has booted, and the new one
            if row["role"] == "master":
                os.killpg(row["pid"], signal.SIGKILL)
        await_that(lambda: sum("requests lost: GET /held/" in text for text in texts()) == 2, texts)
        lost = [text for text in texts() if "requests lost" in text]
        assert sorted(text.partition("requests lost: ")[2].split(" (")[0] for text in lost) == [
            "GET /held/new",
            "GET /held/old",
        ]
