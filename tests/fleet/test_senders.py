"""The numbers of senders, and how long they are remembered."""

from __future__ import annotations

import pytest

from django_wspbus.fleet import senders
from django_wspbus.fleet.envelope import Message, Rejected
from django_wspbus.fleet.senders import Senders

NOW = 1_000_000.0


def message(sender: str, number: int) -> Message:
    return Message("shop", "message", "web1", 7, sender, number, NOW, "", "", "", "shop.changed", [])


def test_a_sender_that_an_earlier_program_knew_shows_its_gap() -> None:
    found = Senders({"one": 5}, {})
    assert found.check(message("one", 8), NOW) == 2


def test_a_sender_that_an_earlier_program_knew_is_not_remembered_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(senders, "SENDER_REMEMBERED", 0.0)
    found = Senders({"gone": 5}, {})
    found.check(message("one", 1), NOW)
    assert found.known == {"one": 1}


def without_number(nonce: str) -> Message:
    return Message("shop", "message", "web1", 7, "one", 0, NOW, "", nonce, "", "shop.changed", [])


def test_of_the_messages_without_a_number_the_latest_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "MOST_HANDED_OVER", 3)
    found = Senders({}, {"old": NOW - 300})
    for nonce in ("a", "b"):
        found.check(without_number(nonce), NOW)
    assert found.nonces == {"a": NOW, "b": NOW}
    for nonce in ("c", "d"):
        found.check(without_number(nonce), NOW + 1)
    assert found.nonces == {"b": NOW, "c": NOW + 1, "d": NOW + 1}
    following = Senders({}, found.nonces)
    with pytest.raises(Rejected, match="replayed"):
        following.check(without_number("d"), NOW + 2)
