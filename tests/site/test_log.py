"""Where the log of the bus goes."""

from __future__ import annotations

import logging
import os

import pytest

from django_wspbus.site.log import is_logged, show


@pytest.fixture
def logger(monkeypatch):
    """The logger of the bus, without handlers and with a level that shows nothing."""
    logger = logging.getLogger("django_wspbus")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.ERROR)
    logger.manager._clear_cache()
    yield logger
    logger.manager._clear_cache()


def test_a_message_that_logging_does_not_show_is_written_to_stderr_with_the_pid(logger, capsys):
    show(logging.INFO, "Bus STARTED")
    assert capsys.readouterr().err.endswith(f" [{os.getpid()}] Bus STARTED\n")


def test_a_message_below_the_level_is_not_written(logger, capsys):
    show(logging.INFO, "a detail", logging.DEBUG)
    assert capsys.readouterr().err == ""


def test_a_message_that_logging_shows_is_not_written_twice(logger, capsys):
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.NullHandler())
    assert is_logged(logging.INFO)
    show(logging.INFO, "Bus STARTED")
    assert capsys.readouterr().err == ""
