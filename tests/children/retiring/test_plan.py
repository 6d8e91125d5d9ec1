"""The plan for the workers of a child: single steps, and a simulated master with workers that crash."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from django_wspbus.children.retiring.plan import LifeStage, Plan, Reason, Worker, make_plan


def worker(pid: int, stage: LifeStage = LifeStage.SERVING, **values: object) -> Worker:
    return replace(Worker(pid, stage, ready_since=float(pid)), **values)  # type: ignore[arg-type]


STANDBY = worker(9, LifeStage.STANDBY, ready_since=0.0)


def test_workers_that_stand_by_begin_until_as_many_boot_and_serve_as_are_wanted() -> None:
    waiting = [worker(pid, LifeStage.STANDBY) for pid in (1, 2, 3)]
    assert make_plan(waiting, 2).release == [1, 2]
    assert make_plan([worker(4, LifeStage.BOOTING), *waiting], 2).release == [1]
    assert make_plan([worker(4), worker(5, LifeStage.BOOTING), *waiting], 2) == Plan()


def test_a_worker_that_has_only_been_forked_counts_for_nothing() -> None:
    assert make_plan([worker(1), worker(2, LifeStage.FORKED), STANDBY], 2).release == [9]


@pytest.mark.parametrize("stage", [LifeStage.SERVING, LifeStage.STOPPING])
def test_the_crash_of_a_worker_is_answered_while_another_one_retires(stage: LifeStage) -> None:
    retires = worker(1, stage, retires=True, is_ordered=True)
    assert make_plan([retires, worker(3), STANDBY], 2) == Plan(release=[9])


def test_a_worker_with_a_reason_retires_and_accepts_until_its_successor_serves() -> None:
    old = worker(1, reason=Reason.AGE)
    assert make_plan([old, worker(2), STANDBY], 2) == Plan(release=[9], retire={1: Reason.AGE})

    old = replace(old, retires=True)
    assert make_plan([old, worker(2), worker(9, LifeStage.BOOTING)], 2) == Plan()
    assert make_plan([old, worker(2), worker(9)], 2) == Plan(order=[1])


def test_the_youngest_worker_retires_if_it_is_the_one_with_a_reason() -> None:
    workers = [worker(1), worker(2), worker(3, reason=Reason.REQUESTS)]
    assert make_plan(workers, 3).retire == {3: Reason.REQUESTS}


def test_of_two_workers_with_a_reason_the_more_urgent_one_retires_then_the_older_one() -> None:
    workers = [worker(1, reason=Reason.AGE), worker(2, reason=Reason.TIMEOUT, is_stuck=True), worker(3)]
    assert make_plan(workers, 3).retire == {2: Reason.TIMEOUT}
    workers = [worker(1, reason=Reason.AGE), worker(2, reason=Reason.AGE)]
    assert make_plan(workers, 2).retire == {1: Reason.AGE}


@pytest.mark.parametrize("stage", [LifeStage.SERVING, LifeStage.STOPPING])
def test_one_worker_retires_at_a_time(stage: LifeStage) -> None:
    retires = worker(1, stage, retires=True, is_ordered=True)
    assert make_plan([retires, worker(2, reason=Reason.AGE), worker(3)], 2).retire == {}


def test_if_every_worker_is_stuck_all_retire_as_their_successors_come() -> None:
    stuck = [worker(pid, reason=Reason.TIMEOUT, is_stuck=True) for pid in (1, 2)]
    assert make_plan([*stuck, STANDBY], 2) == Plan(release=[9], retire={1: Reason.TIMEOUT, 2: Reason.TIMEOUT})
    retire = [replace(each, retires=True) for each in stuck]
    assert make_plan([*retire, worker(9)], 2).order == [1]
    assert make_plan([*retire, worker(8), worker(9)], 2).order == [1, 2]


def test_a_lost_sibling_keeps_the_worker_that_retires_until_both_have_successors() -> None:
    retires = worker(1, retires=True)
    assert make_plan([retires, worker(8), worker(9, LifeStage.BOOTING)], 2) == Plan()
    assert make_plan([retires, worker(8), worker(9)], 2) == Plan(order=[1])


def test_the_oldest_of_too_many_workers_retire_together() -> None:
    workers = [worker(pid) for pid in (1, 2, 3)]
    retire = {1: Reason.SCALE, 2: Reason.SCALE}
    assert make_plan(workers, 1) == Plan(retire=retire, order=[1, 2])


class Master(RuleBasedStateMachine):
    """A master that forks as gunicorn does under a site, and a site that carries out each plan at once."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: dict[int, Worker] = {}
        self.wanted = 2
        self.last = 0
        self.is_deployed = False
        self.act()

    def act(self) -> None:
        """Carry out the plan until nothing is left to do, and fork."""
        while True:
            retiring = sum(each.retires for each in self.workers.values())
            while len(self.workers) < self.wanted + 1 + retiring:
                self.last += 1
                self.workers[self.last] = worker(self.last, LifeStage.STANDBY)
            plan = make_plan(self.workers.values(), self.wanted)
            if plan == Plan():
                return
            accepting = self.accepting()
            for pid in plan.retire:
                self.change(pid, retires=True)
            for pid in plan.release:
                self.change(pid, stage=LifeStage.BOOTING)
            for pid in plan.order:
                assert self.workers[pid].retires
                self.change(pid, is_ordered=True)
            assert self.accepting() >= min(accepting, self.wanted)

    def change(self, pid: int, **values: object) -> None:
        self.workers[pid] = replace(self.workers[pid], **values)  # type: ignore[arg-type]

    def of(self, stage: LifeStage) -> list[int]:
        return [pid for pid, each in self.workers.items() if each.stage is stage]

    def accepting(self) -> int:
        return sum(each.stage is LifeStage.SERVING and not each.is_ordered for each in self.workers.values())

    @precondition(lambda self: self.of(LifeStage.BOOTING))
    @rule(data=st.data())
    def becomes_ready(self, data: st.DataObject) -> None:
        self.change(data.draw(st.sampled_from(self.of(LifeStage.BOOTING))), stage=LifeStage.SERVING)
        self.act()

    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        del self.workers[data.draw(st.sampled_from(list(self.workers)))]
        self.act()

    @precondition(lambda self: self.of(LifeStage.SERVING))
    @rule(data=st.data(), reason=st.sampled_from([*Reason]))
    def has_a_reason(self, data: st.DataObject, reason: Reason) -> None:
        pid = data.draw(st.sampled_from(self.of(LifeStage.SERVING)))
        self.change(pid, reason=reason, is_stuck=reason is Reason.TIMEOUT)
        self.act()

    @rule(data=st.data())
    def ends_after_its_order(self, data: st.DataObject) -> None:
        ordered = [pid for pid, each in self.workers.items() if each.is_ordered]
        if ordered:
            del self.workers[data.draw(st.sampled_from(ordered))]
            self.act()

    @rule(wanted=st.integers(1, 4))
    def scales(self, wanted: int) -> None:
        self.wanted = wanted
        self.act()

    @invariant()
    def as_many_boot_and_serve_as_are_wanted(self) -> None:
        active = [
            each for each in self.workers.values() if each.stage in (LifeStage.BOOTING, LifeStage.SERVING)
        ]
        assert sum(not each.retires for each in active) >= self.wanted

    @invariant()
    def no_worker_is_left_over(self) -> None:
        retiring = sum(each.retires for each in self.workers.values())
        active = [
            each for each in self.workers.values() if each.stage in (LifeStage.BOOTING, LifeStage.SERVING)
        ]
        if sum(not each.retires for each in active) == self.wanted:  # else some are too many, or boot
            assert len(self.of(LifeStage.STANDBY)) >= 1
        assert len(self.workers) - retiring <= 4 + 1 + 4

    def teardown(self) -> None:
        """Everything settles: workers boot and end, and no further one has a reason."""
        for _ in range(100):
            for pid in list(self.workers):
                self.change(pid, reason=None, is_stuck=False)
            for pid in self.of(LifeStage.BOOTING):
                self.change(pid, stage=LifeStage.SERVING)
            self.act()
            for pid, each in list(self.workers.items()):
                if each.is_ordered:
                    del self.workers[pid]
            self.act()
        assert len(self.of(LifeStage.SERVING)) == self.wanted
        assert not any(each.retires for each in self.workers.values())


TestMaster = Master.TestCase
# A busy machine may take any time to draw an example.
AT_ANY_PACE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestMaster.settings = settings(AT_ANY_PACE, max_examples=25, stateful_step_count=20)


@AT_ANY_PACE
@given(
    st.lists(
        st.builds(
            Worker,
            st.integers(1, 10**6),
            st.sampled_from(list(LifeStage)),
            st.floats(0, 1e6),
            st.booleans(),
            st.booleans(),
            st.none() | st.sampled_from(list(Reason)),
            st.booleans(),
        ),
        unique_by=lambda each: each.pid,
        max_size=12,
    ),
    st.integers(0, 8),
)
def test_whatever_the_workers_are_orders_leave_as_many_that_accept_as_are_wanted(
    workers: list[Worker], wanted: int
) -> None:
    plan = make_plan(workers, wanted)
    by_pid = {each.pid: each for each in workers}
    accepting = [each.pid for each in workers if each.stage is LifeStage.SERVING and not each.is_ordered]

    assert len(set(accepting) - set(plan.order)) >= min(len(accepting), wanted)
    assert all(by_pid[pid].retires or pid in plan.retire for pid in plan.order)
    assert all(by_pid[pid].stage is LifeStage.STANDBY for pid in plan.release)
    assert not any(by_pid[pid].retires for pid in plan.retire)
    due = [pid for pid, reason in plan.retire.items() if reason is not Reason.SCALE]
    assert len(due) <= 1 or all(by_pid[pid].is_stuck for pid in due)
