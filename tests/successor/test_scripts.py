"""Children and next programs run the script that was typed, whatever it is and whatever it does first."""

from __future__ import annotations

import signal
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from tests.processes import Running, RunningSite
from tests.projects import GUNICORN, MANAGE, THREADED, Project
from tests.servers.clients import ask
from tests.servers.conftest import address_of
from tests.servers.load import await_that

from .test_deploy import renew

URLS = """\
import builtins
import os
import sys

from django.http import HttpResponse
from django.urls import path


def answer(request):
    given = getattr(builtins, "given_by_script", None), os.environ.get("GUNICORN_WORKERS"), sys.argv
    return HttpResponse(repr(given))


urlpatterns = [path("", answer)]
"""
BEFORE = "import builtins\n\nbuiltins.given_by_script = 'given'\n"
CALL = BEFORE + (
    "import os\n\nimport django\nfrom django.core.management import call_command\n\n"
    "os.environ['DJANGO_SETTINGS_MODULE'] = 'settings'\ndjango.setup()\ncall_command('runbus', verbosity=2)\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.write("shop/urls.py", URLS)
    project.write("shop/listeners.py", "")
    project.write("manage.py", BEFORE + MANAGE)
    project.serves(GUNICORN)
    return project


def serve_and_renew(site: Running, *numbers: int) -> list[str]:
    """Return what a page answers at first, and after each signal."""
    address = address_of(site)  # type: ignore[arg-type]
    answers = [ask(address)[1]]
    for number in numbers:
        renew(site, number, 2)
        answers.append(ask(address)[1])
    assert site.stop() == 0
    assert site.members() == []
    return answers


@pytest.mark.extended
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("call.py", ["call.py"]),
        ("bin/call", ["bin/call"]),
        ("tool/__main__.py", ["-m", "tool"]),
        ("tool/__main__.py", ["tool"]),
        ("-c", ["-c", CALL]),
    ],
)
def test_what_a_script_does_before_django_happens_in_children_and_next_programs(
    project: Project, name: str, words: list[str]
) -> None:
    if name != "-c":
        project.write(name, CALL)
    variables = {"GUNICORN_WORKERS": "3", "PYTHONPATH": str(project.root)}
    with project.start(sys.executable, *words, **variables) as site:
        answers = serve_and_renew(site, signal.SIGUSR1, signal.SIGUSR2)
    assert len(set(answers)) == 1
    assert answers[0].startswith("('given', '3', [")


@pytest.mark.extended
@pytest.mark.parametrize("debug", [False, True])
def test_a_folder_and_an_archive_with_a_main_module_are_served(project: Project, debug: bool) -> None:
    project.configure(DEBUG=debug, WSPBUS={"SERVERS": {"default": THREADED if debug else GUNICORN}})
    (project.root / "__main__.py").write_text(BEFORE + MANAGE)
    archive = project.root.with_suffix(".pyz")
    zipapp.create_archive(project.root, archive)
    for path in (archive, project.root):
        with Running(
            *(sys.executable, path.name, "runbus", "-v2"), env=project.environment, cwd=path.parent
        ) as site:
            if not debug:
                serve_and_renew(site, signal.SIGUSR1, signal.SIGUSR2)
                continue
            address = address_of(site)  # type: ignore[arg-type]
            assert ask(address)[1].startswith("('given', None, [")
            site.send(signal.SIGUSR2)
            site.wait_for_line("Serving again after")
            assert ask(address)[1].startswith("('given', None, [")
            assert site.stop() == 0


def test_a_path_object_on_the_search_path_is_no_obstacle(project: Project) -> None:
    settings = project.root / "settings.py"
    settings.write_text(
        settings.read_text()
        + "import sys\nfrom pathlib import Path\n\nsys.path.insert(0, Path(__file__).parent / 'apps')\n"
    )
    with project.serve() as site:
        assert ask(address_of(site))[0] == 200
        assert site.stop() == 0


FAILURES = {
    "ends": (
        "if 'DJANGO_WSPBUS_ORDER' in os.environ: sys.exit()",
        "ended without running the command runbus.",
    ),
    "ends with a status": (
        "if 'DJANGO_WSPBUS_ORDER' in os.environ: sys.exit(7)",
        "its boot ended with status 7.",
    ),
    "ends with a reason": ("if 'DJANGO_WSPBUS_ORDER' in os.environ: sys.exit('not here')", "not here"),
    "raises": ("if 'DJANGO_WSPBUS_ORDER' in os.environ: 1 / 0", "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize(
    "how", ["ends", *(pytest.param(how, marks=pytest.mark.extended) for how in list(FAILURES)[1:])]
)
def test_a_script_that_does_not_reach_runbus_in_a_child_gives_the_reason_once(
    project: Project, how: str
) -> None:
    source, reason = FAILURES[how]
    project.write("manage.py", f"import os\nimport sys\n\n{source}\n" + MANAGE)
    with project.serve() as site:
        assert site.wait() != 0
    (line,) = (line for line in site.lines if "did not start" in line)
    assert line.startswith("CommandError: The server 'default' did not start: ")
    assert site.output.count(reason) == (2 if how == "raises" else 1)  # on top, and in the traceback
    assert site.output.count("Traceback") == (how == "raises")


def test_a_start_message_of_any_length_does_not_hang_a_start(project: Project) -> None:
    program = """\
import sys
from django_wspbus.successor import start
before = start.write_values
start.write_values = lambda values: before({**values, "more": "x" * 4_000_000})
"""
    project.write("manage.py", program + BEFORE + MANAGE)
    with project.serve() as site:
        assert ask(address_of(site))[0] == 200
        assert site.stop() == 0


@pytest.mark.extended
def test_a_boot_that_hangs_in_the_script_is_given_up_and_a_signal_ends_it(project: Project) -> None:
    hang = "import os, time\nif 'DJANGO_WSPBUS_ORDER' in os.environ:\n    print('hangs', flush=True)\n"
    project.write("manage.py", f"{hang}    time.sleep(60)\n" + MANAGE)
    project.serves(GUNICORN, READY_TIMEOUT=2)
    with project.serve() as site:
        assert site.wait() == 1
        assert "it was not ready within 2 seconds" in site.output
        assert site.members() == []
    project.serves(GUNICORN)
    with project.serve() as site:
        site.wait_for_line("^hangs")
        assert site.stop(timeout=10) == 0
        assert site.members() == []


# runbus --check


@pytest.mark.parametrize(
    ("file", "source", "reason"),
    [
        ("shop/urls.py", "\n1 / 0\n", "ZeroDivisionError: division by zero"),
        pytest.param(
            *("gunicorn.conf.py", "keepalive = 'many'\n", "gunicorn does not take 'many'"),
            marks=pytest.mark.extended,
        ),
        pytest.param(
            *("manage.py", "\nif 'DJANGO_WSPBUS_ORDER' in os.environ: sys.exit(3)\n" + MANAGE, "status 3"),
            marks=pytest.mark.extended,
        ),
    ],
)
def test_check_boots_a_child_and_says_what_fails(
    project: Project, file: str, source: str, reason: str
) -> None:
    project.write("gunicorn.conf.py", "")
    project.serves({**GUNICORN, "OPTIONS": {"config": "gunicorn.conf.py"}})
    assert check(project).stdout == "The settings are valid, and the applications of default load.\n"
    path = project.root / file
    path.write_text(
        ("import os\nimport sys\n" + source) if file == "manage.py" else path.read_text() + source
    )
    result = check(project)
    assert result.returncode == (3 if file == "manage.py" else 1)
    assert result.stderr.startswith("CommandError: The server 'default' did not start: ")
    assert reason in result.stderr.partition("\n")[0]
    assert result.stdout == ""


def check(project: Project) -> subprocess.CompletedProcess[str]:
    return project.run("runbus", "--check")


@pytest.mark.extended
def test_check_ends_its_child_when_it_is_interrupted(project: Project) -> None:
    project.write(
        "manage.py", "import os, time\nif 'DJANGO_WSPBUS_ORDER' in os.environ:\n    time.sleep(60)\n" + MANAGE
    )
    with RunningSite("--check", manage=project.manage, env=project.environment, cwd=project.root) as program:
        await_that(lambda: len(program.members()) == 2)
        program.send(signal.SIGINT)
        assert program.wait() != 0
        # The kernel ends the child, if the signal came before the command knew of it.
        await_that(lambda: not program.members(), program.members)
