"""The contract of engines: each of them does the same."""

from __future__ import annotations

import threading
import time

import pytest

from django_wspbus.fleet.base import Lease, Member, MemberProcess, Run, Unavailable

from ..processes import DEADLINE


def receive(listener, count):
    """Wait for a number of messages, and return them."""
    found, deadline = [], time.monotonic() + DEADLINE
    while len(found) < count:
        assert time.monotonic() < deadline, found
        found += listener.receive(1.0)
    return found


def member(name="m1", **fields):
    return Member(**{"id": name, "host": "web1", "pid": 1, "version": "v1", "state": "STARTED", **fields})


# Messages


def test_messages_arrive_in_order_at_all_or_at_one_member(connect):
    sender = connect()
    first, second = connect().listen("m1"), connect().listen("m2")
    sender.send([(None, b"1"), ("m2", b"2"), (None, b"3")])
    sender.send([("m1", b"4"), ("m3", b"5")])

    assert receive(first, 3) == [b"1", b"3", b"4"]
    assert receive(second, 3) == [b"1", b"2", b"3"]
    assert first.receive(0.0) == []
    first.close()
    second.close()


def test_two_fleets_on_one_engine_do_not_hear_each_other(connect):
    ours, theirs = connect("shop").listen("m1"), connect("blog").listen("m1")
    connect("shop").send([(None, b"shop"), ("m1", b"ours")])
    connect("blog").send([(None, b"blog")])

    assert receive(ours, 2) == [b"shop", b"ours"]
    assert receive(theirs, 1) == [b"blog"]
    ours.close()
    theirs.close()


def test_equal_messages_arrive_as_often_as_they_are_sent(connect):
    listener = connect().listen("m1")
    connect().send([(None, b"again")] * 3)
    assert receive(listener, 3) == [b"again"] * 3
    listener.close()


@pytest.mark.parametrize("size", ["8,000 bytes", "the most"])
def test_a_large_message_arrives_whole(connect, size):
    sender, listener = connect(), connect().listen("m1")
    large = b"x" * (8000 if size == "8,000 bytes" else sender.largest)
    sender.send([(None, large), (None, b"small")])
    assert receive(listener, 2) == [large, b"small"]
    listener.close()


def test_a_listener_waits_for_a_message_or_the_timeout(connect, later):
    listener = connect().listen("m1")
    assert listener.receive(0.01) == []
    received = later(receive, listener, 1)
    connect().send([(None, b"late")])
    assert received.result(DEADLINE) == [b"late"]
    listener.close()


def test_closing_a_listener_ends_its_wait(connect, later):
    listener, waits = connect().listen("m1"), threading.Event()

    def wait():
        waits.set()
        with pytest.raises(Unavailable):
            listener.receive(DEADLINE)

    ended = later(wait)
    assert waits.wait(DEADLINE)
    listener.close()
    ended.result(DEADLINE / 2)


# Members


def test_a_member_is_listed_until_it_leaves(connect):
    engine = connect()
    processes = [MemberProcess(2, ["worker"]), MemberProcess(3, ["leader"])]
    first = member("m1", processes=processes, leads=True, key="ab")
    at = [engine.beat(first), engine.beat(member("m2"))]

    found = {each.id: each for each in connect().members()}
    assert set(found) == {"m1", "m2"}
    assert (found["m1"].processes, found["m1"].leads, found["m1"].key) == (processes, True, "ab")
    assert found["m1"].seen == pytest.approx(at[0], abs=1e-5)

    engine.leave("m1")
    engine.leave("m1")
    assert [each.id for each in engine.members()] == ["m2"]


def test_a_sign_of_life_replaces_the_one_before(connect):
    engine = connect()
    before = engine.beat(member(state="STARTING"))
    now = engine.beat(member(state="STARTED"))
    (found,) = engine.members()
    assert found.state == "STARTED"
    assert before <= found.seen == pytest.approx(now, abs=1e-5)


def test_the_time_of_the_engine_goes_on(connect):
    engine = connect()
    first = engine.time()
    assert first <= engine.beat(member()) <= connect().time()


# Leases


def test_one_candidate_takes_a_lease_that_no_one_has(connect):
    first, second = connect(), connect()
    assert first.read("leader") is None
    before = first.time()
    lease = first.take("leader", None, "one")
    assert lease == Lease("one", lease.token, 0)
    assert before * 1e6 <= lease.token <= first.time() * 1e6 + 1
    assert second.take("leader", None, "two") is None
    assert second.read("leader") == lease


def test_a_lease_is_taken_only_as_it_was_seen(connect):
    engine, candidate = connect(), connect()
    lease = engine.take("leader", None, "one")
    renewed = engine.renew("leader", lease)
    assert renewed == Lease("one", lease.token, 1)

    assert candidate.take("leader", lease, "two") is None
    taken = candidate.take("leader", renewed, "two")
    assert (taken.holder, taken.beat) == ("two", 0)
    assert taken.token > lease.token
    assert candidate.read("leader") == taken


def test_a_lease_that_another_took_is_neither_renewed_nor_released(connect):
    engine = connect()
    lost = engine.take("leader", None, "one")
    taken = engine.take("leader", lost, "two")
    assert engine.renew("leader", lost) is None
    assert not engine.release("leader", lost)
    assert engine.read("leader") == taken


def test_a_lease_is_renewed_although_the_answer_to_the_renewal_before_was_lost(connect):
    engine = connect()
    lease = engine.take("leader", None, "one")
    engine.renew("leader", lease)
    assert engine.renew("leader", lease) == Lease("one", lease.token, 2)
    assert engine.release("leader", lease)


def test_a_released_lease_can_be_taken_and_not_renewed(connect):
    engine = connect()
    lease = engine.take("leader", None, "one")
    assert engine.release("leader", lease)
    released = engine.read("leader")
    assert released == Lease("", lease.token, 1)
    assert engine.renew("leader", lease) is None
    assert not engine.release("leader", lease)
    assert connect().take("leader", released, "two").token > lease.token


def test_leases_with_other_names_or_of_other_fleets_are_independent(connect):
    assert connect("shop").take("leader", None, "one")
    assert connect("shop").take("deploy", None, "one")
    assert connect("blog").take("leader", None, "two")
    assert connect("shop").read("leader").holder == "one"


def test_one_of_many_candidates_takes_a_lease(connect, later):
    engines, ready = [connect() for _ in range(4)], threading.Barrier(4)

    def take(engine):
        engine.connect()
        ready.wait(DEADLINE)
        return engine.take("leader", None, "one")

    taken = [future.result(DEADLINE) for future in [later(take, engine) for engine in engines]]
    assert len([lease for lease in taken if lease is not None]) == 1


# Jobs


def test_a_tick_is_claimed_once(connect):
    first, second = connect(), connect()
    assert first.claim(Run("report", 100.25, outcome="running"))
    assert not second.claim(Run("report", 100.25))
    assert not second.claim(Run("report", 99.0))
    assert second.claim(Run("report", 160.25))
    assert second.claim(Run("mail", 100.25))
    assert {run.job: run.tick for run in first.runs()} == {"report": 160.25, "mail": 100.25}


def test_the_outcome_of_a_run_is_recorded_unless_a_later_tick_has_been_claimed(connect):
    engine = connect()
    run = Run("report", 100.5, "web1", 7, "m1", began=100.75, outcome="running", counts={"ok": 2})
    ended = Run(
        "report", 100.5, "web1", 7, "m1", 100.75, 101.5, "failed", "ValueError: ä", {"ok": 2, "failed": 1}
    )
    assert not engine.finish(run)
    assert engine.claim(run)
    assert engine.runs() == [run]
    assert engine.finish(ended)
    assert connect().runs() == [ended]
    assert engine.claim(Run("report", 160.5))
    assert not engine.finish(ended)


# The connection


def test_an_engine_connects_again_after_it_was_closed(connect):
    engine = connect()
    engine.connect()
    engine.close()
    engine.close()
    assert engine.time() > 0
    engine.close()
