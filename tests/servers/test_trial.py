"""The trial of a restart, where it does not need a site."""

from __future__ import annotations

from django_wspbus.servers.trial import Tried


def test_a_process_that_is_told_nothing_is_no_trial() -> None:
    assert Tried.take() is None
