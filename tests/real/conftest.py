from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .journey import Step

PROPERTY = "requests"


@pytest.fixture
def steps(record_property: Callable[[str, object], None]) -> Iterator[list[Step]]:
    """The steps of a journey, for the summary at the end of the run."""
    done: list[Step] = []
    yield done
    for step in done:
        record_property(PROPERTY, str(step))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [each for reports in terminalreporter.stats.values() for each in reports]
    properties = [each for report in reports for each in getattr(report, "user_properties", [])]
    lines = dict.fromkeys(value for name, value in properties if name == PROPERTY)
    if lines:
        terminalreporter.section("Requests made and lost")
        terminalreporter.write_line("\n".join(lines))
