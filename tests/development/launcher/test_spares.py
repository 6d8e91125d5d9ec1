"""Which spares the launcher starts, with processes that do nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from django_wspbus.development.launch import Libraries
from django_wspbus.development.launcher.spares import Spares

LIBRARIES = Libraries({"json": "json.py"}, ["numpy", "shop_settings"])
INVOCATION = {"command": ["manage.py"]}
PREPARED = {"prepared": True}


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


def preloads(spares):
    return [each.orders[0]["prepare"]["preload"] for each in spares.spawned]


def test_one_that_is_prepared_becomes_the_next_site_and_another_follows_it(spares):
    spares.learn(LIBRARIES)
    assert spares.take() is None
    spares.hear(PREPARED)
    (first,) = spares.spawned
    order = {"modules": LIBRARIES.modules, "preload": LIBRARIES.preload}
    assert first.orders == [{"invocation": INVOCATION, "prepare": order}]
    assert spares.take() is first
    assert first.is_site
    assert spares.take() is None
    spares.learn(LIBRARIES)
    assert len(spares.spawned) == 2
    assert spares.said == []


def test_one_that_is_not_prepared_yet_is_kept_for_the_start_after_the_next(spares):
    spares.learn(LIBRARIES)
    assert spares.take() is None
    spares.learn(replace(LIBRARIES, modules={}))
    assert len(spares.spawned) == 1
    spares.hear(PREPARED)
    assert spares.take() is spares.spawned[0]


def test_where_there_is_to_be_none_there_is_none(spares):
    spares.learn(None)
    assert (spares.spawned, spares.said) == ([], [])
    spares.learn(LIBRARIES)
    spares.learn(None)
    assert spares.spawned[0].ended
    assert (spares.take(), spares.said) == (None, [])


def test_an_obstacle_of_the_site_ends_the_spare_and_is_said_once(spares):
    spares.learn(LIBRARIES)
    for _ in range(2):
        spares.learn(replace(LIBRARIES, obstacle="gevent has patched the standard library"))
    assert spares.spawned[0].ended
    assert spares.take() is None
    assert spares.said == ["Warm spare disabled: gevent has patched the standard library."]


def test_an_obstacle_that_a_spare_meets_ends_it_and_is_said_again_only_after_one_that_met_none(spares):
    for _ in range(2):
        spares.learn(LIBRARIES)
        spares.hear({"obstacle": "shop/calendar.py hides a module of a library"})
        assert spares.current is None
    assert spares.said == ["Warm spare disabled: shop/calendar.py hides a module of a library."]
    spares.learn(LIBRARIES)
    spares.hear(PREPARED)
    spares.hear({"obstacle": "shop/calendar.py hides a module of a library"})
    assert len(spares.said) == 2


def test_what_is_unfit_of_preload_is_left_out_of_the_next_until_preload_is_another(spares):
    spares.learn(LIBRARIES)
    spares.hear({"left_out": "shop_settings", "why": "it reads the settings when it is imported"})
    assert spares.spawned[0].ended
    assert spares.said == [
        "Warm spare does without 'shop_settings' of PRELOAD: it reads the settings when it is imported."
    ]
    spares.hear(PREPARED)
    spares.take()
    spares.learn(LIBRARIES)
    assert preloads(spares) == [["numpy", "shop_settings"], ["numpy"], ["numpy"]]
    spares.learn(replace(LIBRARIES, preload=["shop_settings"]))
    assert spares.spawned[2].ended
    assert preloads(spares)[3:] == [["shop_settings"]]


@pytest.mark.parametrize("is_prepared", [True, False])
def test_one_that_has_died_is_not_taken_which_is_said(spares, is_prepared):
    spares.learn(LIBRARIES)
    if is_prepared:
        spares.hear(PREPARED)
    spares.spawned[0].status = -9
    assert spares.take() is None
    assert spares.said == ["Warm spare disabled: it was killed by SIGKILL."]
    spares.learn(LIBRARIES)
    assert len(spares.spawned) == 2
