"""Which spares the launcher starts, with processes that do nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from django_wspbus.development.launcher.spares import MOST_TRIES, Spares

LIBRARY = {"modules": [], "changed": [], "signs": {"an alias": []}, "path": [], "doubt": None}
INVOCATION = {"command": ["manage.py"]}
FIT = {"prepared": True, "unfit": [], "why": None}


class Process:
    """What `Child` is to `Spares`."""

    def __init__(self):
        self.started = False
        self.ended = False
        self.orders = []
        self.status = None
        self.is_site = False
        self.link = SimpleNamespace(post=self.orders.append)
        self.process = SimpleNamespace(poll=lambda: self.status)

    def become_site(self):
        self.is_site = True

    def end(self):
        self.ended = True


@pytest.fixture
def spares():
    """Spares, all that were ``spawned``, and what was ``said``."""
    spawned, said = [], []

    def spawn():
        spawned.append(Process())
        return spawned[-1]

    made = Spares(INVOCATION, spawn, said.append)
    made.spawned, made.said = spawned, said
    return made


def test_one_that_is_fit_becomes_the_next_site_and_another_follows_it(spares):
    spares.learn(LIBRARY)
    assert spares.take() is None
    spares.hear(FIT)
    (first,) = spares.spawned
    assert first.orders == [{"invocation": INVOCATION, "prepare": {**LIBRARY, "unfit": []}}]
    assert spares.take() is first
    assert first.is_site
    assert spares.take() is None
    spares.learn(LIBRARY)
    assert len(spares.spawned) == 2


@pytest.mark.parametrize("library", [None, {**LIBRARY, "doubt": "gevent replaces parts of other libraries"}])
def test_where_there_is_to_be_none_there_is_none(spares, library):
    spares.learn(library)
    spares.learn(library)
    assert spares.spawned == []
    assert spares.said == ([] if library is None else [f"Warm spare disabled: {library['doubt']}."])
    spares.learn(LIBRARY)
    assert len(spares.spawned) == 1
    spares.learn(library)
    assert spares.spawned[0].ended
    assert spares.current is None


def test_each_does_without_what_the_one_before_was_not_fit_for(spares):
    spares.learn(LIBRARY)
    for number in range(MOST_TRIES):
        spares.hear({"prepared": False, "unfit": [str(number)], "why": None})
    assert len(spares.spawned) == MOST_TRIES
    unfit = [each.orders[0]["prepare"]["unfit"] for each in spares.spawned]
    assert unfit == [[], *([str(number)] for number in range(MOST_TRIES - 1))]
    assert spares.current is None
    assert spares.said == [f"Warm spare disabled: none of {MOST_TRIES} attempts was as good as new."]
    spares.learn(LIBRARY)
    assert len(spares.spawned) == MOST_TRIES


@pytest.mark.parametrize(
    ("more", "unfit"), [({"modules": [("a", "a.py")]}, ["b"]), ({"changed": ["MODE"]}, [])]
)
def test_what_it_is_not_fit_for_is_tried_anew_only_for_another_project(spares, more, unfit):
    spares.learn(LIBRARY)
    spares.hear({"prepared": False, "unfit": ["b"], "why": None})
    spares.hear(FIT)
    spares.take()
    spares.learn({**LIBRARY, **more})
    assert spares.spawned[-1].orders[0]["prepare"]["unfit"] == unfit


@pytest.mark.parametrize("told", [{"unfit": [], "why": None}, {"unfit": ["a"], "why": "it is so"}])
def test_no_other_is_tried_if_that_would_be_as_unfit(spares, told):
    spares.learn(LIBRARY)
    spares.hear({"prepared": False, **told})
    assert len(spares.spawned) == 1
    assert spares.said == ([f"Warm spare disabled: {told['why']}."] if told["why"] else [])


def test_one_that_was_fit_and_is_killed_is_replaced_and_one_that_was_not_is_not(spares):
    spares.learn(LIBRARY)
    spares.hear(FIT)
    spares.spawned[0].status = -9
    spares.look()
    assert len(spares.spawned) == 2
    spares.spawned[1].status = 1
    spares.look()
    assert (len(spares.spawned), spares.current) == (2, None)


@pytest.mark.parametrize(
    ("more", "is_another"),
    [
        ({}, False),
        ({"modules": [("a", "a.py")]}, False),
        ({"changed": ["MODE"]}, True),
        ({"signs": {"an alias": ["a is b"]}}, True),
    ],
)
def test_a_boot_that_has_changed_what_imports_go_by_is_another_project(spares, more, is_another):
    assert not spares.learn(LIBRARY)
    assert spares.learn({**LIBRARY, **more}) is is_another
    assert not spares.learn({**LIBRARY, **more})
