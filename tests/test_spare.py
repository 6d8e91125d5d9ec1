from __future__ import annotations

import json
import subprocess
import sys

import pytest

from django_wspbus import spare

PREPARE = """
import json, sys
sys.path[:0] = {folder!r}
from django_wspbus import spare
spare.LIBRARIES = ({folder!r}[0],)
{before}
warm = spare.Spare({order!r})
is_good = warm.prepare()
{after}
print(json.dumps([is_good, sorted(warm.unfit), warm.is_fit()]))
"""


@pytest.fixture
def prepare(tmp_path):
    """Prepare a spare, in a process of its own, with modules as libraries; return [good, unfit, fit]."""

    def run(sources, before="", after="", changed=(), unfit=(), origin=None):
        modules = []
        for name, source in sources.items():
            path = tmp_path / f"{name}.py"
            path.write_text(source)
            modules.append((name, origin or str(path)))
        order = {"modules": modules, "changed": list(changed), "unfit": list(unfit)}
        program = PREPARE.format(folder=[str(tmp_path)], order=order, before=before, after=after)
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return run


def test_what_has_imported_all_and_left_no_mark_is_good(prepare):
    assert prepare({"one": "import two", "two": ""}) == [True, [], True]


@pytest.mark.parametrize(
    "source",
    [
        "from django.conf import settings\nsettings.DEBUG",
        "from django.conf import settings\ntry:\n    settings.DEBUG\nexcept Exception:\n    pass",
        "raise SystemExit",
        "import absent",
    ],
)
def test_what_reads_the_settings_or_fails_is_unfit_with_all_that_import_it(source, prepare):
    sources = {"top": "try:\n    import one\nexcept BaseException:\n    raise", "one": source, "fine": ""}
    is_good, unfit, _ = prepare(sources)
    assert not is_good
    assert "one" in unfit
    assert "fine" not in unfit
    again = prepare(sources, unfit=unfit)
    if again[1] != unfit:
        again = prepare(sources, unfit=again[1])
    assert again[0]
    assert set(again[1]) == {"top", "one"}


def test_an_unfit_module_is_imported_by_nobody(prepare):
    sources = {"top": "try:\n    import bad\nexcept ImportError:\n    pass", "bad": "", "other": "import bad"}
    assert prepare(sources, unfit=["bad"])[:2] == [False, ["bad", "other", "top"]]


def test_what_reads_a_variable_that_the_project_has_set_is_unfit(prepare):
    sources = {"reads": "import os\nos.environ.get('SHOP')", "names": "NAME = 'SHOP'", "no": "import os"}
    assert prepare(sources, changed=["SHOP"])[:2] == [False, ["reads"]]


def test_another_module_of_that_name_is_unfit(prepare):
    assert prepare({"one": ""}, origin="/elsewhere/one.py")[:2] == [False, ["one"]]


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['A'] = 'b'",
        "import os\nos.chdir('/')",
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
    ],
)
def test_a_mark_that_is_left_makes_it_unfit(source, prepare):
    assert prepare({"one": source}, before="import os; os.chdir('/tmp')")[0] is False


@pytest.mark.parametrize("change", ["open(path, 'a').write('#')", "os.unlink(path)"])
def test_what_changes_later_makes_it_unfit(change, prepare):
    after = f"import one, os\npath = one.__file__\n{change}"
    assert prepare({"one": ""}, after=after) == [True, [], False]


def test_it_keeps_the_name_of_the_settings(prepare):
    before = "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop'"
    after = "assert os.environ['DJANGO_SETTINGS_MODULE'] == 'shop'"
    assert prepare({"one": ""}, before=before, after=after)[0]


def test_a_description_lists_libraries_alone(monkeypatch):
    monkeypatch.setenv("SHOP", "set by the project")
    told = spare.describe()
    names = [name for name, _ in told["modules"]]
    assert "django.conf" in names
    assert not [each for each in names if each.startswith(("django.contrib", "django_wspbus", "tests"))]
    assert "SHOP" in told["changed"]
    assert told["doubt"] is None
    monkeypatch.setitem(sys.modules, "gevent", sys)
    assert spare.describe()["doubt"] == "gevent changes other libraries"


def test_files_of_the_project_are_neither_of_libraries_nor_ours():
    files = spare.project_files()
    assert __file__ in files
    assert not [each for each in files if "site-packages" in each or "/django_wspbus/" in each]
    assert not spare.is_project_file("<string>")
