"""A deploy as its coordinator sees it, and its turn; hosts that the tests play, over an engine in memory."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_wspbus.fleet.base import Member
from django_wspbus.fleet.commands import LocalCommands
from django_wspbus.fleet.deploys import ORDER, OUTCOME, STEP, Deploy, Limits, Stopped
from django_wspbus.fleet.envelope import Message, Sender
from django_wspbus.fleet.leadership import Timing
from django_wspbus.fleet.local import LocalEngine
from django_wspbus.fleet.relay import Relay, RelayState
from django_wspbus.fleet.turn import DEPLOY, Taken, Turn

from ..processes import DEADLINE

Answer = Callable[["Node", Message], None]


class Node:
    """A member; ``hear(node, message)`` gets its messages."""

    def __init__(self, engine: LocalEngine, host: str, hear: Answer) -> None:
        self.host = host
        self.orders: list[Message] = []
        self._hear = hear
        self.relay = Relay(
            engine,
            ["key"],
            lambda epoch: Sender(engine.name, host, 1, epoch),
            lambda: None,
            self,
            RelayState(),
        )
        self.member = Member(self.relay.id, host, 1, "", "STARTED")
        self.relay.start()
        assert self.relay.messages.has_listened.wait(DEADLINE)

    def deliver(self, message: Message) -> None:
        pass

    def miss(self, sender: str, count: int) -> None:
        pass

    def flush(self) -> None:
        pass

    def hear(self, message: Message) -> None:
        if message.kind == ORDER:
            self.orders.append(message)
        if message.kind in (ORDER, STEP, OUTCOME) or self.host == "own":
            self._hear(self, message)


def succeed(node: Node, message: Message) -> None:
    node.relay.send(message.epoch, STEP, ["booting"], message.subject)
    node.relay.send(message.epoch, OUTCOME, [True, "Reloaded."], message.subject)


def fail(node: Node, message: Message) -> None:
    node.relay.send(message.epoch, OUTCOME, [False, "ValueError: 7"], message.subject)


def be_silent(node: Node, message: Message) -> None:
    pass


class Site:
    """The site that coordinates the deploy."""

    def __init__(self) -> None:
        self.engine = LocalEngine("shop", lease=1.0)
        self.commands = LocalCommands(self.engine)
        self.nodes: list[Node] = []
        self.shown: list[str] = []
        self.reason = ""
        self.lease = DEADLINE  # none is lost while the machine is busy
        self.deploy: Deploy | None = None
        self.own = self.add("own", self._pass_on)
        self.turn = self.make_turn("own:1:ab")

    def _pass_on(self, node: Node, message: Message) -> None:
        if self.deploy is not None:
            self.deploy.hear(message)

    def add(self, host: str, hear: Answer) -> Node:
        self.nodes.append(Node(self.engine, host, hear))
        return self.nodes[-1]

    def make_turn(self, holder: str) -> Turn:
        return Turn(self.commands, Timing(self.lease), DEADLINE, holder)

    def run(
        self, *hosts: Node, parallel: int = 1, skips: bool = False, silence: float = DEADLINE
    ) -> list[str]:
        """Deploy to hosts; return the names of those that it has reached."""
        limits = Limits(parallel=parallel, skips_silent=skips, silence=silence)
        self.turn = self.make_turn("own:1:ab")
        self.turn.take(no_wait)
        self.deploy = Deploy(self.own.relay, self.turn, limits, self.shown.append, lambda: self.reason)
        try:
            self.deploy.run([(host.host, host.member) for host in hosts], "graceful", {"alias": "x"}, "own")
        finally:
            self.turn.release()
        return self.deploy.progress.done


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    for node in site.nodes:
        node.relay.close(5)


def no_wait(reason: str, seconds: float) -> None:
    raise AssertionError(reason)


def test_one_host_gets_the_order_after_the_other_and_its_steps_are_shown(site: Site) -> None:
    one, two = site.add("one", succeed), site.add("two", succeed)
    assert site.run(one, two) == ["one", "two"]
    assert site.shown == ["one: booting", "one: Reloaded.", "two: booting", "two: Reloaded."]
    assert one.orders[0].args == ["graceful", {"alias": "x"}, site.turn.lease.token]


def test_hosts_get_the_order_at_the_same_time_up_to_a_number(site: Site) -> None:
    both = threading.Barrier(2)
    met = []

    def meet(node: Node, message: Message) -> None:
        if len(node.orders) == 1:
            both.wait(DEADLINE)
            met.append(node.host)
            succeed(node, message)

    hosts = site.add("one", meet), site.add("two", meet)
    assert sorted(site.run(*hosts, parallel=2)) == sorted(met) == ["one", "two"]


def test_an_order_and_an_answer_that_were_lost_are_sent_again(site: Site) -> None:
    def miss_the_first(node: Node, message: Message) -> None:
        if len(node.orders) > 1:
            succeed(node, message)

    assert site.run(site.add("one", miss_the_first)) == ["one"]


def test_no_host_gets_the_order_after_a_refusal(site: Site) -> None:
    hosts = [site.add("one", succeed), site.add("two", fail), site.add("three", succeed)]
    with pytest.raises(Stopped, match=r"^two: ValueError: 7\nDone: one. Not begun: three, own.$"):
        site.run(*hosts)
    assert hosts[2].orders == []


def test_a_silent_host_is_an_error_or_skipped(site: Site) -> None:
    silent = site.add("one", be_silent)
    with pytest.raises(Stopped, match=r"^one: it has not answered for .*--skip-missing"):
        site.run(silent, silence=0.3)
    assert site.run(silent, silence=0.3, skips=True) == []
    assert site.shown == ["one: skipped, as it has not answered for 0.3 s"]


def test_a_host_that_leaves_or_falls_silent_in_the_middle_is_an_error_in_any_case(site: Site) -> None:
    def leave(node: Node, message: Message) -> None:
        node.relay.send(message.epoch, STEP, ["booting"], message.subject)
        node.relay.send(None, "leave", [])

    def begin(node: Node, message: Message) -> None:
        if len(node.orders) == 1:
            node.relay.send(message.epoch, STEP, ["booting"], message.subject)

    with pytest.raises(Stopped, match=r"^one: it has left the fleet before the end"):
        site.run(site.add("one", leave), skips=True)
    with pytest.raises(Stopped, match=r"^two: it has not answered any more for"):
        site.run(site.add("two", begin), skips=True, silence=1.5)


def test_it_stops_between_two_hosts_for_a_reason_and_at_once_without_its_turn(site: Site) -> None:
    def stop(node: Node, message: Message) -> None:
        if len(node.orders) == 1:  # the order may come again
            site.reason = "The client has gone."
        succeed(node, message)

    hosts = site.add("one", stop), site.add("two", succeed)
    with pytest.raises(Stopped, match=r"^The client has gone.\nDone: one. Not begun: two, own.$"):
        site.run(*hosts)
    site.reason = ""

    def lose(node: Node, message: Message) -> None:
        site.engine.release(DEPLOY, site.turn.lease)

    site.lease = 1.0
    text = r"^The deploy stops: .*\nStill under way: three. Not begun: two, own.$"
    with pytest.raises(Stopped, match=re.compile(text, re.DOTALL)):
        site.run(site.add("three", lose), hosts[1])


def test_there_is_one_deploy_at_a_time_and_that_of_a_killed_process_ends(site: Site) -> None:
    waited: list[Any] = []

    def wait(reason: str, seconds: float) -> None:
        waited.append(reason)
        threading.Event().wait(seconds)

    def renew(reason: str, seconds: float) -> None:
        waited.append(reason)
        assert site.engine.renew(DEPLOY, site.turn.lease) is not None

    site.turn.take(no_wait)
    with pytest.raises(Taken, match=r"^Another deploy of the fleet is under way: own, process 1, runs it.$"):
        site.make_turn("two:2:cd").take(renew)
    assert waited[0].startswith("waiting, as own, process 1, runs a deploy")
    site.turn.release()
    site.lease = 1.0
    killed = site.engine.take(DEPLOY, site.engine.read(DEPLOY), "three:3:ef")
    assert killed is not None
    other = site.make_turn("two:2:cd")
    other.take(wait)
    assert other.lease.token > killed.token
    other.release()
    assert not other.is_held
