"""A process of the launcher."""

import subprocess
import sys
from types import SimpleNamespace

from django_wspbus.development.launcher.child import Child
from tests.processes import DEADLINE


def test_the_age_of_a_site_does_not_depend_on_the_wall_clock():
    child = Child("site", SimpleNamespace(), SimpleNamespace(), began=0)
    assert 0 <= child.age < DEADLINE
    child.born -= 2 * DEADLINE
    assert child.age > DEADLINE
    child.become_site()
    assert child.age < DEADLINE


def test_the_age_of_a_site_that_serves_does_not_depend_on_its_boot():
    child = Child("site", SimpleNamespace(), SimpleNamespace(), began=0)
    child.born -= 2 * DEADLINE
    child.note_started()
    assert child.age < DEADLINE
    assert child.serves


REAPING = """
import os, subprocess, sys
from django_wspbus.development.launcher.child import reap_orphans

own = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"])
other = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-S", "-c", ""])
for pid in (own.pid, other):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
reap_orphans([own])
print(own.wait())
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("reaped")
"""


def test_orphans_are_reaped_and_children_of_ours_keep_their_status():
    result = subprocess.run(
        [sys.executable, "-c", REAPING], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert result.stdout == "3\nreaped\n"
