"""Which changes are a reason to start the site again."""

from __future__ import annotations

import time

import pytest

from django_wspbus.development.launcher import saves
from django_wspbus.development.launcher.saves import MOST_REPEATS, Saves

AN_HOUR = 3600 * 10**9


@pytest.fixture
def file(tmp_path):
    return tmp_path / "written.py"


@pytest.fixture
def said():
    return []


@pytest.fixture
def boots(said):
    return Saves(said.append)


def write_in_boot(boots, file, text):
    """Return whether a file that is written during a boot is a reason for another one."""
    file.write_text(text)
    return boots.reasons([str(file)], None) != []


def test_what_each_boot_writes_alike_is_a_reason_once(boots, file):
    found = []
    for _ in range(3):
        boots.begin_boot()
        found += [write_in_boot(boots, file, "same"), write_in_boot(boots, file, "same")]
    assert found == [True, True, False, False, False, False]


def test_what_each_boot_writes_anew_is_a_reason_some_times_and_said_once(boots, file, said):
    found = []
    for number in range(MOST_REPEATS + 3):
        boots.begin_boot()
        found.append(write_in_boot(boots, file, str(number)))
    assert found == [True] * MOST_REPEATS + [False] * 3
    (line,) = said
    assert line.startswith(f"{file} changed during {MOST_REPEATS} boots in a row, as if the project wrote it")


def test_a_save_after_the_boot_is_a_reason_whatever_boots_have_written(boots, file):
    for number in range(MOST_REPEATS + 1):
        boots.begin_boot()
        write_in_boot(boots, file, str(number))
    booted = time.time_ns() - AN_HOUR
    assert boots.reasons([str(file)], booted) == [str(file)]
    boots.begin_boot()
    assert write_in_boot(boots, file, str(MOST_REPEATS))  # an edit that is undone in the next boot


def test_a_change_that_is_noticed_after_the_boot_belongs_to_it_by_its_time(boots, file):
    boots.begin_boot()
    file.write_text("same")
    booted = time.time_ns() + AN_HOUR
    assert boots.reasons([str(file)], booted) == [str(file)]
    boots.begin_boot()
    file.write_text("same")
    assert boots.reasons([str(file)], booted) == []


def test_a_boot_without_the_change_has_it_counted_anew(boots, file, said):
    for number in range(3 * MOST_REPEATS):
        boots.begin_boot()
        if number % 2:
            assert write_in_boot(boots, file, str(number))
    assert said == []


def test_a_file_that_is_gone_is_a_reason(boots, file):
    assert boots.reasons([str(file)], time.time_ns()) == [str(file)]
    assert boots.reasons([str(file)], None) == [str(file)]
    assert saves.digest(str(file)) == ""
