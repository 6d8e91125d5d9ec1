"""Sockets that systemd passes: LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable

import pytest

from tests.processes import Running, free_port
from tests.projects import Project

from ..servers.clients import ask
from ..servers.conftest import KINDS, configure
from ..servers.faults import rows
from ..servers.load import addresses_of

# What systemd does between fork and exec: sockets from 3 on, and the variables that tell of them.
PASS = """\
import fcntl
import os
import socket
import sys

kinds, names, whose, *command = sys.argv[1:]
sockets = []
for kind in kinds.split(","):
    sock = socket.socket()
    sock.bind(("127.0.0.1", int(os.environ.get("PORT", 0))))
    if kind == "listening":
        sock.listen()
    print("port", sock.getsockname()[1], flush=True)
    sockets.append(fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 20))
    sock.close()
for index, descriptor in enumerate(sockets):
    os.dup2(descriptor, 3 + index)
pid = os.getpid() if whose == "own" else os.getppid()
os.environ.update(LISTEN_FDS=str(len(sockets)), LISTEN_PID=str(pid))
if names:
    os.environ["LISTEN_FDNAMES"] = names
if kinds == "closed":
    os.close(3)
if kinds == "file":
    os.dup2(os.open(os.devnull, os.O_RDONLY), 3)
os.execv(sys.executable, [sys.executable, *command])
"""


@pytest.fixture
def passing(shop: Project) -> Callable[..., Running]:
    """Return a site that is passed sockets: "listening,bound", "closed" or "file", their names and owner."""
    shop.write("pass.py", PASS)

    def start(kinds: str = "listening", names: str = "", whose: str = "own", **variables: str) -> Running:
        command = ("pass.py", kinds, names, whose, shop.manage, "runbus", "-v2")
        return shop.start(*command, **variables)

    return start


def ports(site: Running, count: int) -> list[str]:
    site.wait_for_line(r"^port ", count=count)
    return [line.split()[1] for line in site.lines if line.startswith("port ")]


@pytest.mark.extended
def test_each_server_takes_the_sockets_that_it_names_and_keeps_them_over_a_restart(
    shop: Project, passing: Callable[..., Running]
) -> None:
    configure(
        shop,
        {
            "public": {**KINDS["gthread"], "BIND": ["systemd", "127.0.0.1:0"]},
            "admin": {**KINDS["threaded"], "BIND": "systemd:admin"},
        },
    )
    with passing("listening,listening,listening", "web:admin:web2") as site:
        web, admin, web2 = ports(site, 3)
        for round_ in (1, 2):
            site.wait_for_line("^Quit with", count=round_)
            pids = [ask(f"127.0.0.1:{port}")[1].split()[0] for port in (web, admin, web2)]
            assert pids[1] == str(site.pid)
            assert pids[0] != str(site.pid)
            assert pids[2] != str(site.pid)
            if round_ == 1:
                site.send(signal.SIGUSR2)

        banner = [line for line in site.lines if line.startswith("  public")]
        assert f"http://127.0.0.1:{web}/ http://127.0.0.1:{web2}/ " in banner[1]
        assert site.stop() == 0


@pytest.mark.extended
def test_a_socket_on_the_address_of_a_server_is_taken_without_further_settings(
    shop: Project, passing: Callable[..., Running]
) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    configure(shop, {"public": {**KINDS["sync"], "BIND": address}})
    with passing(PORT=str(port)) as site:
        site.wait_for_line("^Quit with")
        assert ask(address)[0] == 200
        site.send(signal.SIGUSR2)
        site.wait_for_line("^Quit with", count=2)
        assert ask(address)[0] == 200
        assert site.stop() == 0


@pytest.mark.extended
def test_a_socket_that_no_server_asks_for_is_named_in_the_log(
    shop: Project, passing: Callable[..., Running]
) -> None:
    configure(shop, {"public": KINDS["threaded"]})
    with passing() as site:
        (port,) = ports(site, 1)
        site.wait_for_line(f"systemd has passed a socket on 127.0.0.1:{port} that no BIND asks for")
        site.wait_for_line("^Quit with")
        assert site.stop() == 0


# As Twisted does when it is imported, and it is where "daphne" is in INSTALLED_APPS.
REMOVE = """
import os

for name in ("LISTEN_PID", "LISTEN_FDS"):
    os.environ.pop(name, None)
"""


@pytest.mark.extended
def test_a_library_that_removes_their_variables_does_no_harm(
    shop: Project, passing: Callable[..., Running]
) -> None:
    for name in ("listeners", "urls"):
        shop.write(f"shop/{name}.py", (shop.root / f"shop/{name}.py").read_text() + REMOVE)
    configure(shop, {"default": {**KINDS["gthread"], "BIND": ["systemd", "127.0.0.1:0"]}})
    with passing() as site:
        for round_ in (1, 2):
            site.wait_for_line("^Quit with", count=round_)
            statuses = [ask(address)[0] for address in addresses_of(site)]
            assert statuses == [200, 200]
            if round_ == 1:
                site.send(signal.SIGUSR2)
        assert site.stop() == 0


NO_SUCH_NAME = (
    "The server 'shop' cannot listen on systemd:web: systemd passed no such socket (it passed admin, one"
)
NO_SOCKET = "LISTEN_FDS is 1, but descriptor 3 is no socket"
UNFIT = {
    "no such name": ("systemd:web", ("listening,listening", "admin"), NO_SUCH_NAME),
    "closed": ("systemd", ("closed",), NO_SOCKET),
    "a file": ("systemd", ("file",), NO_SOCKET),
    "of another process": ("systemd", ("listening", "", "others"), "it passed none"),
    "not listening": ("systemd", ("bound",), "does not listen"),
}


@pytest.mark.parametrize("how", rows(UNFIT, 2))
def test_without_the_socket_that_is_asked_for_it_does_not_start(
    shop: Project, passing: Callable[..., Running], how: str
) -> None:
    bind, passed, says = UNFIT[how]
    configure(shop, {"shop": {**KINDS["threaded"], "BIND": bind}})
    with passing(*passed) as site:
        assert site.wait() == 1
        assert site.lines[-1].startswith("CommandError: ")
        assert says in site.lines[-1]


@pytest.mark.extended
def test_a_socket_of_systemd_itself_is_served(shop: Project) -> None:
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("no systemd-socket-activate on this machine")
    configure(shop, {"shop": {**KINDS["sync"], "BIND": "systemd:shop"}})
    port = free_port()
    command = (sys.executable, shop.manage, "runbus")
    listen = (activate, "-l", f"127.0.0.1:{port}", "--fdname=shop", "-E", "DJANGO_SETTINGS_MODULE")
    with shop.start(*listen, "-E", "TEST_PROGRAM", *command) as site:
        site.wait_for_line("Listening")
        assert ask(f"127.0.0.1:{port}")[0] == 200
        assert site.stop() == 0
