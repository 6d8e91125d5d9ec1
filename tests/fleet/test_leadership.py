"""The lease, with candidates that pause, clocks that drift, and engines that lose messages and writes."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest

from django_wspbus.fleet.base import Lease
from django_wspbus.fleet.leadership import Candidacy, Look, Renew, Take, Timing

LEASE = 10.0
TIMING = Timing(LEASE)
OTHER = Lease("other", 7, 3)


class Simulation:
    """A few candidates and one engine, in a random order of events that a seed decides."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.now = 0.0
        self.events, self.serials = [], itertools.count()
        self.lease, self.history = None, []
        self.connection = 0  # a fault of the engine cuts off the connections
        self.down_until = 0.0
        self.elections = self.faults = 0
        self.members = [Member(self, number) for number in range(self.random.randint(2, 4))]
        for member in self.members:
            self.at(self.random.uniform(0, 1), member.tick)
        self.at(self.random.uniform(5, 30), self.fault)

    def at(self, time, call, *args):
        heapq.heappush(self.events, (time, next(self.serials), call, args))

    def run(self, seconds):
        while self.now < seconds:
            self.now, _, call, args = heapq.heappop(self.events)
            leaders = [each.name for each in self.members if each.candidacy.leads(each.clock())]
            assert len(leaders) <= 1, (self.now, leaders)
            call(*args)

    def delay(self):
        return self.random.uniform(0, 0.5) + (self.random.uniform(0, 8) if self.random.random() < 0.05 else 0)

    def fault(self):
        self.faults += 1
        fault = self.random.choice(["down", "empty", "revert", "pause", "release"])
        if fault == "down":
            self.down_until = self.now + self.random.uniform(0, 25)
        elif fault in ("empty", "revert"):
            self.lease = self.random.choice(self.history) if self.history and fault == "revert" else None
            self.connection += 1
        elif fault == "pause":
            self.random.choice(self.members).paused_until = self.now + self.random.uniform(0, 30)
        else:
            for member in self.members:
                member.release()
        self.at(self.now + self.random.uniform(3, 40), self.fault)

    def carry_out(self, action, holder):
        """Do what the engine does, and return its answer."""
        found = self.lease
        match action:
            case Look():
                return found
            case Take(seen) if found == seen and self.random.random() > 0.1:  # else a fence holds it
                self.history.append(found)
                self.lease = Lease(holder, max((found.token if found else 0) + 1, int(self.now * 1e6)), 0)
                return self.lease
            case Renew(lease) if found and (found.holder, found.token) == (lease.holder, lease.token):
                self.history.append(found)
                self.lease = Lease(found.holder, found.token, found.beat + 1)
                return self.lease
        return None


class Member:
    def __init__(self, simulation, number):
        self.simulation = simulation
        self.name = f"member {number}"
        self.candidacy = Candidacy(TIMING)
        self.rate = 1 + simulation.random.uniform(-0.02, 0.02)
        self.offset = simulation.random.uniform(0, 1e5)
        self.paused_until = 0.0
        self.connection = 0
        self.is_waiting = False

    def clock(self):
        return self.offset + self.simulation.now * self.rate

    def is_paused(self, call, *args):
        if self.paused_until > self.simulation.now:
            self.simulation.at(self.paused_until, call, *args)
            return True
        return False

    def look_at_the_clock(self):
        if self.candidacy.term is not None and not self.candidacy.leads(self.clock()):
            self.candidacy.lose()

    def tick(self):
        if self.is_paused(self.tick):
            return
        self.look_at_the_clock()
        now, simulation = self.clock(), self.simulation
        if not self.is_waiting and now >= self.candidacy.due:
            self.is_waiting = True
            request = self.candidacy.next(now), now, self.connection
            simulation.at(simulation.now + simulation.delay(), self.arrive, *request)
        simulation.at(simulation.now + 0.25, self.tick)

    def arrive(self, action, asked, connection):
        simulation = self.simulation
        answers = simulation.now >= simulation.down_until and connection == simulation.connection
        answer = simulation.carry_out(action, self.name) if answers else None
        is_lost = not answers or simulation.random.random() < 0.03
        simulation.at(simulation.now + simulation.delay(), self.take_answer, action, asked, answer, is_lost)

    def take_answer(self, action, asked, answer, is_lost):
        if self.is_paused(self.take_answer, action, asked, answer, is_lost):
            return
        self.is_waiting = False
        self.look_at_the_clock()
        candidacy, now = self.candidacy, self.clock()
        if is_lost:
            self.connection = self.simulation.connection
            candidacy.note_failed(now)
        elif isinstance(action, Look):
            candidacy.note_seen(answer, now)
        elif isinstance(action, Take) or candidacy.term is not None:
            self.simulation.elections += isinstance(action, Take) and answer is not None
            candidacy.note_held(answer, asked, now)
        else:  # the term has ended before the answer to its renewal
            candidacy.wake()

    def release(self):
        term, found = self.candidacy.term, self.simulation.lease
        if term is not None:
            if found is not None and (found.holder, found.token) == (self.name, term.lease.token):
                self.simulation.history.append(found)
                self.simulation.lease = Lease("", found.token, found.beat + 1)
            self.candidacy.lose()


def simulate(seeds):
    elections = faults = 0
    for seed in seeds:
        simulation = Simulation(seed)
        simulation.run(400)
        elections += simulation.elections
        faults += simulation.faults
    return elections, faults


def test_two_never_lead_at_once():
    elections, faults = simulate(range(20))
    assert elections > 80
    assert faults > 200


@pytest.mark.extended
def test_two_never_lead_at_once_in_many_more_runs():
    elections, _ = simulate(range(1000, 1060))
    assert elections > 240


@pytest.fixture
def candidacy():
    return Candidacy(TIMING)


def test_a_lease_is_taken_after_a_whole_lease_without_a_change(candidacy):
    assert candidacy.next(100.0) == Look()
    candidacy.note_seen(OTHER, 100.0)
    for time in (100.8, 105.0, 109.9):
        assert candidacy.next(time) == Look()
        candidacy.note_seen(OTHER, time)
    assert candidacy.due == 110.0
    assert candidacy.next(110.0) == Take(OTHER)


def test_a_change_begins_the_wait_again(candidacy):
    candidacy.note_seen(OTHER, 100.0)
    candidacy.note_seen(Lease("other", 7, 4), 109.0)
    assert candidacy.next(110.0) == Look()
    assert candidacy.next(119.0) == Take(Lease("other", 7, 4))


def test_no_record_at_all_has_to_stay_away_for_a_whole_lease_as_well(candidacy):
    candidacy.note_seen(None, 100.0)
    assert candidacy.next(109.0) == Look()
    assert candidacy.next(110.0) == Take(None)


def test_a_released_lease_is_taken_at_once(candidacy):
    candidacy.note_seen(OTHER, 100.0)
    released = Lease("", 7, 5)
    candidacy.note_seen(released, 101.0)
    assert candidacy.due == 101.0
    assert candidacy.next(101.0) == Take(released)


@pytest.mark.parametrize("lease", [OTHER, Lease("", 7, 5)])
def test_a_take_that_a_fence_refuses_is_tried_again_after_a_look(candidacy, lease):
    candidacy.note_seen(lease, 100.0)
    assert candidacy.next(110.0) == Take(lease)
    candidacy.note_held(None, asked=110.0, now=110.1)
    assert candidacy.due == pytest.approx(110.1 + TIMING.look)
    assert candidacy.next(110.9) == Look()
    candidacy.note_seen(lease, 111.0)
    assert candidacy.due == 111.0
    assert candidacy.next(111.0) == Take(lease)


def test_a_lease_that_another_has_taken_instead_has_to_be_unchanged_for_a_lease_again(candidacy):
    candidacy.note_seen(OTHER, 100.0)
    candidacy.note_held(None, asked=110.0, now=110.1)
    candidacy.note_seen(Lease("third", 8, 0), 111.0)
    assert candidacy.next(120.0) == Look()
    assert candidacy.next(121.0) == Take(Lease("third", 8, 0))


def test_a_failed_call_begins_the_wait_again(candidacy):
    """The engine may have come back without its last writes."""
    candidacy.note_seen(OTHER, 100.0)
    candidacy.note_failed(105.0)
    assert candidacy.next(120.0) == Look()
    candidacy.note_seen(OTHER, 120.0)
    assert candidacy.next(129.0) == Look()


def test_after_a_failed_call_a_released_lease_has_to_stay_so_for_a_whole_lease(candidacy):
    """The record may be an old one, which lacks the next leader."""
    candidacy.note_failed(100.0)
    released = Lease("", 7, 5)
    for time in (101.0, 110.9):
        candidacy.note_seen(released, time)
        assert candidacy.next(time) == Look()
    assert candidacy.next(111.0) == Take(released)


def test_a_lease_that_is_released_a_lease_after_a_failed_call_is_taken_at_once(candidacy):
    candidacy.note_failed(100.0)
    candidacy.note_seen(OTHER, 101.0)
    released = Lease("", 7, 4)
    candidacy.note_seen(released, 111.0)
    assert candidacy.next(111.0) == Take(released)


def test_the_deadline_counts_from_the_moment_before_the_request(candidacy):
    candidacy.note_held(OTHER, asked=100.0, now=103.0)
    assert candidacy.leads(108.9)
    assert not candidacy.leads(109.0)
    assert candidacy.term.end == 110.0
    assert candidacy.due == pytest.approx(100 + LEASE / 3)
    assert candidacy.next(104.0) == Renew(OTHER)


def test_a_leader_that_cannot_renew_leads_until_its_deadline(candidacy):
    candidacy.note_held(OTHER, asked=100.0, now=100.0)
    candidacy.note_failed(104.0)
    assert candidacy.due < 105.0
    assert candidacy.leads(108.0)
    assert not candidacy.leads(109.0)


def test_a_leader_whose_lease_another_has_taken_leads_no_more(candidacy):
    candidacy.note_held(OTHER, asked=100.0, now=100.0)
    candidacy.note_held(None, asked=103.0, now=103.1)
    assert not candidacy.leads(103.1)
    assert candidacy.next(103.1) == Look()


def test_a_candidate_looks_more_often_than_once_a_second():
    assert Timing(15).look < 1
    assert Timing(1).look == 0.2
