from __future__ import annotations

import json
import subprocess
import sys

import pytest

PREPARE = """
import json, sys
sys.path[:0] = {folder!r}
from django_wspbus.development import doubts, spare
from django_wspbus.project import libraries
libraries.LIBRARIES = ({folder!r}[0],)
{before}
warm = spare.Spare({order!r})
is_good = warm.prepare()
{after}
print(json.dumps([is_good, sorted(warm.unfit), warm.is_fit(), warm.why]))
"""


@pytest.fixture
def prepare(tmp_path):
    """Prepare a spare, in a process of its own, with modules as libraries; return [good, unfit, fit, why]."""

    def run(sources, before="", after="", changed=(), unfit=(), origin=None, signs=(), folders=()):
        modules = []
        for name, source in sources.items():
            path = tmp_path / f"{name}.py"
            path.write_text(source)
            modules.append((name, origin or str(path)))
        order = {"modules": modules, "changed": list(changed), "unfit": list(unfit)}
        order |= {"signs": dict(signs), "path": list(folders)}
        program = PREPARE.format(folder=[str(tmp_path)], order=order, before=before, after=after)
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
        )
        assert (result.returncode, result.stderr) == (0, "")
        return json.loads(result.stdout.splitlines()[-1])

    return run


def test_what_has_imported_all_and_left_no_mark_is_good(prepare):
    assert prepare({"one": "import two", "two": ""}) == [True, [], True, None]


@pytest.mark.parametrize(
    "source",
    [
        "from django.conf import settings\nsettings.DEBUG",
        "from django.conf import settings\ntry:\n    settings.DEBUG\nexcept Exception:\n    pass",
        "from django.conf import settings\nclass Reads:\n    __del__ = lambda self: settings.DEBUG\nReads()",
        "raise SystemExit",
        "import absent",
    ],
)
def test_what_reads_the_settings_or_fails_is_unfit_with_all_that_import_it(source, prepare):
    sources = {"top": "try:\n    import one\nexcept BaseException:\n    raise", "one": source, "fine": ""}
    is_good, unfit, *_ = prepare(sources)
    assert not is_good
    assert "one" in unfit
    assert "fine" not in unfit
    again = prepare(sources, unfit=unfit)
    if again[1] != unfit:
        again = prepare(sources, unfit=again[1])
    assert again[0]
    assert set(again[1]) == {"top", "one"}


def test_what_fails_wherever_it_is_imported_is_no_reason_against_what_copes_with_that(prepare):
    sources = {"top": "try:\n    import bad\nexcept ImportError:\n    pass", "bad": "import absent"}
    assert prepare(sources)[:2] == [False, ["bad"]]
    assert prepare(sources, unfit=["bad"])[:2] == [True, ["bad"]]


def test_the_modules_of_a_package_that_fails_are_unfit_although_others_have_imported_them(prepare, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "part.py").write_text("")
    (tmp_path / "package" / "__init__.py").write_text("from . import part\nimport absent")
    sources = {"top": "try:\n    import package.part\nexcept ImportError:\n    pass"}
    listed = {"package": (tmp_path / "package" / "__init__.py").read_text(), "package.part": "", **sources}
    assert prepare({**sources, "package.part": ""})[1] == ["package.part"]
    assert prepare(listed)[1] == ["package", "package.part"]


def test_who_imports_what_reads_a_variable_is_unfit_and_if_it_was_there_before_there_is_no_spare(prepare):
    sources = {"top": "import reads", "reads": "import os\nos.environ.get('SHOP')"}
    assert prepare(sources, changed=["SHOP"], unfit=["reads"])[:2] == [False, ["reads", "top"]]
    assert prepare(sources, changed=["SHOP"], unfit=["reads", "top"])[0]
    is_good, _, _, why = prepare(sources, changed=["SHOP"], unfit=["reads"], before="import reads")
    assert not is_good
    assert why == "reads may read what the project sets in the environment"


def test_a_sign_that_is_not_found_here_leaves_no_spare(prepare):
    signs = {"replaces the logger class": ["<class 'shop.Logger'>"]}
    assert prepare({"one": ""}, before="import logging", signs=signs)[::3] == [
        False,
        "the project replaces the logger class: <class 'shop.Logger'>",
    ]


def test_what_comes_in_the_place_of_a_library_makes_it_unfit(prepare, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "other.py").write_text("")
    after = f"import pathlib\npathlib.Path({str(project)!r}, 'one.py').touch()"
    code = f"spare.is_library_file = lambda file: not file.startswith({str(project)!r})"
    assert prepare({"one": ""}, before=code, folders=[str(project)]) == [True, [], True, None]
    assert prepare({"one": ""}, before=code, after=after, folders=[str(project)]) == [True, [], False, None]


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
    assert prepare({"one": ""}, after=after) == [True, [], False, None]


def test_it_keeps_the_name_of_the_settings(prepare):
    before = "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'shop'"
    after = "assert os.environ['DJANGO_SETTINGS_MODULE'] == 'shop'"
    assert prepare({"one": ""}, before=before, after=after)[0]
