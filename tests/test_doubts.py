from __future__ import annotations

import json
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest

from django_wspbus import doubts, libraries


def test_a_description_lists_libraries_alone(monkeypatch):
    monkeypatch.setenv("SHOP", "set by the project")
    told = doubts.describe()
    names = [name for name, _ in told["modules"]]
    assert {"django.conf", "django_wspbus.doubts", "json"} <= set(names)
    assert not [each for each in names if each.startswith("tests")]
    assert "SHOP" in told["changed"]
    assert told["path"] == sys.path
    json.dumps(told)


def test_those_that_import_others_come_before_these():
    names = [name for name, _ in doubts.describe()["modules"]]
    assert names.index("django.db.models") < names.index("django.db.models.query")


def described(source):
    """Return what a process tells that has run a project's code."""
    program = f"import json\nfrom django_wspbus import doubts\n{source}\nprint(json.dumps(doubts.describe()))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("module", "attribute", "told"),
    [
        ("gevent.monkey", "saved", "gevent has changed other libraries"),
        ("eventlet.patcher", "already_patched", "eventlet has changed other libraries"),
    ],
)
def test_a_library_that_has_patched_others_leaves_no_spare(module, attribute, told, monkeypatch):
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{attribute: {}}))
    assert doubts.describe()["doubt"] is None
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{attribute: {"socket": {}}}))
    assert doubts.describe()["doubt"] == told


def test_a_function_of_the_project_in_a_library_leaves_no_spare(tmp_path):
    (tmp_path / "patches.py").write_text("import json\n\n\ndef dumps(*args):\n    return '{}'\n")
    source = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport patches\n"
    assert described(source)["doubt"] is None
    source += "import textwrap\ntextwrap.dedent = patches.dumps"
    assert described(source)["doubt"] == "the project has changed textwrap.dedent"


def test_a_variable_that_native_code_may_read_leaves_no_spare():
    told = described("import os\nos.environ['OPENBLAS_NUM_THREADS'] = '2'")
    assert told["doubt"] == "the project sets OPENBLAS_NUM_THREADS"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import logging\nlogging.setLoggerClass(type('L', (logging.Logger,), {}))", "a class of loggers"),
        ("import warnings\nwarnings.simplefilter('error')", "a filter of warnings"),
        ("import sys, json\nsys.modules['simplejson'] = json", "a module of another name"),
        (
            "import sys\nsys.meta_path.append(type('Finder', (), {'find_spec': None})())",
            "a finder of modules",
        ),
    ],
)
def test_what_imports_may_go_by_is_among_the_signs(source, what):
    before, after = described("import logging")["signs"], described(source)["signs"]
    assert set(after[what]) - set(before[what])
    assert [each for each in after if each != what and set(after[each]) - set(before[each])] == []


def test_files_of_the_project_are_neither_of_libraries_nor_ours():
    files = libraries.project_files()
    assert __file__ in files
    assert not [each for each in files if "site-packages" in each or "/django_wspbus/" in each]
    assert not libraries.is_project_file("<string>")
    assert not libraries.is_project_file(logging.__file__)
