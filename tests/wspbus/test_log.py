from __future__ import annotations

import sys

import pytest


@pytest.fixture
def lines(bus):
    lines = []
    bus.subscribe("log", lambda msg, level: lines.append((msg, level)))
    return lines


def test_a_message_is_published_with_its_level(bus, lines):
    bus.log("O mah darlin'")
    bus.log("Clementine", level=30)
    bus.log()
    assert lines == [("O mah darlin'", 20), ("Clementine", 30), ("", 20)]


def test_the_traceback_of_what_is_handled_is_appended_on_request(bus, lines):
    try:
        raise NameError("lost and gone")
    except NameError:
        bus.log("forever", traceback=True, level=40)
    ((message, level),) = lines
    assert message.startswith("forever\nTraceback (most recent call last):\n")
    assert message.endswith("NameError: lost and gone\n")
    assert level == 40


def test_without_a_listener_nothing_is_said(bus, capfd):
    bus.log("without a listener", traceback=True)
    assert capfd.readouterr() == ("", "")


def test_the_error_of_a_listener_is_written_to_stderr_with_the_message(bus, lines, capfd):
    bus.subscribe("log", lambda msg, level: 1 / 0, 10)
    bus.log("still said")
    assert lines == [("still said", 20)]
    printed = capfd.readouterr().err
    assert printed.startswith("still said\nA log listener failed:\nTraceback")
    assert printed.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("broken", ["none", "closed"])
def test_a_broken_stderr_breaks_nothing(bus, lines, monkeypatch, capfd, broken, tmp_path):
    with (tmp_path / "stderr").open("w") as stream:
        pass
    bus.subscribe("log", lambda msg, level: 1 / 0)
    monkeypatch.setattr(sys, "stderr", None if broken == "none" else stream)
    bus.log("still said")
    assert lines == [("still said", 20)]
    assert capfd.readouterr() == ("", "")
