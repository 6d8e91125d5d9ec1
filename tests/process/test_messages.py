"""Messages and descriptors over a link of two sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from django_wspbus.process.messages import (
    HEADER,
    LARGEST,
    MOST_DESCRIPTORS,
    MOST_UNSENT,
    VERSION,
    BrokenLink,
    Link,
    Message,
    Received,
)
from django_wspbus.process.pairs import hand_in, take_in

from ..processes import DEADLINE

Links = tuple[Link, Link]
Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Sockets]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def links() -> Iterator[Links]:
    ours, theirs = (Link(sock, "Process 4711") for sock in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def receive(link: Link, count: int = 1) -> list[Received]:
    deadline = time.monotonic() + DEADLINE
    messages: list[Received] = []
    while len(messages) < count:
        assert time.monotonic() < deadline
        more = link.receive(DEADLINE)
        assert more is not None
        messages += more
    return messages


def messages(link: Link, count: int = 1) -> list[Message]:
    return [message for message, _ in receive(link, count)]


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


# What arrives


def test_messages_arrive_whole_and_in_order_however_they_were_cut(links: Links) -> None:
    ours, theirs = links
    sent = [{"number": number, "text": "x" * 20_000 + "\n€"} for number in range(20)]
    sender = in_thread(lambda: [theirs.send(message) for message in sent])
    received = messages(ours, 20)
    sender.join()

    assert received == sent


def test_messages_of_several_threads_do_not_mix(links: Links) -> None:
    ours, theirs = links
    texts = [letter * 300_000 for letter in "abcd"]
    senders = [
        in_thread(lambda text=text: [theirs.send({text[0]: text}) for _ in range(5)]) for text in texts
    ]
    received = messages(ours, 20)
    for sender in senders:
        sender.join()

    assert all(message == {letter: letter * 300_000} for message in received for letter in message)


def test_a_message_that_a_signal_handler_sends_comes_after_the_one_that_it_interrupted(links: Links) -> None:
    ours, theirs = links
    before = signal.signal(signal.SIGUSR1, lambda *_: theirs.post({"of": "the handler"}))
    received: list[Message] = []
    reader = threading.Thread(target=lambda: received.extend(messages(ours, 2)))
    try:
        theirs.post({"text": "x" * 1_000_000})  # more than the peer takes at once
        assert theirs.has_unsent
        signal.raise_signal(signal.SIGUSR1)
        reader.start()
        assert theirs.finish(DEADLINE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    reader.join()

    assert [next(iter(message)) for message in received] == ["text", "of"]


def test_the_time_for_a_message_grows_with_its_size_and_no_faster(links: Links) -> None:
    ours, theirs = links
    seconds = {}
    for size in (1_000_000, 16_000_000):
        began = time.process_time()
        sender = in_thread(lambda size=size: theirs.send({"text": "x" * size}))
        assert len(messages(ours)[0]["text"]) == size
        sender.join()
        seconds[size] = time.process_time() - began

    assert seconds[16_000_000] < max(seconds[1_000_000], 0.01) * 64  # 16, were nothing else done here; or 256


# Descriptors


def test_each_message_comes_with_its_descriptors(links: Links) -> None:
    ours, theirs = links
    reader, writer = os.pipe()
    ours.send({"one": 1}, [reader, writer])
    ours.send({"two": "ü\n"})
    ours.send({"three": [None]}, [writer])
    (one, first), (two, none), (three, last) = receive(theirs, 3)
    assert (one, two, three) == ({"one": 1}, {"two": "ü\n"}, {"three": [None]})
    assert (len(first), none, len(last)) == (2, [], 1)
    os.write(last[0], b"x")
    assert os.read(first[0], 1) == b"x"
    assert not any(os.get_inheritable(each) for each in [*first, *last])
    for descriptor in (reader, writer, *first, *last):
        os.close(descriptor)


def test_there_may_be_more_descriptors_than_the_kernel_takes_at_once(links: Links) -> None:
    ours, theirs = links
    descriptor = os.open(os.devnull, os.O_RDONLY)
    count = 2 * MOST_DESCRIPTORS + 3
    ours.send({"many": count}, [descriptor] * count)
    ours.send({"one": 1}, [descriptor])
    (many, descriptors), (_, one) = receive(theirs, 2)
    assert many == {"many": count}
    assert len({*descriptors, *one}) == count + 1
    for each in (descriptor, *descriptors, *one):
        os.close(each)


def test_descriptors_that_wait_may_be_closed_by_their_sender(links: Links) -> None:
    ours, theirs = links
    reader, writer = os.pipe()
    ours.post({"text": "x" * 1_000_000})
    ours.post({"pipe": True}, [writer])
    os.close(writer)
    sender = in_thread(lambda: ours.finish(DEADLINE))
    (_, (_, (copy,))) = receive(theirs, 2)
    sender.join()
    os.write(copy, b"x")
    assert os.read(reader, 1) == b"x"
    os.close(copy)
    assert os.read(reader, 1) == b""  # no other copy is left
    os.close(reader)


def test_what_came_for_no_message_is_closed(links: Links) -> None:
    ours, theirs = links
    reader, writer = os.pipe()
    socket.send_fds(ours._socket, [b"\1"], [writer])
    assert theirs.receive(DEADLINE) == []
    ours.close()
    assert theirs.receive(DEADLINE) is None
    theirs.close()
    os.close(writer)
    assert os.read(reader, 1) == b""  # no copy is left that could write
    os.close(reader)


# The end


def test_the_end_is_none_also_if_the_peer_broke_off(links: Links) -> None:
    ours, theirs = links
    ours.send({"not": "read"})  # which makes it a reset
    theirs.close()

    assert ours.receive(DEADLINE) is None


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_message_to_a_process_that_is_gone_is_an_error(links: Links, handler: signal.Handlers) -> None:
    ours, theirs = links
    theirs.close()
    before = signal.signal(signal.SIGPIPE, handler)  # the default ends the process
    try:
        with pytest.raises(OSError, match="Broken pipe"):
            ours.send({"a": 1})
    finally:
        signal.signal(signal.SIGPIPE, before)


# What a message may be


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object()])
def test_a_value_that_json_does_not_know_is_refused_before_anything_is_sent(
    links: Links, value: object
) -> None:
    ours, theirs = links
    with pytest.raises(TypeError):
        ours.send({"value": value})
    ours.send({"after": 1})

    assert messages(theirs) == [{"after": 1}]


def test_a_message_that_is_too_large_is_refused_with_both_sizes(links: Links) -> None:
    ours, theirs = links
    with pytest.raises(ValueError, match=r"at most 16,777,216 bytes in JSON, and this one has 30,000,012"):
        ours.send({"text": "x" * 30_000_000})
    ours.send({"after": 1})

    assert messages(theirs) == [{"after": 1}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            HEADER.pack(VERSION, 0, LARGEST + 1),
            "announced a message of 16,777,217 bytes; 16,777,216 are the most",
        ),
        (HEADER.pack(VERSION + 1, 0, 2) + b"{}", "of version 2, and this process knows version 1"),
        (HEADER.pack(VERSION, 0, 2) + b"{]", "sent a message that is no JSON"),
        (HEADER.pack(VERSION, 0, 100_000) + b"[" * 100_000, "sent a message that is no JSON"),
    ],
)
def test_a_peer_that_breaks_the_rules_is_named_and_cut_off(links: Links, data: bytes, reason: str) -> None:
    ours, theirs = links
    theirs._socket.send(data)
    with pytest.raises(BrokenLink, match=rf"^Process 4711 .*{reason}.* connection to it was closed"):
        ours.receive(DEADLINE)

    assert ours.receive(DEADLINE) is None
    assert theirs.receive(DEADLINE) is None


# A peer that does not read


def test_a_message_waits_for_a_peer_that_does_not_read_and_its_sender_does_not(links: Links) -> None:
    ours, theirs = links
    ours.post({"text": "x" * 10_000_000})
    assert ours.has_unsent
    ours.post({"after": 1})
    sender = in_thread(lambda: ours.finish(DEADLINE))
    large, after = messages(theirs, 2)
    sender.join()

    assert len(large["text"]) == 10_000_000
    assert after == {"after": 1}
    assert not ours.has_unsent


def test_what_waits_for_a_peer_is_bounded(links: Links) -> None:
    ours, _ = links
    count = MOST_UNSENT // 10_000_000
    for _ in range(count):
        ours.post({"text": "x" * 10_000_000})
    with pytest.raises(
        BrokenLink, match=r"Process 4711 does not read its messages, and \d\d,\d{3},\d{3} bytes"
    ):
        ours.post({"text": "x" * 10_000_000})

    assert not ours.has_unsent
    with pytest.raises(OSError, match="Broken pipe"):
        ours.post({"after": 1})


def test_a_sender_that_waits_does_so_for_its_timeout(links: Links) -> None:
    ours, _ = links
    with pytest.raises(TimeoutError, match=r"Process 4711 took no message for 0.1 seconds"):
        ours.send({"text": "x" * 10_000_000}, timeout=0.1)


# Handing over


def test_a_link_goes_on_in_the_next_program_with_all_that_was_under_way(pair: Sockets) -> None:
    ours, theirs = Link(pair[0]), Link(pair[1].dup())
    half = HEADER.pack(VERSION, 0, 8) + b'{"b'
    theirs._socket.send(half)
    assert ours.receive(DEADLINE) == []
    ours.post({"text": "x" * 1_000_000})
    received, unsent = ours.hand_over([{"ask": "again"}])
    ours = Link(pair[0], received=received, unsent=unsent)
    theirs._socket.send(b'": 1}')
    assert messages(ours, 2) == [{"ask": "again"}, {"b": 1}]
    sender = in_thread(lambda: ours.finish(DEADLINE))
    assert len(messages(theirs)[0]["text"]) == 1_000_000
    sender.join()
    theirs.close()


def test_what_was_received_but_not_read_is_there_at_once(pair: Sockets) -> None:
    text = json.dumps({"a": 1}).encode()
    link = Link(pair[0], received=HEADER.pack(VERSION, 0, len(text)) + text)

    assert [message for message, _ in link.received()] == [{"a": 1}]


# Links that are handed in


def test_a_link_is_handed_in_over_the_pair_and_stays_with_this_process(pair: Sockets) -> None:
    ours, theirs = pair
    first, second = hand_in(theirs, "the site"), hand_in(theirs, "the site")
    taken = [take_in(ours), take_in(ours)]
    for mine, other in zip((first, second), taken, strict=True):
        assert other is not None
        mine.send({"hello": mine.fileno()})
        assert messages(other) == [{"hello": mine.fileno()}]
        assert not os.get_inheritable(other.fileno())
        mine.close()
        other.close()


def test_a_site_that_takes_no_links_is_waited_for_until_the_timeout(pair: Sockets) -> None:
    pair[1].setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            pair[1].send(b"+")
    with pytest.raises(TimeoutError, match=r"the site took no connection for 0.1 seconds"):
        hand_in(pair[1], "the site", 0.1)


def test_what_arrives_without_its_descriptor_is_not_taken_for_the_end(pair: Sockets) -> None:
    ours, theirs = pair
    theirs.send(b"+")

    with pytest.raises(OSError, match="No descriptor"):
        take_in(ours)


@pytest.mark.parametrize("unread", [False, True])
def test_the_end_of_the_pair_is_none(pair: Sockets, unread: bool) -> None:
    ours, theirs = pair
    if unread:
        ours.send(b"never read")
    theirs.close()

    assert take_in(ours) is None
