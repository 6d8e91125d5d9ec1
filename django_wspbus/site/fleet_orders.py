"""The orders that this site gets from a deploy of the fleet: it carries them out as those of a client."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..control.protocol import Error, Malformed, Reply, Request, Result, Step, decode_reply
from ..fleet.deploys import ORDER, OUTCOME, STEP
from ..fleet.envelope import Message
from ..fleet.member import FleetMember
from ..wspbus import Bus
from .following import reason_of

LONGEST_TEXT = 20_000
"""Characters of the reason of a failure: the end of a traceback says most."""

MOST_KEPT = 20
"""Orders whose outcome is remembered, as its message may be lost."""

REFUSALS = {
    "old": "A later deploy has given orders already.",
    "unknown": "This site does not know the order {action!r}: its version of django-wspbus is another one.",
    "development": "The site runs in development: a restart of it belongs to its own terminal.",
}


@dataclass(slots=True)
class Received:
    """An order, and what has become of it. ``began``: a time of `time.monotonic`."""

    deploy: str
    coordinator: str
    """The identifier of the member that gave it."""
    action: str
    began: float
    step: str = ""
    outcome: list[Any] | None = None
    """[whether it has succeeded, text]"""


class FleetOrders:
    """Answers each message with an order by the last step, or by the outcome.

    ``begin(request, connection)`` answers a request over a socket; ``restarts``: whether the site restarts by
    itself, as it does outside of development; ``handed_over``: the result of `hand_over` in the program
    before.
    """

    def __init__(
        self,
        bus: Bus,
        member: FleetMember,
        begin: Callable[[Request, socket.socket], object],
        *,
        restarts: bool,
        handed_over: Mapping[str, Any],
    ) -> None:
        self._bus = bus
        self._member = member
        self._begin_request = begin
        self._restarts = restarts
        self._token: int = handed_over.get("token", 0)
        """The token of the last deploy: orders of an earlier one come too late."""
        self._orders = {each["deploy"]: Received(**each) for each in handed_over.get("orders", ())}
        member.handlers[ORDER] = [self._note]

    def _note(self, message: Message) -> None:
        """Note an order, in the thread that receives."""
        action, arguments, token = message.args
        order = self._orders.get(message.subject)
        if order is None:
            order = Received(message.subject, message.epoch, action, time.monotonic())
            self._keep(order)
            self._begin(order, arguments, token)
        self._answer(order)

    def _keep(self, order: Received) -> None:
        while len(self._orders) >= MOST_KEPT:
            del self._orders[next(iter(self._orders))]
        self._orders[order.deploy] = order

    def _begin(self, order: Received, arguments: dict[str, Any], token: int) -> None:
        if (reason := self._refusal(order.action, token)) is not None:
            order.outcome = [False, REFUSALS[reason].format(action=order.action[:200])]
            return
        self._token = token
        self._bus.log(f"A deploy of the fleet has ordered: {' '.join([order.action, *arguments.values()])}")
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=self._follow, args=(order, ours), name="Fleet order", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            order.outcome = [False, f"The site cannot carry out the order: {error}."]
            ours.close()
            theirs.close()
            return
        self._begin_request(Request(order.action, arguments), theirs)

    def _refusal(self, action: str, token: int) -> str | None:
        if token < self._token:
            return "old"
        if action not in ("graceful", "restart"):
            return "unknown"
        return "development" if action == "restart" and not self._restarts else None

    def _follow(self, order: Received, connection: socket.socket) -> None:
        """Pass on what the action replies. The next program of a restart answers in its place."""
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                try:
                    self._take(order, decode_reply(line))
                except Malformed as error:
                    order.outcome = [False, str(error)]
                self._answer(order)
        if order.outcome is None:  # else the coordinator would wait for ever, as each order gets an answer
            order.outcome = [False, "The site has not said what came of it: see its log."]
            self._answer(order)

    def _take(self, order: Received, reply: Reply) -> None:
        match reply:
            case Step(text):
                order.step = text
            case Error(text):
                order.outcome = [False, text[-LONGEST_TEXT:]]
            case Result(value):
                order.outcome = [True, str((value or {}).get("message", "Done."))]

    def _answer(self, order: Received) -> None:
        kind, args = (STEP, [order.step]) if order.outcome is None else (OUTCOME, order.outcome)
        if (relay := self._member.relay) is not None:
            relay.send(order.coordinator, kind, args, order.deploy)

    # Over a restart

    def hand_over(self) -> dict[str, Any]:
        """Return what the next program needs to answer the orders."""
        orders = [
            {
                "deploy": each.deploy,
                "coordinator": each.coordinator,
                "action": each.action,
                "began": each.began,
                "step": each.step,
                "outcome": each.outcome,
            }
            for each in self._orders.values()
        ]
        return {"token": self._token, "orders": orders}

    def report_start(self) -> None:
        """Answer the orders that the program before has begun: a restart has carried out each of them."""
        failure = self._bus.failed_start
        for order in [each for each in self._orders.values() if each.outcome is None]:
            if failure:
                order.outcome = [False, f"It serves, but a start listener failed. {reason_of(failure)}"]
            else:
                order.outcome = [True, f"Restarted in {time.monotonic() - order.began:.2f} s."]
            self._answer(order)
