"""The orders of deploys that a site gets; a coordinator that the test plays, and no fleet."""

from __future__ import annotations

import socket
import threading
from typing import Any, cast

import pytest

from django_wspbus.control.protocol import Error, Reply, Request, Result, Step, encode_reply
from django_wspbus.fleet.deploys import ORDER, OUTCOME, STEP
from django_wspbus.fleet.envelope import Message
from django_wspbus.fleet.member import FleetMember
from django_wspbus.process.bus import ProcessBus
from django_wspbus.site.fleet_orders import FleetOrders

from ..processes import DEADLINE

RELOADED = Result({"message": "Reloaded."})


class Member:
    """The part of a `FleetMember` that takes orders. ``sent``: its answers."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}
        self.relay = self
        self.sent: list[tuple[Any, ...]] = []
        self._changed = threading.Condition()

    def send(self, target: str, kind: str, args: list[Any], subject: str) -> None:
        with self._changed:
            self.sent.append((target, kind, args, subject))
            self._changed.notify()

    def expect(self, *answers: tuple[str, list[Any]], deploy: str = "d1") -> None:
        """Wait until the answers to the coordinator are these."""
        wanted = [("coordinator", kind, args, deploy) for kind, args in answers]
        with self._changed:
            assert self._changed.wait_for(lambda: self.sent == wanted, DEADLINE), self.sent
            self.sent = []


class Site:
    """Answers a request when the test says what."""

    def __init__(self, *, restarts: bool = True, handed_over: dict[str, Any] | None = None) -> None:
        self.requests: list[Request] = []
        self.connections: list[socket.socket] = []
        self.member = Member()
        self.orders = FleetOrders(
            ProcessBus(),
            cast("FleetMember", self.member),
            self._begin,
            restarts=restarts,
            handed_over=handed_over or {},
        )

    def _begin(self, request: Request, connection: socket.socket) -> None:
        self.requests.append(request)
        self.connections.append(connection)

    def reply(self, *replies: Reply) -> None:
        connection = self.connections.pop()
        with connection:
            for reply in replies:
                connection.sendall(encode_reply(reply))

    def order(self, action: str = "graceful", token: int = 7, deploy: str = "d1") -> None:
        (note,) = self.member.handlers[ORDER]
        args = [action, {}, token]
        note(Message("shop", ORDER, "web1", 1, "coordinator", 0, 0.0, deploy, "n", "this", "", args))


def test_each_step_and_the_outcome_are_sent_and_the_outcome_again_without_another_reload() -> None:
    site = Site()
    site.order()
    site.member.expect((STEP, [""]))
    site.reply(Step("booting"), RELOADED)
    site.member.expect((STEP, ["booting"]), (OUTCOME, [True, "Reloaded."]))
    site.order()
    site.member.expect((OUTCOME, [True, "Reloaded."]))
    assert site.requests == [Request("graceful", {})]


def test_the_end_of_a_long_traceback_is_sent() -> None:
    site = Site()
    site.order()
    site.reply(Error("x" * 100_000 + "\nValueError: 7"))
    with site.member._changed:
        assert site.member._changed.wait_for(lambda: len(site.member.sent) == 2, DEADLINE)
    _, kind, (succeeded, text), _ = site.member.sent[1]
    assert (kind, succeeded, len(text)) == (OUTCOME, False, 20_000)
    assert text.endswith("\nValueError: 7")


def test_an_action_that_ends_without_a_word_has_failed() -> None:
    site = Site()
    site.order()
    site.member.expect((STEP, [""]))
    site.reply(Step("booting"))
    site.member.expect(
        (STEP, ["booting"]), (OUTCOME, [False, "The site has not said what came of it: see its log."])
    )


def test_an_order_of_an_earlier_deploy_is_refused() -> None:
    site = Site()
    site.order(token=7)
    site.member.expect((STEP, [""]))
    site.reply(RELOADED)
    site.member.expect((OUTCOME, [True, "Reloaded."]))
    site.order(token=6, deploy="d0")
    site.member.expect((OUTCOME, [False, "A later deploy has given orders already."]), deploy="d0")
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    ("action", "reason"), [("restart", "runs in development"), ("stop", "does not know")]
)
def test_a_site_in_development_is_not_restarted_and_no_other_action_is_an_order(
    action: str, reason: str
) -> None:
    site = Site(restarts=False)
    site.order(action)
    ((_, kind, (succeeded, text), _),) = site.member.sent
    assert (kind, succeeded, site.requests) == (OUTCOME, False, [])
    assert reason in text


def test_the_next_program_answers_that_the_site_has_restarted() -> None:
    before = Site()
    before.order("restart")
    site = Site(handed_over=before.orders.hand_over())
    site.order("restart")
    site.member.expect((STEP, [""]))
    site.orders.report_start()
    ((_, kind, (succeeded, text), deploy),) = site.member.sent
    assert (kind, succeeded, deploy) == (OUTCOME, True, "d1")
    assert text.startswith("Restarted in ")
    assert site.requests == []
