"""Values as text, and how blocks are shown: nothing from outside reaches the terminal as it is."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_wspbus.command.blocks import Line, Table, Text
from django_wspbus.command.plain import Plain
from django_wspbus.command.pretty import Pretty
from django_wspbus.command.text import LIMIT, as_duration, as_json, as_size, cut, escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/café/日本", "/café/日本"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\x9b31m", r"\x9b31m"),
        ("\udcff", r"\udcff"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert escape(text) == shown


def test_a_long_value_is_cut():
    assert cut("x" * LIMIT) == "x" * LIMIT
    assert cut("x" * (LIMIT + 1)) == "x" * (LIMIT - 3) + "..."
    assert len(cut("\x1b" * LIMIT)) == LIMIT
    assert as_json(["x" * 1000]) == '["' + "x" * (LIMIT - 5) + "..."


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (-0.001, "0.00 s"),
        (0.844, "0.84 s"),
        (1.92, "1.9 s"),
        (45.2, "45 s"),
        (119, "119 s"),
        (120, "2 min"),
        (125, "2 min 5 s"),
        (7200, "2 h"),
        (3 * 86400 + 4 * 3600 + 59, "3 d 4 h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds, shown):
    assert as_duration(seconds) == shown


@pytest.mark.parametrize(("size", "shown"), [(None, "-"), (43_000_000, "43 MB"), (1_500_000_000, "1.5 GB")])
def test_a_size_is_in_mb_or_gb(size, shown):
    assert as_size(size) == shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


texts = st.text(st.characters() | st.sampled_from("\x1b\x9b\n\r\t\u202e[]")) | st.just("[bold]x[/] :smile:")
blocks = st.one_of(
    texts.map(Line),
    texts.map(Text),
    st.builds(
        lambda rows: Table(["A", "B"], rows, right=("B",), bad=frozenset({0})),
        st.lists(st.tuples(texts, texts)),
    ),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(blocks))
def test_plain_output_has_printable_characters_and_line_ends_only(shown):
    stream = io.StringIO()
    Plain(stream).show(shown)
    assert escape(stream.getvalue().replace("\n", "")) == stream.getvalue().replace("\n", "")


@settings(deadline=None, max_examples=50)
@given(st.lists(blocks))
def test_output_on_a_terminal_without_colours_has_printable_characters_and_line_ends_only(shown):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "dumb")
        stream = Terminal()
        Pretty(stream).show(shown)
    assert escape(stream.getvalue().replace("\n", "")) == stream.getvalue().replace("\n", "")


def test_rich_finds_no_markup_in_values(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    Pretty(stream).show(
        [Line("[bold]:smile: /path/1"), Table(["Path"], [["[red]x[/red]"]]), Text("[blink]y")]
    )
    assert "[bold]:smile: /path/1" in stream.getvalue()
    assert "[red]x[/red]" in stream.getvalue()
    assert "[blink]y" in stream.getvalue()


def test_the_columns_of_a_table_are_aligned_and_nothing_is_at_the_end_of_a_line():
    stream = io.StringIO()
    Plain(stream).show([Table(["Process", "Path"], [["7", "/"], ["4105", "/long/path"]], right=("Process",))])
    assert stream.getvalue() == "Process  Path\n      7  /\n   4105  /long/path\n"


def test_a_further_line_of_a_text_cannot_pass_for_a_line_of_the_report():
    stream = io.StringIO()
    Plain(stream).show([Text("Traceback\n  File\nWell: ready\rWell: ready\n")])
    assert stream.getvalue() == "    Traceback\n      File\n    Well: ready\\rWell: ready\n"
