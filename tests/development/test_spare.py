"""What a site tells of its libraries, and what a spare makes of that, each in a process of its own."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from django_wspbus.development import spare

PREPARE = """
import json, os, sys
sys.path[:0] = {path!r}
from django_wspbus.development.spare import Spare
os.environ["DJANGO_SETTINGS_MODULE"] = "shop"
warm = Spare({modules!r}, {preload!r})
report = warm.prepare()
assert os.environ["DJANGO_SETTINGS_MODULE"] == "shop"
from django.conf import settings
assert not settings.configured
{after}
print(json.dumps([report, warm.is_fit()]))
"""


def run(program):
    """Return what a program prints in its last line, as JSON."""
    # By its standard input, as the names of all modules may be too long for an argument.
    result = subprocess.run(
        [sys.executable, "-"], input=program, capture_output=True, text=True, timeout=30, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout.splitlines()[-1])


class Folders:
    """A project's folder, which comes first in sys.path, and one of libraries."""

    def __init__(self, tmp_path):
        self.project, self.libraries = tmp_path / "shop", tmp_path / "site-packages"
        for folder in (self.project, self.libraries):
            (folder / "__pycache__").mkdir(parents=True)  # made later, it would change the folder
        self.path = [str(self.project), str(self.libraries)]

    def library(self, name, source=""):
        """Write a library of one module; return the path of its file."""
        path = self.libraries / f"{name}.py"
        path.write_text(source)
        return str(path)

    def prepare(self, modules=None, preload=(), after=""):
        """Return a spare's report, and whether it is fit."""
        program = PREPARE.format(path=self.path, modules=modules or {}, preload=preload, after=after)
        return run(program)

    def left_out(self, name):
        """Return why a spare leaves a name of PRELOAD out."""
        report, _ = self.prepare(preload=[name])
        assert report["left_out"] == name
        return report["why"]


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path)


# What a site tells


def test_a_site_reports_the_loaded_modules_of_the_standard_library_and_of_django():
    loaded = spare.describe(["numpy"])
    assert {"django.db.models", "json", "asgiref.sync", spare.__name__} <= set(loaded.modules)
    assert loaded.modules["json"] == json.__file__
    assert (loaded.preload, loaded.obstacle) == (["numpy"], None)


def test_modules_of_the_project_and_of_other_packages_are_not_reported():
    names = spare.describe([]).modules
    assert not [name for name in names if name.startswith(("tests", "pytest", "_pytest"))]


def test_a_module_that_imports_another_comes_before_it():
    names = list(spare.describe([]).modules)
    assert names.index("django.db.models") < names.index("django.db.models.query")


def test_a_module_of_the_project_that_shadows_one_of_python_is_not_reported(folders):
    (folders.project / "calendar.py").write_text("")
    program = f"import sys\nsys.path[:0] = {folders.path!r}\nimport calendar\n"
    program += "import json\nfrom django_wspbus.development import spare\n"
    assert run(program + "print(json.dumps('calendar' in spare.describe([]).modules))") is False


def test_there_is_no_spare_where_the_project_replaces_the_logger_class():
    program = "import json, logging\nfrom django_wspbus.development import spare\n"
    program += "logging.setLoggerClass(type('Own', (logging.Logger,), {}))\n"
    obstacle = run(program + "print(json.dumps(spare.describe([]).obstacle))")
    assert obstacle == "the project replaces the logger class (logging.setLoggerClass)"


@pytest.mark.parametrize(
    ("module", "attribute", "obstacle"),
    [
        ("gevent.monkey", "saved", "gevent has patched the standard library"),
        ("eventlet.patcher", "already_patched", "eventlet has patched the standard library"),
    ],
)
def test_there_is_no_spare_where_a_library_has_patched_others(module, attribute, obstacle, monkeypatch):
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{attribute: {}}))
    assert spare.describe([]).obstacle is None
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{attribute: {"socket": {}}}))
    assert spare.describe([]).obstacle == obstacle


# What a spare imports


def test_all_modules_that_a_site_reports_are_imported_but_those_that_read_the_settings_or_define_models(
    folders,
):
    importlib.import_module("django.contrib.auth.admin")
    loaded = spare.describe([])
    after = f"report['missing'] = sorted({set(loaded.modules)!r} - set(sys.modules))"
    report, is_fit = folders.prepare(loaded.modules, after=after)
    missing = report.pop("missing")
    assert (report, is_fit) == ({"prepared": True}, True)
    assert {"django.contrib.auth.models", "django.contrib.contenttypes.models"} <= set(missing)
    assert not [name for name in missing if not name.startswith("django.contrib.")]
    assert {"django.contrib.admin.options", "django.contrib.auth.hashers"} <= set(loaded.modules) - set(
        missing
    )


@pytest.mark.parametrize(
    ("source", "report"),
    [
        ("from django.conf import settings\nsettings.DEBUG", {"prepared": True}),
        (
            "from django.conf import settings\ntry:\n    settings.DEBUG\nexcept Exception:\n    pass",
            {"obstacle": "one copes with settings that are not there"},
        ),
    ],
    ids=["fails", "copes"],
)
def test_a_library_that_reads_the_settings_is_not_imported(source, report, folders):
    modules = {"one": folders.library("one", source), "two": folders.library("two", "import one")}
    after = "import sys\nassert 'two' not in sys.modules"
    assert folders.prepare(modules, after=after)[0] == report


def test_packages_of_preload_are_imported_too(folders):
    folders.library("one", "import two")
    folders.library("two")
    after = "assert {'one', 'two'} <= set(sys.modules)"
    assert folders.prepare(preload=["one"], after=after) == [{"prepared": True}, True]


@pytest.mark.parametrize(
    "source",
    [
        "from django.conf import settings\nsettings.DEBUG",
        "from django.conf import settings\ntry:\n    settings.DEBUG\nexcept Exception:\n    pass",
        "from django.conf import settings\nsettings.configure()",
        "from django.db import models\nclass Book(models.Model):\n    pass",
    ],
)
def test_what_reads_the_settings_or_configures_them_is_left_out_although_it_copes(source, folders):
    folders.library("reads", source)
    assert folders.left_out("reads") == "it reads the settings when it is imported"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import absent", """its import fails: ModuleNotFoundError("No module named 'absent'")"""),
        ("raise SystemExit(3)", "its import fails: SystemExit(3)"),
    ],
)
def test_what_fails_is_left_out(source, why, folders):
    folders.library("fails", source)
    assert folders.left_out("fails") == why


def test_what_imports_the_project_is_left_out(folders):
    (folders.project / "prices.py").write_text("")
    folders.library("plugins", "import prices")
    assert folders.left_out("plugins") == f"it imports {folders.project}/prices.py, a file of the project"


def test_a_library_that_imports_the_projects_module_instead_of_another_librarys_leaves_no_spare(folders):
    (folders.project / "calendar.py").write_text("")
    file = folders.library("dates", "import calendar")
    report, _ = folders.prepare({"dates": file})
    assert report == {"obstacle": f"{folders.project}/calendar.py hides a module of a library"}


def test_a_library_that_the_project_has_from_elsewhere_leaves_no_spare(folders):
    folders.library("one")
    report, _ = folders.prepare({"one": "/vendor/site-packages/one.py"})
    file = "/vendor/site-packages/one.py"
    assert report == {"obstacle": f"the project has imported one from another file, {file}"}


def test_a_library_that_cannot_be_imported_first_leaves_no_spare(folders):
    file = folders.library("late", "raise RuntimeError('too early')")
    report, _ = folders.prepare({"late": file})
    assert report == {"obstacle": "late cannot be imported before the project: RuntimeError('too early')"}


# What makes it stale


@pytest.mark.parametrize(
    "change",
    [
        "os.utime(one.__file__, (1, 1))",
        "os.unlink(one.__file__)",
        "os.mkdir(os.path.join(os.path.dirname(one.__file__), 'two-1.dist-info'))",
    ],
    ids=["edited", "removed", "another installed"],
)
def test_a_change_of_the_libraries_makes_it_stale(change, folders):
    after = f"import one\nfrom django_wspbus.project import libraries\n{change}"
    (folders.libraries / "two-0.dist-info").mkdir()
    folders.library("one")
    assert folders.prepare(preload=["one"], after="") == [{"prepared": True}, True]
    assert folders.prepare(preload=["one"], after=after) == [{"prepared": True}, False]


@pytest.mark.parametrize(
    ("name", "is_fit"),
    [("one.py", False), ("one/__init__.py", False), ("one/notes.txt", True), ("two.py", True)],
)
def test_a_module_of_the_project_with_the_name_of_a_library_makes_it_stale(name, is_fit, folders):
    folders.library("one")
    path = f"path = pathlib.Path({str(folders.project / name)!r})"
    after = f"import pathlib\n{path}\npath.parent.mkdir(exist_ok=True)\npath.touch()"
    assert folders.prepare(preload=["one"], after=after) == [{"prepared": True}, is_fit]
