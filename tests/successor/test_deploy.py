"""A deploy is what is on disk now: the release that a link points to, and its environment files."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import Running
from tests.projects import GUNICORN, THREADED, Project
from tests.servers.clients import ask
from tests.servers.conftest import address_of
from tests.servers.load import await_value

URLS = """\
import os

from django.http import HttpResponse
from django.urls import path

RELEASE = "{release}"


def answer(request):
    return HttpResponse(f"{{RELEASE}} {{os.environ['SHOP_MODE']}} {{os.getpid()}}")


urlpatterns = [path("", answer)]
"""
# As readers of environment files do: what is set already stays.
READ_FILE = """\
import os
from pathlib import Path

for line in (Path(__file__).parent / ".env").read_text().splitlines():
    name, _, value = line.partition("=")
    os.environ.setdefault(name, value)
"""


class Release(Project):
    def __init__(self, root: Path, server: dict[str, object], mode: str) -> None:
        super().__init__(root)
        self.write("shop/listeners.py", "")  # a journal would be in a release that is gone
        self.write("shop/urls.py", URLS.format(release=root.name))
        self.serves(server)
        self.set_mode(mode)
        settings = root / "settings.py"
        settings.write_text(settings.read_text() + READ_FILE)

    def set_mode(self, mode: str) -> None:
        self.write(".env", f"SHOP_MODE={mode}\n")


@pytest.fixture
def link(tmp_path: Path) -> Callable[[str], None]:
    """Return what points the link ``current`` to a release."""

    def point(release: str) -> None:
        temporary = tmp_path / "new"
        temporary.symlink_to(f"releases/{release}")
        temporary.rename(tmp_path / "current")

    return point


def release(address: str) -> str:
    """Return the release and the mode that a worker answers with."""
    return ask(address)[1].rpartition(" ")[0]


def cd_and(*command: str) -> list[str]:
    """Return a shell that goes into the folder by its link, as an operator does, and becomes the command."""
    return ["sh", "-c", 'cd "$0" && exec "$@"', "current", *command]


HOW = {
    "in the folder": cd_and(sys.executable, "manage.py", "runbus", "-v2"),
    "by an absolute path": [sys.executable, "{srv}/current/manage.py", "runbus", "-v2"],
    "as a module": cd_and(sys.executable, "-m", "django_wspbus", "runbus", "-v2"),
}
KINDS = {"child": GUNICORN, "thread": THREADED}


@pytest.mark.parametrize(
    ("how", "kind", "number"),
    [
        ("in the folder", "child", signal.SIGUSR1),
        pytest.param("in the folder", "thread", signal.SIGUSR2, marks=pytest.mark.extended),
        pytest.param("in the folder", "child", signal.SIGUSR2, marks=pytest.mark.extended),
        pytest.param("by an absolute path", "child", signal.SIGUSR1, marks=pytest.mark.extended),
        pytest.param("as a module", "child", signal.SIGUSR2, marks=pytest.mark.extended),
    ],
)
def test_the_release_that_the_link_points_to_answers_and_the_old_one_may_be_gone(
    tmp_path: Path, link: Callable[[str], None], how: str, kind: str, number: int
) -> None:
    for name in ("1", "2", "3"):
        (tmp_path / "releases" / name).mkdir(parents=True)
        project = Release(tmp_path / "releases" / name, KINDS[kind], f"mode{name}")
    link("1")
    command = [word.format(srv=tmp_path) for word in HOW[how]]
    with Running(*command, env=project.environment, cwd=tmp_path) as site:
        address = address_of(site)  # type: ignore[arg-type]
        assert release(address) == "1 mode1"
        for name in ("2", "3"):
            link(name)
            shutil.rmtree(tmp_path / "releases" / str(int(name) - 1))
            renew(site, number, int(name))
            await_value(lambda: release(address), f"{name} mode{name}")
        project.set_mode("another")
        renew(site, number, 4)
        await_value(lambda: release(address), "3 another")
        assert site.stop() == 0
        assert site.members() == []
    assert "Traceback" not in site.output


def renew(site: Running, number: int, count: int) -> None:
    """Reload or restart a site, for the first time with the ``count`` 2, and wait until that is done."""
    site.send(number)
    if number == signal.SIGUSR2:
        site.wait_for_line("^Quit with", count=count)
    else:
        site.wait_for_line("Reloaded after", count=count - 1)


@pytest.mark.extended
def test_a_reload_is_refused_in_a_sentence_while_the_link_leads_nowhere(
    tmp_path: Path, link: Callable[[str], None]
) -> None:
    (tmp_path / "releases" / "1").mkdir(parents=True)
    project = Release(tmp_path / "releases" / "1", GUNICORN, "mode1")
    link("1")
    with Running(*HOW["in the folder"], env=project.environment, cwd=tmp_path) as site:
        address = address_of(site)  # type: ignore[arg-type]
        link("2")
        for what, number in (("reload", signal.SIGUSR1), ("restart", signal.SIGUSR2)):
            site.send(number)
            site.wait_for_line(
                f"The {what} failed; the old code keeps serving: The command of the site cannot be "
                f"run again: No such file or directory: {tmp_path}/current"
            )
        assert release(address) == "1 mode1"
        link("1")
        project.set_mode("another")
        site.send(signal.SIGUSR1)
        await_value(lambda: release(address), "1 another")
        assert site.stop() == 0
        assert "Traceback" not in site.output


def test_importing_the_package_needs_no_working_directory(tmp_path: Path) -> None:
    project = Project(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()
    command = 'cd "$1" && rmdir "$1" && exec "$2" "$3" check'
    with Running(
        *("sh", "-c", command, "sh", str(gone), sys.executable, project.manage), env=project.environment
    ) as program:
        assert program.wait() == 0
        assert "System check identified no issues" in program.output


def test_a_site_in_a_directory_that_is_gone_is_refused_in_a_sentence(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.serves(GUNICORN)
    gone = tmp_path / "gone"
    gone.mkdir()
    command = 'cd "$1" && rmdir "$1" && exec "$2" "$3" runbus'
    with Running(
        *("sh", "-c", command, "sh", str(gone), sys.executable, project.manage), env=project.environment
    ) as site:
        assert site.wait() == 1
        assert site.lines == [
            "CommandError: The working directory has been removed: start runbus in another one."
        ]


@pytest.mark.extended
def test_a_variable_of_the_shell_stays_and_one_of_settings_does_not(tmp_path: Path) -> None:
    project = Release(tmp_path, GUNICORN, "of the file")
    with project.serve("-v2", SHOP_MODE="of the shell") as site:
        address = address_of(site)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            assert release(address).endswith(" of the shell")
            renew(site, number, 2)
            assert release(address).endswith(" of the shell")
        assert site.stop() == 0
