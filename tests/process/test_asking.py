"""bus.site in a process that has to ask the site's, and the site that answers it, both in this one."""

from __future__ import annotations

import os
import queue
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_wspbus import SiteUnreachable
from django_wspbus.process import asking
from django_wspbus.process.answering import Answers
from django_wspbus.process.asking import RemoteSite
from django_wspbus.process.exchange import Result
from django_wspbus.process.messages import HEADER, LARGEST, MOST_UNSENT, VERSION, Link, Message
from django_wspbus.process.pairs import take_in
from django_wspbus.process.reports import Answered, Hello, Ready, as_message
from django_wspbus.process.site import LocalSite
from django_wspbus.wspbus import Bus

from ..processes import DEADLINE

Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Sockets]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


class Peer:
    """An end of a link from which the test takes one message after the other."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.send = link.send
        self.close = link.close
        self._messages: list[Message] = []

    def receive(self) -> Message:
        while not self._messages:
            received = self.link.receive(DEADLINE)
            assert received is not None
            self._messages += [message for message, _ in received]
        return self._messages.pop(0)


def take_link(pair: socket.socket) -> tuple[Peer, Message]:
    """Take the next link, and what its process says of itself."""
    link = take_in(pair)
    assert link is not None
    peer = Peer(link)
    return peer, peer.receive()


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_a_worker_listens_to_what_the_site_asks_over_a_link_of_its_own(pair: Sockets) -> None:
    site = RemoteSite(pair[1], "worker")
    heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
    site.listen(heard.put)
    link, hello = take_link(pair[0])
    assert hello == as_message(Hello("listener", os.getpid()))
    for number in (1, 2):
        link.send({"changed": [number]})
        assert heard.get(timeout=DEADLINE) == {"changed": [number]}
    (listening,) = [each for each in threading.enumerate() if each.name == "Site requests"]
    link.close()
    listening.join(DEADLINE)
    assert not listening.is_alive()
    site.close()


def test_a_worker_hears_the_orders_that_follow_one_that_fails(
    pair: Sockets, caplog: pytest.LogCaptureFixture
) -> None:
    site = RemoteSite(pair[1], "worker")
    heard: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def hear(message: Message) -> None:
        if message == {"fails": True}:
            raise RuntimeError("can't start new thread")
        heard.put(message)

    site.listen(hear)
    link, _ = take_link(pair[0])
    link.send({"fails": True})
    link.send({"after": 1})
    assert heard.get(timeout=DEADLINE) == {"after": 1}
    assert "can't start new thread" in caplog.text
    link.close()
    site.close()


def test_an_order_may_outlast_the_link(pair: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def obey(order: Message) -> None:
        begun.set()
        go_on.wait(DEADLINE)

    site = RemoteSite(pair[1], "worker")
    before = set(threading.enumerate())
    site.listen(obey)
    (listening,) = set(threading.enumerate()) - before
    link, _ = take_link(pair[0])
    link.send({"slow": True})
    assert begun.wait(DEADLINE)
    monkeypatch.setattr(asking, "SITE_TIMEOUT", 0.01)
    site.close()
    go_on.set()
    listening.join(DEADLINE)  # an exception in the thread would fail the test
    assert not listening.is_alive()
    link.close()


def test_one_link_serves_for_questions_that_come_one_after_the_other(pair: Sockets) -> None:
    site = RemoteSite(pair[1], "worker")
    heard = []

    def answer() -> None:
        link, hello = take_link(pair[0])
        heard.append(hello)
        for number in (7, 8):
            heard.append(link.receive())
            link.send({"result": number})
        link.close()

    answering = in_thread(answer)
    assert [site.ask("anything", 1), site.ask("else")] == [7, 8]
    answering.join(DEADLINE)
    site.close()

    assert heard == [
        as_message(Hello("asker", os.getpid())),
        {"version": 1, "action": "anything", "arguments": {"args": [1]}},
        {"version": 1, "action": "else", "arguments": {"args": []}},
    ]


def test_an_answer_may_come_in_parts(pair: Sockets) -> None:
    site = RemoteSite(pair[1], "worker")

    def answer() -> None:
        link, _ = take_link(pair[0])
        link.receive()
        for part in (HEADER.pack(VERSION, 0, 13)[:3], HEADER.pack(VERSION, 0, 13)[3:], b'{"result', b'": 7}'):
            link.link._socket.send(part)
        link.close()

    answering = in_thread(answer)
    assert site.ask("anything") == 7
    answering.join(DEADLINE)
    site.close()


def test_a_question_that_takes_long_does_not_hold_up_that_of_another_thread(pair: Sockets) -> None:
    site = RemoteSite(pair[1], "worker")
    results: list[Any] = []
    slow = in_thread(lambda: results.append(site.ask("slow")))
    link, _ = take_link(pair[0])
    assert link.receive()["action"] == "slow"
    quick = in_thread(lambda: results.append(site.ask("quick")))
    other, _ = take_link(pair[0])
    assert other.receive()["action"] == "quick"
    other.send({"result": "quick"})
    quick.join(DEADLINE)
    link.send({"result": "slow"})
    slow.join(DEADLINE)
    for each in (link, other):
        each.close()
    site.close()

    assert results == ["quick", "slow"]


def test_the_answer_to_a_thread_that_was_interrupted_is_dropped(
    pair: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = RemoteSite(pair[1], "worker")

    def interrupt(*args: object) -> None:
        raise SystemExit(1)  # as gunicorn's signal handlers do

    with monkeypatch.context() as patch:
        patch.setattr(asking, "await_event", interrupt)
        with pytest.raises(SystemExit):
            site.ask("first")
    link, _ = take_link(pair[0])
    assert link.receive()["action"] == "first"
    with pytest.raises(OSError, match="Broken pipe"):
        link.send({"result": 1})
    link.close()

    def answer() -> None:
        link, _ = take_link(pair[0])
        link.send({"result": link.receive()["action"]})
        link.close()

    answering = in_thread(answer)
    assert site.ask("second") == "second"
    answering.join(DEADLINE)
    site.close()


def test_a_forked_process_closes_its_copies_of_the_links_and_has_its_own(pair: Sockets) -> None:
    site = RemoteSite(pair[1], "master")
    site.announce_role("worker")
    link, hello = take_link(pair[0])
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        os.close(writer)
        try:
            os.read(reader, 1)
        finally:
            os._exit(0)
    os.close(reader)
    site.close()
    assert hello == as_message(Hello("worker", os.getpid()))
    assert link.link.receive(DEADLINE) is None  # although the forked process lives
    os.close(writer)
    os.waitpid(pid, 0)
    link.close()


# A site that does not answer


def test_a_site_that_ends_without_an_answer_is_unreachable(pair: Sockets) -> None:
    site = RemoteSite(pair[1], "worker")

    def answer() -> None:
        link, _ = take_link(pair[0])
        link.receive()
        link.close()

    answering = in_thread(answer)
    with pytest.raises(SiteUnreachable, match="it closed the connection"):
        site.status()
    answering.join(DEADLINE)


def test_a_link_that_the_site_has_closed_meanwhile_is_replaced(pair: Sockets) -> None:
    site = RemoteSite(pair[1], "worker")

    def answer() -> None:
        for _ in range(2):
            link, _ = take_link(pair[0])
            link.send({"result": link.receive()["action"]})
            link.close()

    answering = in_thread(answer)
    site.ask("first")
    while (link := site._idle[-1]).receive() is not None:
        select.select([link], [], [], DEADLINE)
    assert site.ask("second") == "second"
    answering.join(DEADLINE)
    site.close()


def test_a_message_is_sent_again_over_a_new_link_if_the_site_has_closed_the_old_one(pair: Sockets) -> None:
    site = RemoteSite(pair[1], "master")
    site.announce_role("worker")
    link, _ = take_link(pair[0])
    link.close()
    site.report(Answered(1))
    link, hello = take_link(pair[0])
    assert hello == as_message(Hello("worker", os.getpid()))
    assert link.receive() == as_message(Answered(1))
    link.close()
    site.close()


def test_threads_that_report_at_the_same_time_share_one_link(pair: Sockets) -> None:
    site = RemoteSite(pair[1], "worker")
    reporting = [in_thread(lambda number=number: site.report(Answered(number))) for number in range(8)]  # type: ignore[misc]
    link, _ = take_link(pair[0])
    numbers = [link.receive()["pid"] for _ in range(8)]
    for thread in reporting:
        thread.join(DEADLINE)

    assert sorted(numbers) == list(range(8))
    link.close()
    site.close()


def test_a_message_is_lost_without_a_site(pair: Sockets) -> None:
    pair[0].close()
    site = RemoteSite(pair[1], "worker")
    site.report(Ready(1))

    with pytest.raises(SiteUnreachable):
        site.status()


def test_a_site_that_is_silent_is_unreachable_and_one_that_works_is_waited_for(
    pair: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PING_INTERVAL", 0.02)
    site = RemoteSite(pair[1], "worker")
    pings = []

    def answer() -> None:
        link, _ = take_link(pair[0])
        link.receive()
        for _ in range(10):
            pings.append(link.receive())
            link.send({"pong": True})
        link.send({"result": "at last"})
        while link.link.receive(DEADLINE) is not None:
            pass  # it is silent from now on
        link.close()

    answering = in_thread(answer)
    assert site.ask("long") == "at last"
    assert pings == [{"ping": True}] * 10
    monkeypatch.setattr(asking, "SITE_TIMEOUT", 0.2)
    with pytest.raises(SiteUnreachable, match=r"sent nothing for 0.2 seconds; it is stopped, or hangs"):
        site.ask("never")
    answering.join(DEADLINE)


# The site's part


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus()
    bus.start()
    yield bus
    bus.exit()


def ask(bus: Bus, link: Link, channel: str) -> None:
    message = {"version": 1, "action": "publish", "arguments": {"args": [channel]}}
    Answers(bus, LocalSite(bus, dict), Link.post).answer(link, message)
    bus.wait_for(lambda: True)  # which runs what is deferred


def test_a_request_of_another_version_gets_an_error_and_is_not_handed_over(bus: Bus) -> None:
    ours, theirs = map(Link, socket.socketpair())
    answers = Answers(bus, LocalSite(bus, dict), Link.post)
    answers.answer(ours, {"version": 2, "action": "status"})

    assert "has the version 2" in Peer(theirs).receive()["error"]
    assert answers.unanswered(ours) == []
    ours.close()
    theirs.close()


def test_a_request_has_its_reply_from_this_program_or_from_the_next_one_and_not_from_both(bus: Bus) -> None:
    ours, theirs = map(Link, socket.socketpair())
    answers, replies = Answers(bus, LocalSite(bus, dict), Link.post), []
    answers.handlers["later"] = lambda args, reply: replies.append(reply)
    peer = Peer(theirs)
    early, late = ({"version": 1, "action": "later", "arguments": {"args": [n]}} for n in (1, 2))
    for request in (early, late):
        answers.answer(ours, request)
    replies[0](Result("early"))
    answers.pause()
    replies[1](Result("late"))

    assert answers.unanswered(ours) == [late]
    assert peer.receive() == {"result": "early"}
    assert select.select([theirs], [], [], 0)[0] == []
    answers.resume()  # there is no next program
    assert peer.receive() == {"result": "late"}
    assert answers.unanswered(ours) == []
    ours.close()
    theirs.close()


def test_a_result_that_is_too_large_is_an_error_with_both_sizes(bus: Bus) -> None:
    ours, theirs = map(Link, socket.socketpair())
    bus.subscribe("large", lambda: "x" * LARGEST)
    ask(bus, ours, "large")
    assert Peer(theirs).receive()["error"] == (
        "The result of publish cannot be sent to another process: "
        "a message has at most 16,777,216 bytes in JSON, and this one has 16,777,232."
    )
    ours.close()
    theirs.close()


def test_a_worker_that_does_not_read_its_answers_is_named_once_and_its_link_is_closed(bus: Bus) -> None:
    logged: list[str] = []
    bus.subscribe("log", lambda message, level: logged.append(message))
    ours, theirs = (Link(sock, "Process 4711 of the server 'shop'") for sock in socket.socketpair())
    bus.subscribe("large", lambda: "x" * 15_000_000)
    for _ in range(MOST_UNSENT // 15_000_000 + 2):
        ask(bus, ours, "large")
    ours.close()
    theirs.close()

    (line,) = [message for message in logged if "does not read" in message]
    assert line.startswith("Process 4711 of the server 'shop' does not read its messages")
