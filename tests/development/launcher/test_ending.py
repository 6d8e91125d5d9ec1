"""The end of a site that does not react to the launcher's signals."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from django_wspbus.development.launcher import ending
from django_wspbus.development.launcher.ending import Ending
from django_wspbus.process.guard_program import TIME_TO_REACT
from tests.processes import DEADLINE


@pytest.fixture
def child() -> Iterator[Any]:
    """A process that ignores SIGABRT, in place of the site."""
    with subprocess.Popen(
        ["sh", "-c", "trap '' ABRT; echo; exec sleep 60"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield SimpleNamespace(process=process, stop_timeout=0.0)
        process.kill()


def test_a_site_is_asked_for_its_stacks_and_then_killed(child: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "MARGIN", 0.0)
    monkeypatch.setattr(ending, "TIME_TO_WRITE_STACKS", 0.0)
    lines: list[str] = []
    end = Ending(lines.append)
    end.attend(child)
    assert end.timeout() is None
    end.expect(child)
    end.attend(child)
    assert lines == [f"The site process {child.process.pid} does not react to signals: ending it."]
    assert child.process.poll() is None
    end.attend(child)
    assert child.process.wait(DEADLINE) == -signal.SIGKILL
    assert end.timeout() is None


def test_a_site_in_time_is_left_alone_and_a_second_request_leaves_less_of_it(
    child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "SAME_REQUEST", DEADLINE)
    child.stop_timeout = 1000.0
    end = Ending(print)
    for _ in range(2):  # timeout(1) signals the process, then its group
        end.expect(child)
        assert (end.timeout() or 0) > (1000 - DEADLINE) * 1000
    monkeypatch.setattr(ending, "SAME_REQUEST", -1.0)
    end.expect(child)
    assert (end.timeout() or 0) <= TIME_TO_REACT * 1000 + 1
    end.attend(None)
    end.attend(child)
    assert child.process.poll() is None
