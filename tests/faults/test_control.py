"""The control socket cannot be made: the site serves without it, and says why."""

from __future__ import annotations

import re

import pytest

from tests.projects import Project
from tests.servers.conftest import KINDS, address_of, ask, configure

REASONS = {
    "missing/site.sock": "no such file or directory",
    "manage.py": "a file that is no socket has this name",
    "x" * 120: "path too long",
    "/proc/site.sock": "no such file or directory",
}


@pytest.mark.parametrize("path", REASONS)
@pytest.mark.parametrize("kind", ["threaded", pytest.param("gthread", marks=pytest.mark.extended)])
def test_a_site_serves_without_its_control_socket(project: Project, kind: str, path: str) -> None:
    project.write("shop/listeners.py", "")
    configure(project, {"default": KINDS[kind]}, CONTROL=path)
    with project.serve("-v2") as site:
        assert ask(address_of(site))[0] == 200
        assert site.stop() == 0
    place = project.root / path
    assert re.search(f"The control socket {place} cannot be made: .*{REASONS[path]}", site.output)
    assert "Traceback" not in site.output
