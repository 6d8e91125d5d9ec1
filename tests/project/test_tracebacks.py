from __future__ import annotations

import importlib
import sys

import pytest

from django_wspbus.project.tracebacks import explain, formatted, place_of, shown, summary


@pytest.fixture
def error_of(tmp_path, monkeypatch):
    """Return what has Django import a module of a project, and returns the error."""

    def import_(source, **others):
        for name, text in {"views": source, **others}.items():
            (tmp_path / f"explained_{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        from django.utils.module_loading import import_string

        try:
            import_string("explained_views.index")
        except BaseException as error:
            return error.with_traceback(error.__traceback__.tb_next)
        finally:
            for name in [name for name in sys.modules if name.startswith("explained_")]:
                del sys.modules[name]
            importlib.invalidate_caches()

    monkeypatch.chdir(tmp_path)
    return import_


def test_the_line_that_failed_comes_first_and_the_way_through_django_not_at_all(error_of):
    error = error_of("\n\ndef f():\n    return 1 / 0\n\nf()\n")
    lines = explain(error).splitlines()
    assert lines[:3] == [
        "explained_views.py, line 4: ZeroDivisionError: division by zero",
        "",
        "Traceback (most recent call last):",
    ]
    assert 'explained_views.py", line 6, in <module>' in lines[3]
    assert "/django/" not in explain(error)


def test_what_the_project_calls_of_a_library_stays(error_of):
    error = error_of("import json\njson.loads('{')\n")
    assert place_of(error) == "explained_views.py, line 2"
    assert "json/decoder.py" in formatted(error)


def test_the_place_of_a_syntax_error_is_in_the_file_that_has_it(error_of):
    error = error_of("import explained_forms\n", forms="\n\nx = (\n")
    assert explain(error).startswith("explained_forms.py, line 3: SyntaxError: '(' was never closed\n")
    assert 'explained_views.py", line 1, in <module>' in formatted(error)
    direct = error_of("x = (\n")
    assert explain(direct).splitlines()[3] == f'  File "{direct.filename}", line 1'


def test_an_error_that_has_not_met_the_project_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module("no_such_module_anywhere")
    error = caught.value
    error = error.with_traceback(error.__traceback__.tb_next)  # without that of this test
    assert place_of(error) is None
    assert "importlib/__init__.py" in formatted(error)
    assert explain(error).splitlines()[0] == f"ModuleNotFoundError: {error}"


def test_causes_are_shortened_as_well(error_of):
    error = error_of("try:\n    import absent\nexcept ImportError as e:\n    raise ValueError('no') from e\n")
    assert place_of(error) == "explained_views.py, line 4"
    assert "/django/" not in formatted(error)
    assert "direct cause" in formatted(error)


def test_notes_and_further_lines_are_not_in_the_summary():
    error = ValueError("one\ntwo")
    error.add_note("a note")
    assert summary(error) == "ValueError: one"
    assert summary(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_a_path_is_shown_as_one_says_it_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(str(tmp_path / "shop" / "views.py")) == "shop/views.py"
    assert shown(str(tmp_path.parent / "views.py")) == str(tmp_path.parent / "views.py")
