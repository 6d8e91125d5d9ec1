"""A site as ``wagtail start`` makes it, on SQLite, with sync workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from .journey import BREAKAGES, Step, develop, operate
from .project import Edit, RealProject, run_tool

pytestmark = [pytest.mark.extended, pytest.mark.usefixtures("new_interpreters")]

LOCAL = """\
SECRET_KEY = "a secret of this machine"
ALLOWED_HOSTS = ["localhost"]
MODE = "@mode@"
"""

# Nothing here has to survive a power cut.
DATABASE = """
DATABASES["default"]["OPTIONS"] = {"init_command": "PRAGMA synchronous=OFF"}
"""

PRODUCTION = """
WSPBUS = {
    "SERVERS": {"default": {"BIND": "127.0.0.1:0", "OPTIONS": {"workers": 2}}},
    "READY_TIMEOUT": 300,
    "WARMUP": ["/", "/search/"],
}
"""


def create(folder: Path) -> None:
    run_tool(folder, "wagtail.bin.wagtail", "start", "mysite", str(folder))
    settings = folder / "mysite/settings"
    apps = 'INSTALLED_APPS = ["deploys", "django_wspbus"] + ['
    base = (settings / "base.py").read_text().replace("INSTALLED_APPS = [", apps)
    (settings / "base.py").write_text(base + DATABASE)
    (settings / "production.py").write_text((settings / "production.py").read_text() + PRODUCTION)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> RealProject:
    pytest.importorskip("wagtail")
    project = RealProject(
        name="wagtail",
        base=tmp_path_factory.mktemp("wagtail"),
        create=create,
        settings=("mysite.settings.dev", "mysite.settings.production"),
        urls="mysite/urls.py",
        shared={"mysite/settings/local.py": LOCAL},
        pages=["/", "/search/?query=home", "/admin/login/"],
        view=Edit(
            "search/views.py",
            '"search_query": search_query,',
            '"search_query": f"{search_query}, you said",',
            "/search/?query=home",
            "home, you said",
        ),
        template=Edit(
            "home/templates/home/home_page.html",
            "{% include 'home/welcome_page.html' %}",
            "<p>Hello from a template. {{ page.subtitle }}</p>",
            "/",
            "Hello from a template.",
        ),
        model=Edit(
            "home/models.py",
            "    pass",
            '    subtitle = models.CharField(max_length=100, default="Since this morning")',
            "/",
            "Since this morning",
        ),
        setting=Edit(
            "mysite/settings/base.py",
            'LANGUAGE_CODE = "en-us"',
            'LANGUAGE_CODE = "de"',
            "/admin/login/",
            "Anmelden",
        ),
    )
    project.build()
    return project


def test_development(project: RealProject, steps: list[Step]) -> None:
    develop(project, steps)


def test_production(project: RealProject, steps: list[Step]) -> None:
    operate(project, steps, breakages=BREAKAGES[:1])  # of the larger project, whose boots take longest
