"""A restart whose dry run has passed and whose program fails nevertheless: the children serve on."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.processes import DEADLINE
from tests.servers.conftest import GUNICORN, address_of, configure
from tests.servers.load import Load, Shop, await_that, await_version, status_of, version_of

# What happens between the dry run and the exec.
SPOIL = """\
from pathlib import Path

here = Path(__file__).parent.parent


@bus.subscribe("exit", role="site")
def spoil():
    exec((here / "spoil.py").read_text())
"""
APPEND = "(here / '{file}').open('a').write({source!r})"
IN_SETTINGS = "\nif 'DJANGO_WSPBUS_KEPT' in __import__('os').environ: {statement}\n"
PLUGIN = "\nWSPBUS['PLUGINS'] = [{'BACKEND': 'shop.nowhere.Plugin'}]\n"

FAULTS = {
    "settings": ("settings.py", "\n1 / 0\n", "settings.py, line .*: ZeroDivisionError: division by zero"),
    "an exit": (
        "settings.py",
        IN_SETTINGS.format(statement="raise SystemExit(7)"),
        "its boot ended with status 7.",
    ),
    "a plugin": ("settings.py", PLUGIN, "'shop.nowhere.Plugin' does not import"),
    "a check": ("settings.py", "\nWSPBUS['NO_SUCH'] = 1\n", r"WSPBUS\[\"NO_SUCH\"\]|E001"),
    "a hang": (
        "settings.py",
        IN_SETTINGS.format(statement="__import__('time').sleep(60)"),
        r"its boot took longer than 8 seconds \(WSPBUS\[\"READY_TIMEOUT\"\]\)",
    ),
}
SAID = "^The restarted site did not start, with status"


@pytest.fixture
def spoiled(shop: Shop) -> Shop:
    shop.listeners(SPOIL)
    shop.write("spoil.py", "")
    return shop


@pytest.mark.extended
@pytest.mark.parametrize("fault", FAULTS)
def test_the_children_serve_on_and_the_mended_site_is_whole_again(spoiled: Shop, fault: str) -> None:
    file, source, reason = FAULTS[fault]
    server = {"BACKEND": GUNICORN, "OPTIONS": {"threads": 4}}
    timeout = 8 if fault == "a hang" else DEADLINE
    configure(spoiled, {"default": server}, PIDFILE="site.pid", READY_TIMEOUT=timeout)
    path = spoiled.root / file
    good = path.read_text()
    with spoiled.serve("-v2") as site:
        address = address_of(site)
        with Load(address, keep_alive=1, one_shot=1, slow=0, think=0.05) as load:
            load.wait_for_all()
            spoiled.write("spoil.py", APPEND.format(file=file, source=source))
            site.send(signal.SIGUSR2)
            site.wait_for_line(SAID)
            site.wait_for_line(reason)
            load.wait_for_all()
            assert site.process.poll() is None
            path.write_text(good)
            spoiled.write("spoil.py", "")
            new = spoiled.deploy()
            site.send(signal.SIGUSR2)
            site.wait_for_line("^Quit with", count=2)
            load.wait_for_all(lambda answer: answer.version == new)  # the site reloads by itself
            await_that(lambda: status_of(address)["condition"] == "ready")
            load.finish()
        assert status_of(address)["pid"] == site.pid
        assert (spoiled.root / "site.pid").read_text() == f"{site.pid}\n"
        assert len([line for line in site.lines if line.startswith(SAID.lstrip("^"))]) == 1
        assert site.stop() == 0
        assert site.members() == []
    assert not (spoiled.root / "site.pid").exists()


@pytest.mark.extended
def test_a_site_that_gets_sigterm_meanwhile_ends_its_children_and_leaves_nothing(
    spoiled: Shop, short: Path
) -> None:
    bind = ["127.0.0.1:0", f"unix:{short}/site.sock"]
    configure(spoiled, {"default": {"BACKEND": GUNICORN, "BIND": bind}}, PIDFILE="site.pid")
    with spoiled.serve() as site:
        site.wait_for_line("^Quit with")
        spoiled.write("spoil.py", APPEND.format(file="settings.py", source="\n1 / 0\n"))
        site.send(signal.SIGUSR2)
        site.wait_for_line(SAID)
        assert site.stop() == 1
        assert site.members() == []
    assert not (spoiled.root / "site.pid").exists()
    assert not (short / "site.sock").exists()


@pytest.mark.extended
@pytest.mark.parametrize(
    "failure", ["no interpreter", pytest.param("no directory", marks=pytest.mark.extended)]
)
def test_an_exec_that_the_system_refuses_is_tried_again(spoiled: Shop, short: Path, failure: str) -> None:
    configure(spoiled, {"default": {"BACKEND": GUNICORN}})
    environment = short / "venv"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    (environment / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    (environment / "lib").symlink_to(Path(sys.prefix) / "lib")
    gone = python if failure == "no interpreter" else spoiled.root
    with spoiled.start(str(python), spoiled.manage, "runbus", "-v2") as site:
        address = address_of(site)  # type: ignore[arg-type]
        spoiled.write("spoil.py", f"Path({str(gone)!r}).rename({str(gone) + '-gone'!r})")
        site.send(signal.SIGUSR2)
        site.wait_for_line(f"{SAID} 1: .*No such file or directory: {gone}")
        assert version_of(address) == 1
        Path(f"{gone}-gone").rename(gone)
        spoiled.write("spoil.py", "")
        new = spoiled.deploy()
        site.wait_for_line("^Quit with", count=2)
        site.send(signal.SIGUSR1)
        await_version(address, new)
        assert site.stop() == 0
        assert site.members() == []


START_FAULTS = {
    "raises": "1 / 0",
    "ends the process": "raise SystemExit(3)",
}


@pytest.mark.extended
@pytest.mark.parametrize("how", ["ends the process", pytest.param("raises", marks=pytest.mark.extended)])
def test_a_start_listener_of_the_next_program_does_not_end_the_children(shop: Shop, how: str) -> None:
    configure(shop, {"default": {"BACKEND": GUNICORN}})
    with shop.serve("-v2") as site:
        address = address_of(site)
        shop.listeners(f"@bus.subscribe('start', role='site')\ndef fail():\n    {START_FAULTS[how]}\n")
        site.send(signal.SIGUSR2)
        await_that(lambda: status_of(address)["condition"] == "failed")
        assert status_of(address)["pid"] == site.pid
        shop.listeners("")
        new = shop.deploy()
        site.send(signal.SIGUSR2)
        await_version(address, new)
        await_that(lambda: status_of(address)["condition"] == "ready")
        assert site.stop() == 0
