"""Cron expressions, and the decorator."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from django_wspbus import bus
from django_wspbus.fleet.cron import Job, Schedule, cron, jobs_of


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def ticks(schedule: Schedule, after: str, until: str) -> list[str]:
    found = schedule.between(at(after), at(until))
    return [datetime.fromtimestamp(tick, UTC).strftime("%m-%d %H:%M") for tick in found]


def test_the_ticks_between_two_times_are_those_after_the_first_and_until_the_second() -> None:
    found = ticks(Schedule("*/15 * * * *", "UTC"), "2026-03-01 00:00", "2026-03-01 01:00")
    assert found == ["03-01 00:15", "03-01 00:30", "03-01 00:45", "03-01 01:00"]


def test_the_time_zone_counts() -> None:
    assert ticks(Schedule("0 3 * * *", "Europe/Zurich"), "2026-01-10 00:00", "2026-01-10 23:00") == [
        "01-10 02:00"
    ]
    assert ticks(Schedule("0 3 * * *", "Europe/Zurich"), "2026-07-10 00:00", "2026-07-10 23:00") == [
        "07-10 01:00"
    ]


def test_without_one_it_is_that_of_the_settings(settings) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    assert ticks(Schedule("0 3 * * *"), "2026-01-10 00:00", "2026-01-10 23:00") == ["01-10 18:00"]


@pytest.mark.parametrize(
    ("day", "expected"), [("2026-03-29", ["03-29 01:00"]), ("2026-10-25", ["10-25 00:30"])]
)
def test_a_job_of_an_hour_runs_once_when_the_clocks_change(day: str, expected: list[str]) -> None:
    """The hour is missing in March, and comes twice in October."""
    schedule = Schedule("30 2 * * *", "Europe/Zurich")
    assert ticks(schedule, f"{day} 00:00", f"{day} 12:00") == expected
    again = at(f"{day} 00:00")
    seen = []
    while (tick := schedule.next(again)) is not None and tick < at(f"{day} 12:00"):
        seen.append(tick)
        again = tick
    assert len(seen) == 1
    assert schedule.between(seen[0] + 2400, at(f"{day} 12:00")) == []


def test_the_ticks_of_years_are_counted_up_to_a_limit_and_the_last_one_is_found() -> None:
    found = Schedule("* * * * *", "UTC").between(at("2020-01-01 00:00"), at("2026-01-01 00:00:30"))
    assert len(found) == 1001
    assert found[-1] == at("2026-01-01 00:00")


@pytest.mark.parametrize(
    "expression", ["", "* * * *", "* * * * * *", "61 * * * *", "x * * * *", "0 0 30 2 *"]
)
def test_an_expression_that_makes_no_sense_is_a_value_error(expression: str) -> None:
    with pytest.raises(ValueError, match="cron"):
        cron(expression)


def test_other_arguments_that_make_no_sense_are_value_errors() -> None:
    with pytest.raises(ValueError, match="time zone 'Europe/Bern'"):
        cron("* * * * *", timezone="Europe/Bern")
    with pytest.raises(ValueError, match="jitter"):
        cron("* * * * *", jitter=-1)
    with pytest.raises(ValueError, match="grace"):
        cron("* * * * *", grace=float("nan"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"expression": 5}, r"takes an expression first, as @cron\('0 3 \* \* \*'\), and not 5"),
        ({"timezone": 1}, "timezone is the name of a time zone, and not 1"),
        ({"name": 3}, "name is the name of the job, and not 3"),
        ({"name": ""}, "name is the name of the job, and not ''"),
        ({"catch_up": "no"}, "catch_up is True or False, and not 'no'"),
    ],
)
def test_arguments_of_the_wrong_type_are_type_errors(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        cron(**{"expression": "* * * * *", **arguments})


@pytest.mark.parametrize("name", ["x" * 256, "a\0b"])
def test_a_name_that_an_engine_could_not_store_is_a_value_error(name: str) -> None:
    def import_prices() -> None:
        pass

    with pytest.raises(ValueError, match=rf"import_prices .*test_cron\.py:\d+\) has a name of {len(name)}"):
        cron("0 3 * * *", name=name)(import_prices)


@pytest.mark.parametrize("seconds", ["5", True, float("inf")])
def test_seconds_that_are_no_number_are_value_errors(seconds: Any) -> None:
    with pytest.raises(ValueError, match=f"jitter is a number of seconds from 0 on, and not {seconds!r}"):
        cron("* * * * *", jitter=seconds)


async def wait_for_prices() -> None: ...


def yield_once() -> Iterator[None]:
    yield


def clean_up(folder: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (wait_for_prices, r"wait_for_prices \(.*test_cron.py:\d+\) is async or a generator"),
        (yield_once, "yield_once .* is async or a generator"),
        (clean_up, "without arguments; clean_up .*: missing a required argument: 'folder'"),
        (functools.partial(clean_up, "/tmp"), "has no name of its own: give the job a name="),
        ("clean", "@cron takes a function, and 'clean' is none"),
    ],
)
def test_a_function_that_cannot_be_a_job_is_a_type_error(function: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        cron("* * * * *")(function)


def clean() -> None:
    """Delete what is old."""


def test_the_decorator_subscribes_a_job_for_the_leader_and_returns_the_function() -> None:
    assert cron("0 3 * * *", name="clean")(clean) is clean
    (job,) = [each for each in jobs_of(bus) if each.name == "clean"]
    assert (job.name, job.__doc__) == ("clean", "Delete what is old.")
    assert ("fleet.jobs", job) in bus.of_role("leader")
    with pytest.raises(
        ValueError, match=r"Two jobs have the name 'clean', clean \(.*test_cron.py:\d+\) and clean"
    ):
        cron("0 4 * * *", name="clean")(clean)
    bus.unsubscribe("fleet.jobs", job)
    assert job not in jobs_of(bus)


def test_the_name_is_that_of_the_function_by_default() -> None:
    assert Job(clean, Schedule("0 3 * * *")).name == f"{__name__}.clean"


def test_jitter_is_the_same_in_each_process_and_another_for_each_tick() -> None:
    one, other = (Job(clean, Schedule("* * * * *"), jitter=30) for _ in range(2))
    delays = [one.delay(60.0 * number) for number in range(50)]
    assert delays == [other.delay(60.0 * number) for number in range(50)]
    assert len(set(delays)) == 50
    assert 0 <= min(delays) < 10
    assert 20 < max(delays) < 30


def test_a_job_survives_its_description() -> None:
    job = Job(clean, Schedule("0 3 * * *", "UTC"), jitter=3, catch_up=True, most_late=9)
    copy = Job.described(job.description())
    assert copy.description() == job.description()
    assert copy.delay(60) == job.delay(60)
