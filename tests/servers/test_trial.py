"""The trial of a restart, where it does not need a site."""

from __future__ import annotations

import os

import pytest

from django_wspbus.servers.trial import Tried, scratch_file


def test_without_files_in_memory_a_temporary_one_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with scratch_file() as file:
        file.write(b"a report")
        file.seek(0)
        assert file.read() == b"a report"


def test_a_process_that_is_told_nothing_is_no_trial() -> None:
    assert Tried.take() is None
