"""The launcher with commands that know nothing of Django."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import psutil
import pytest

from django_wspbus.development.launcher.entry import folder_of_inotify
from django_wspbus.development.launcher.sockets import unlink
from django_wspbus.successor.state import SocketState
from tests.processes import ROOT, Running, has_signal
from tests.servers.load import await_that

START = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from django_wspbus.development.launcher import LauncherStart, become
from django_wspbus.successor.invocation import Invocation
become(LauncherStart(Invocation(sys.executable, ["-B"], sys.argv[2:], os.getcwd(), dict(os.environ))))
"""


@pytest.fixture
def run(tmp_path):
    """Return what has a launcher run a script of this source, as a context manager."""

    def start(source):
        (tmp_path / "script.py").write_text(source)
        return Running(sys.executable, "-c", START, str(ROOT), "script.py", "argument", cwd=tmp_path)

    return start


def rewrite(tmp_path, source):
    (tmp_path / "script.new").write_text(source)
    (tmp_path / "script.new").rename(tmp_path / "script.py")


def test_it_imports_neither_django_nor_anything_installed_but_the_watcher_of_files():
    program = (
        "import sys; sys.path += sys.argv[1:]; import django_wspbus.development.launcher; print(*sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(ROOT), *folder_of_inotify()],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {name.partition(".")[0] for name in output.stdout.split()}
    assert "django_wspbus" in names
    assert names - {"django_wspbus"} <= {*sys.stdlib_module_names, "__main__", "inotify_simple"}


def test_the_command_finds_itself_as_python_would_have_it_and_is_run_again_when_it_is_saved(run, tmp_path):
    source = "import os, sys\nprint(__name__, sys.argv, sys.path[0] == os.getcwd(), {!r}, flush=True)\n"
    with run(source.format("first")) as program:
        program.wait_for_line(r"^__main__ \['script.py', 'argument'\] True first$")
        program.wait_for_line("^The site exited with status 0 before it served.$")
        rewrite(tmp_path, source.format("second"))
        program.wait_for_line("True second$")
        page_of(program)
        assert program.stop() == 0
        assert program.members() == []


def test_what_is_new_in_the_folder_of_the_command_is_seen_from_elsewhere(tmp_path):
    (tmp_path / "script.py").write_text("import till\n")
    command = [sys.executable, "-c", START, str(ROOT), str(tmp_path / "script.py")]
    with Running(*command, cwd="/") as program:
        program.wait_for_line("^ModuleNotFoundError: No module named 'till'$")
        (tmp_path / "till.py").write_text("print('at work', flush=True)\n")
        program.wait_for_line("^at work$")
        page_of(program)
        assert program.stop() == 0


def test_a_module_is_run_too(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text("import sys\nprint(sys.argv[1:], flush=True)\n")
    command = [sys.executable, "-c", START, str(ROOT), "-m", "package", "argument"]
    with Running(*command, cwd=tmp_path) as program:
        program.wait_for_line(r"^\['argument'\]$")
        page_of(program)
        assert program.stop() == 0


def test_a_page_that_dies_is_shown_again_but_not_without_end(run, tmp_path):
    with run("raise ValueError('no')\n") as program:
        program.wait_for_line("^ValueError: no$")
        killed = []
        for _ in range(2):
            killed.append(page_of(program, killed))
            os.kill(killed[-1], signal.SIGKILL)
        page_of(program, killed)
        rewrite(tmp_path, "raise ValueError('yes')\n")
        program.wait_for_line("^ValueError: yes$")
        assert program.lines.count("ValueError: no") == 1
        page_of(program, killed)
        assert program.stop() == 0


def test_a_page_that_gets_a_signal_to_end_ends_all(run):
    with run("raise ValueError('no')\n") as program:
        os.kill(page_of(program), signal.SIGTERM)
        assert program.wait() == 0


def test_a_boot_that_does_not_listen_is_killed_by_the_second_signal(run):
    source = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    with run(f"{source}print('deaf', flush=True)\ntime.sleep(60)\n") as program:
        program.wait_for_line("^deaf$")
        process = psutil.Process(program.pid)
        program.send(signal.SIGTERM)
        await_that(lambda: not has_signal(process.pid, "ShdPnd", signal.SIGTERM))
        assert len(process.children()) == 1
        program.send(signal.SIGTERM)
        assert program.wait() == 128 + signal.SIGKILL
        assert program.members() == []


def page_of(program, but=()):
    """Return the PID of the program that shows an error, once it handles signals."""
    found = []

    def is_there():
        with contextlib.suppress(psutil.Error, FileNotFoundError, ProcessLookupError):  # it ends meanwhile
            for each in psutil.Process(program.pid).children():
                is_page = any("error_page" in argument for argument in each.cmdline())
                if is_page and each.pid not in but and has_signal(each.pid, "SigCgt", signal.SIGTERM):
                    found.append(each.pid)
        return found

    await_that(is_there)
    return found[0]


# Within a process


def test_a_unix_socket_of_another_program_is_not_removed(tmp_path):
    path = tmp_path / "site.sock"
    path.touch()
    unlink(SocketState("shop", f"unix:{path}", (1, 2), -1))
    assert path.exists()
    status = path.stat()
    unlink(SocketState("shop", f"unix:{path}", (status.st_dev, status.st_ino), -1))
    assert not path.exists()
    unlink(SocketState("shop", f"unix:{path}", (status.st_dev, status.st_ino), -1))
