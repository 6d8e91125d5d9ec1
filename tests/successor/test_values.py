"""Values that one program hands over to another."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from django_wspbus.successor.values import (
    FORMAT_VERSION,
    UnknownVersion,
    descriptor_of,
    hand_over,
    read_values,
    scratch_file,
    take_over,
    write_values,
)

from ..processes import ROOT

# Two programs of one process.
FIRST = """
import os, sys
from django_wspbus.successor.values import descriptor_of, hand_over
environment = hand_over("HANDED_OVER", {"text": "x" * 3_000_000})
os.set_inheritable(descriptor_of("HANDED_OVER", environment), True)
second = "from django_wspbus.successor.values import take_over; print(len(take_over('HANDED_OVER')['text']))"
os.execve(sys.executable, [sys.executable, "-c", second], os.environ | environment)
"""


def test_values_of_any_size_reach_the_next_program_of_a_process() -> None:
    result = subprocess.run(
        [sys.executable, "-c", FIRST], capture_output=True, text=True, cwd=ROOT, check=False
    )

    assert (result.stdout, result.stderr) == ("3000000\n", "")


def test_values_are_taken_once_and_their_file_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = hand_over("HANDED_OVER", {"one": [1]})
    descriptor = descriptor_of("HANDED_OVER", environment)
    monkeypatch.setenv("HANDED_OVER", environment["HANDED_OVER"])

    assert take_over("HANDED_OVER") == {"one": [1]}
    assert take_over("HANDED_OVER") is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_what_another_process_handed_over_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDED_OVER", f"{os.getppid()}:0")

    assert take_over("HANDED_OVER") is None
    assert "HANDED_OVER" not in os.environ


def test_a_version_that_is_not_known_is_named_beside_the_one_that_is() -> None:
    with scratch_file() as file:
        file.write(json.dumps({"version": 99, "something": "else"}).encode())
        file.flush()
        with pytest.raises(UnknownVersion, match=f"state in version 99, .* reads version {FORMAT_VERSION}:"):
            read_values(os.dup(file.fileno()))


def test_without_files_in_memory_a_temporary_one_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)

    assert read_values(write_values({"text": "ü"})) == {"text": "ü"}
