"""What the page of an error shows."""

from __future__ import annotations

import random
import re
import traceback
from html import unescape
from html.parser import HTMLParser

import pytest

from django_wspbus.development.error_page.html import page, page_without_details, reloading
from django_wspbus.development.error_page.place import find_place

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that all that is opened is closed, and keeps the texts by class."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert not {"src", "href"} & dict(attributes).keys()
        if tag not in VOID:
            self.open.append(dict(attributes).get("class") or tag)
            self.texts.setdefault(self.open[-1], []).append("")

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        for name in self.open:
            self.texts[name][-1] += data


def shown(title, text, root="/nowhere"):
    return Page(page(title, text, str(root), "", "/again")).texts


@pytest.fixture
def project(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "views.py").write_text(
        "".join(f"line{number} = {number}\n" for number in range(1, 20)) + "def view(:\n"
    )
    return tmp_path


def raised_by(path, source=None):
    """Return the traceback of a file that is run."""
    try:
        exec(compile(source or path.read_text(), str(path), "exec"), {})
    except Exception as error:
        text = traceback.format_exc()
        return f"{type(error).__name__}: {error}", text
    raise AssertionError("nothing was raised")


def test_the_place_of_a_syntax_error_is_shown_with_the_lines_around_and_a_caret(project):
    path = project / "shop" / "views.py"
    texts = shown(*raised_by(path), project)
    assert texts["kind"] == ["SyntaxError"]
    assert texts["place"] == ["shop/views.py, line 20"]
    assert texts["failed"] == ["def view(:"]
    assert texts["failed caret"] == ["         ^"]
    assert texts["source"][0].startswith("line15 = 15line16 = 16")


def test_the_caret_stands_below_an_indented_line(project):
    path = project / "shop" / "views.py"
    path.write_text("if True:\n\tfirst, second = 1, 0; first / second\n")
    texts = shown(*raised_by(path), project)
    assert texts["failed caret"] == ["\t" + " " * 22 + "~~~~~~^~~~~~~~"]


def test_there_is_no_caret_below_a_line_that_is_another_by_now(project):
    path = project / "shop" / "views.py"
    title, text = raised_by(path)
    path.write_text("\n" * 19 + "def view():\n")
    texts = shown(title, text, project)
    assert texts["failed"] == ["def view():"]
    assert "failed caret" not in texts


def test_an_error_in_a_library_is_shown_where_the_project_called_it(project):
    path = project / "shop" / "views.py"
    path.write_text("import json\n\njson.loads('nothing')\n")
    title, text = raised_by(path)
    assert shown(title, text, project)["failed"] == ["json.loads('nothing')"]
    text = text.replace("views.py", "manage.py")  # which calls all there is
    assert find_place(text, str(project)).path.endswith("decoder.py")


def test_a_place_whose_file_is_not_to_be_read_is_named(project):
    text = 'Traceback (most recent call last):\n  File "/absent/a\0.py", line 3, in f\n    g()\nE: x\n'
    texts = shown("E: x", text, project)
    assert texts["place"] == ["/absent/a\0.py, line 3"]
    assert "source" not in texts
    text = f'  File "{project}/shop/views.py", line 99, in f\n'
    assert "source" not in shown("E: x", text, project)


def test_all_of_several_exceptions_is_shown(project):
    path = project / "shop" / "views.py"
    path.write_text("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('<b>') from e\n")
    title, text = raised_by(path)
    texts = shown(title, text, project)
    assert texts["text"] == [text.strip("\n")]
    assert "direct cause" in text
    assert texts["h1"] == ["'<b>'"]
    assert texts["place"] == ["shop/views.py, line 4"]
    assert any("views.py" in each for each in texts["own"])


def test_words_that_are_no_traceback_are_shown_as_they_are_set():
    text = "System check identified some issues:\n\nERRORS:\n?: <one>\n\tHINT: two\n"
    texts = shown("SystemCheckError: System check identified some issues", text)
    assert texts["prose"] == [text.strip()]
    assert "h2" not in texts


def test_words_that_the_title_says_are_not_said_twice():
    texts = shown("CommandError: No such option.", "CommandError: No such option.\n")
    assert texts["h1"] == ["No such option."]
    assert "prose" not in texts
    assert "prose" not in shown("Nothing works", "")
    assert shown("Nothing works", "")["h1"] == ["Nothing works"]


def test_a_traceback_without_files_is_one():
    text = 'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\nE: x\n'
    assert shown("E: x", text)["h2"] == ["Traceback"]


def test_what_an_error_quotes_is_escaped():
    source = page('E: "<script>alert(1)</script>', 'File "<b>"\n</pre><script>', "/", "", "/again")
    assert source.count("<script>") == 1  # the page's own
    assert "&lt;script&gt;" in source


def test_without_scripts_the_page_is_loaded_anew_every_two_seconds():
    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in page(
        "E: x", "", "/", "", "/again"
    )
    assert "A &amp; B" in page_without_details("A & B", "")


@pytest.mark.parametrize("is_of_get", [True, False])
def test_the_script_knows_what_the_page_came_of(is_of_get):
    script = reloading("/wait", "X-Header", is_of_get)
    assert f"isOfGet = {str(is_of_get).lower()};" in script
    assert unescape(script) == script
    assert not re.search(r"[^$]\$\w", script)


def test_words_of_any_kind_make_a_page():
    source = random.Random(1)
    pieces = [
        '  File "',
        "/etc/passwd",
        '", line ',
        "3",
        "9" * 5000,
        ", in f",
        "\n",
        "    x",
        "  ^",
        "\0",
        "é",
        "<b>",
    ]
    pages = {
        page("".join(source.choices(pieces, k=3)), "".join(source.choices(pieces, k=12)), "/", "", "/again")
        for _ in range(500)
    }
    assert len(pages) == 500


def test_the_heading_of_a_system_check_names_the_object_and_the_id():
    title = "shop.Book: (models.E015) 'ordering' refers to nothing."
    assert shown(title, title)["h1"] == [title]
