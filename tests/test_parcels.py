"""Parcels: messages and descriptors over a pair of sockets."""

from __future__ import annotations

import os
import socket

import pytest

from django_wspbus.parcels import MOST, Parcels


@pytest.fixture
def pair():
    ours, theirs = map(Parcels, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def receive(parcels, count=1):
    messages = []
    while len(messages) < count:
        messages += parcels.receive()
    return messages


def test_messages_come_in_order_each_with_its_descriptors(pair):
    ours, theirs = pair
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


def test_there_may_be_more_descriptors_than_the_kernel_takes_at_once(pair):
    ours, theirs = pair
    descriptor = os.open(os.devnull, os.O_RDONLY)
    count = MOST + 3
    ours.send({"many": count}, [descriptor] * count)
    ((message, descriptors),) = receive(theirs)
    assert message == {"many": count}
    assert len(set(descriptors)) == count
    for each in (descriptor, *descriptors):
        os.close(each)


def test_a_message_may_come_in_parts(pair):
    ours, theirs = pair
    raw = b'{"a": 1, "descriptors": 0}\n'
    os.write(ours.fileno(), raw[:9])
    assert theirs.receive() == []
    os.write(ours.fileno(), raw[9:] + raw)
    assert theirs.receive() == [({"a": 1}, []), ({"a": 1}, [])]


def test_the_end_is_none_and_what_came_for_no_message_is_closed(pair):
    ours, theirs = pair
    reader, writer = os.pipe()
    with socket.socket(fileno=os.dup(ours.fileno())) as sock:
        socket.send_fds(sock, [b" "], [writer])
    assert theirs.receive() == []
    ours.close()
    assert theirs.receive() is None
    theirs.close()
    os.close(writer)
    assert os.read(reader, 1) == b""  # no copy is left that could write
    os.close(reader)


def test_a_reset_is_the_end_and_sending_to_nobody_an_error(pair):
    ours, theirs = pair
    ours.send({"unread": 1})
    theirs.close()
    assert ours.receive() is None  # reset, as it had something to read
    with pytest.raises(OSError, match="Broken pipe"):
        ours.send({"a": 1})
