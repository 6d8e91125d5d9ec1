"""A stuck request, as the control socket shows it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.controlled import result, site_of
from tests.projects import GUNICORN, Project
from tests.servers.clients import ask
from tests.servers.conftest import address_of
from tests.servers.load import await_that

from .test_actions import URLS

# It makes progress for as long as a test wants its worker to live.
MOVING = """

def moving(request):
    def chunks():
        note("moving")
        while not (PATH.parent / "go").exists():
            yield b"."
            time.sleep(0.05)

    return StreamingHttpResponse(chunks())


urlpatterns.append(path("moving", moving))
"""


@pytest.mark.extended
def test_a_stuck_request_and_the_worker_that_is_replaced_for_it_are_shown(project: Project) -> None:
    project.write("shop/urls.py", URLS + MOVING)
    project.serves({**GUNICORN, "OPTIONS": {"workers": 1, "threads": 2}, "REQUEST_TIMEOUT": 2})
    with project.serve() as program, ThreadPoolExecutor() as pool:
        program.wait_until_started()
        site, address = site_of(program), address_of(program)
        states: set[str] = set()
        reasons: set[str | None] = set()

        def rows() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = result(site, "status")["servers"]["default"]["processes"]
            states.update(row["state"] for row in found)
            reasons.update(row["reason"] for row in found)
            return found

        await_that(lambda: {row["state"] for row in rows()} == {"serving", "standby"})
        pool.submit(ask, address, "/moving")
        project.expect_note("moving")
        pool.submit(ask, address, "/held/never")
        await_that(lambda: any(each["stuck"] for each in result(site, "requests")["requests"]))
        await_that(lambda: rows() and "retiring" in states)
        assert "a request is stuck (REQUEST_TIMEOUT)" in reasons
        project.write("go", "")
        await_that(lambda: "only stuck requests are left: GET /held/never" in program.output)
        await_that(lambda: {row["state"] for row in rows()} == {"serving", "standby"})
        await_that(lambda: result(site, "requests")["requests"] == [])
        # The log has it once with its stack, and once in the sentence about the end of its worker.
        assert "requests lost" not in program.output
        assert "in held" in program.output
        project.write("never", "")
