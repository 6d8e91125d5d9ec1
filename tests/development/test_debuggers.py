from __future__ import annotations

import code
import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from django_wspbus.development.debuggers import holds_terminal, holds_thread
from tests.processes import DEADLINE, has_signal
from tests.servers.load import await_that


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


BELOW = """\
import os, sys
from django_wspbus.development.debuggers import run_below

run_below([sys.executable, "-c", sys.argv[1]], {**os.environ, "PASSED": sys.argv[2]}, [int(sys.argv[2])])
"""
WAITS = """\
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
os.close(int(os.environ["PASSED"]))
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("ends", "status"),
    [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL), (WAITS, 5)],
    ids=["status", "killed", "signal"],
)
def test_a_program_below_a_debugger_gets_its_signals_and_gives_its_status(ends, status):
    reader, writer = os.pipe()
    command = [sys.executable, "-c", BELOW, f"import os, signal, sys\n{ends}", str(writer)]
    with (
        open(reader),
        subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[writer]) as program,
    ):
        os.close(writer)
        if ends == WAITS:  # the end of the pipe shows that no other process has the descriptor
            assert select.select([reader], [], [], 30)[0]
            await_that(lambda: has_signal(program.pid, "SigCgt", signal.SIGTERM))
            program.send_signal(signal.SIGTERM)
        assert program.wait(30) == status


RESERVES = """\
import os, sys, types
sys.modules["pydevd"] = types.ModuleType("pydevd")
os.closerange(3, 20)
os.dup2(1, 4)
from django_wspbus.development.debuggers import reserved_descriptors

with reserved_descriptors(3) as numbers:
    print(numbers, [os.path.exists(f"/proc/self/fd/{number}") for number in range(3, 7)])
print([os.path.exists(f"/proc/self/fd/{number}") for number in range(3, 7)])
sys.modules.pop("pydevd")
with reserved_descriptors(3) as numbers:
    print(numbers)
"""


def test_descriptors_are_reserved_for_the_sockets_of_a_child_below_a_debugger():
    result = subprocess.run(
        [sys.executable, "-c", RESERVES], capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stdout.splitlines() == [
        "[3, 4, 5] [True, True, True, False]",
        "[False, True, False, False]",
        "[]",
    ]
