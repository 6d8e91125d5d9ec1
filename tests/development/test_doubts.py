from __future__ import annotations

import json
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest

from django_wspbus.development import doubts
from django_wspbus.project import libraries


def test_a_description_lists_libraries_alone(monkeypatch):
    monkeypatch.setenv("SHOP", "set by the project")
    told = doubts.describe()
    names = [name for name, _ in told["modules"]]
    assert {"django.conf", "django_wspbus.development.doubts", "json"} <= set(names)
    assert not [each for each in names if each.startswith("tests")]
    assert "SHOP" in told["changed"]
    assert told["path"] == sys.path
    json.dumps(told)


def test_those_that_import_others_come_before_these():
    names = [name for name, _ in doubts.describe()["modules"]]
    assert names.index("django.db.models") < names.index("django.db.models.query")


def described(source):
    """Return what a process tells that has run a project's code."""
    report = "print(json.dumps(doubts.describe()))"
    program = f"import json\nfrom django_wspbus.development import doubts\n{source}\n{report}"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("module", "attribute", "told"),
    [
        ("gevent.monkey", "saved", "gevent replaces parts of other libraries"),
        ("eventlet.patcher", "already_patched", "eventlet replaces parts of other libraries"),
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
    assert described(source)["doubt"] == "the project replaces textwrap.dedent"


def test_a_library_that_imports_from_a_folder_without_metadata_is_not_called_patched(tmp_path):
    (tmp_path / "vendored.py").write_text("def get():\n    pass\n")
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "client.py").write_text("from vendored import get\n")
    source = f"import sys\nsys.path[:0] = [{str(tmp_path)!r}, {str(folder)!r}]\nimport client\n"
    assert described(source)["doubt"] is None


@pytest.mark.parametrize(
    ("folder", "is_library"),
    [
        ("lib/requests-1.dist-info/METADATA", True),  # pip install --target
        ("lib/shop.egg-info/PKG-INFO", False),  # a checkout, installed in place
        ("lib/python3.9/site-packages/x.py", True),  # of another environment
        ("lib/python3/dist-packages/x.py", True),  # Debian's
        ("lib/shop/x.py", False),
    ],
)
def test_a_folder_on_the_path_is_of_libraries_if_pip_has_installed_into_it(
    tmp_path, monkeypatch, folder, is_library
):
    file = tmp_path / folder
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.syspath_prepend(tmp_path / "lib")
    path = file.with_name("x.py") if "site" in folder or "dist-p" in folder else tmp_path / "lib" / "x.py"
    assert libraries.is_library_file(str(path)) is is_library


def test_the_folder_of_the_project_is_not_of_libraries_whatever_is_installed_into_it(tmp_path, monkeypatch):
    (tmp_path / "requests-1.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert libraries.is_library_file(str(tmp_path / "x.py"))
    monkeypatch.chdir(tmp_path)
    assert not libraries.is_library_file(str(tmp_path / "x.py"))
    assert libraries.is_library_file(str(tmp_path / "wheels" / "requests.whl" / "requests.py"))


def test_a_variable_that_native_code_may_read_leaves_no_spare():
    told = described("import os\nos.environ['OPENBLAS_NUM_THREADS'] = '2'")
    assert told["doubt"] == "the project sets OPENBLAS_NUM_THREADS"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (
            "import logging\nlogging.setLoggerClass(type('L', (logging.Logger,), {}))",
            "replaces the logger class",
        ),
        ("import warnings\nwarnings.simplefilter('error')", "adds a filter of warnings"),
        ("import sys, json\nsys.modules['simplejson'] = json", "loads a module under another name"),
        (
            "import sys\nsys.meta_path.append(type('Finder', (), {'find_spec': None})())",
            "adds an import hook",
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
