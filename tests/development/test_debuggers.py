from __future__ import annotations

import code
import subprocess
import sys
import threading

import pytest

from django_wspbus.development.debuggers import holds_terminal, holds_thread
from tests.processes import DEADLINE


def observer(source, folder, variables):
    """Return what a process finds to observe it."""
    program = (
        f"{source}\nfrom django_wspbus.development.debuggers import find_observer\nprint(find_observer())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=folder,  # where no configuration has coverage follow
        env={**variables, "PYTHONPATH": ":".join(sys.path)},
    )
    return result.stdout.strip()


PROFILE = "import cProfile\nprofile = cProfile.Profile()\nprofile.enable()"
COVERAGE = "import coverage\ncoverage.Coverage(data_file=None).start()"


@pytest.mark.parametrize(
    ("source", "variables", "found"),
    [
        ("", {}, "None"),
        (PROFILE, {}, "cProfile"),
        (COVERAGE, {}, "coverage"),
        (COVERAGE, {"COVERAGE_PROCESS_START": "somewhere"}, "None"),  # it follows to other processes
        ("import sys, types\nsys.modules['pydevd'] = types.ModuleType('pydevd')\n" + PROFILE, {}, "None"),
    ],
    ids=["nothing", "profiler", "coverage", "coverage everywhere", "pydevd"],
)
def test_what_observes_a_process_and_would_not_observe_the_next_is_named(tmp_path, source, variables, found):
    assert observer(source, tmp_path, variables).split(".")[0] in (found, found.lstrip("c"))


def test_a_debugger_that_is_only_imported_holds_nothing(monkeypatch):
    assert not holds_terminal()
    for name in ("bdb", "pdb", "code"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert not holds_terminal()


def test_a_thread_that_a_debugger_holds_is_known():
    reads, goes_on = threading.Event(), threading.Event()

    def read(prompt):
        reads.set()
        goes_on.wait(DEADLINE)
        raise EOFError

    thread = threading.Thread(target=code.interact, kwargs={"banner": "", "readfunc": read, "exitmsg": ""})
    thread.start()
    try:
        assert reads.wait(DEADLINE)
        assert holds_thread(thread.ident)
        assert not holds_thread(threading.get_ident())
    finally:
        goes_on.set()
        thread.join(DEADLINE)
    assert not holds_thread(thread.ident)
