"""The sockets of a site: bound at start, closed at exit, and refused with a reason."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_wspbus.children.dry_run import PlannedSocket
from django_wspbus.conf.addresses import parse
from django_wspbus.servers.sockets import Sockets
from django_wspbus.sockets.binding import explain
from django_wspbus.sockets.bound import Bound
from django_wspbus.system.ownership import Owner
from django_wspbus.wspbus import Bus, ChannelFailures, Refusal
from tests.processes import DEADLINE

from .clients import connect

Bind = Callable[..., list[Bound]]

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def bind() -> Iterator[Bind]:
    """Start a bus with the sockets of one server, "shop"; at the end of the test it exits."""
    buses = []

    def start(*binds: str, **options: object) -> list[Bound]:
        bus = Bus()
        buses.append(bus)
        sockets = Sockets(bus, {"shop": (tuple(map(parse, binds)), 5)}, **options)  # type: ignore[arg-type]
        sockets.subscribe()
        bus.start()
        return sockets.bound["shop"]

    start.buses = buses  # type: ignore[attr-defined]
    yield start
    for bus in buses:
        bus.exit()


def refusal(bind: Bind, *binds: str) -> str:
    with pytest.raises(ChannelFailures) as caught:
        bind(*binds)
    (error,) = caught.value.get_instances()
    assert isinstance(error, Refusal)
    assert error.status == 1
    return str(error)


def test_port_0_is_any_free_port_and_the_name_has_its_number(bind: Bind) -> None:
    one, other, wildcard = bind("127.0.0.1:0", "[::1]:0", ":0")

    ports = [bound.socket.getsockname()[1] for bound in (one, other, wildcard)]
    assert one.name == f"127.0.0.1:{ports[0]}"
    assert one.url == f"http://127.0.0.1:{ports[0]}/"
    assert other.name == f"[::1]:{ports[1]}"
    assert other.url == f"http://[::1]:{ports[1]}/"
    assert wildcard.name == f"0.0.0.0:{ports[2]}"
    assert wildcard.url == f"http://127.0.0.1:{ports[2]}/"
    for bound in (one, other):
        connect(bound.name).close()


def test_the_wildcard_of_ipv6_is_shown_as_an_address_for_a_browser(bind: Bind) -> None:
    (bound,) = bind("[::]:0")

    assert bound.url == f"http://[::1]:{bound.socket.getsockname()[1]}/"


@pytest.mark.parametrize("name", ["localhost:0", "ip6-only.test:0"])
def test_a_host_name_is_looked_up(bind: Bind, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    look_up = socket.getaddrinfo

    def only_ipv6(host: str, port: int, family: int, kind: int) -> object:
        if not host.endswith(".test"):
            return look_up(host, port, family, kind)
        if family == socket.AF_INET6:
            return look_up("::1", port, family, kind)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", only_ipv6)  # no machine has such a name for sure
    (bound,) = bind(name)

    expected = socket.AF_INET6 if name.startswith("ip6") else socket.AF_INET
    assert bound.socket.family == expected


def test_an_unknown_host_is_a_refusal(bind: Bind) -> None:
    assert refusal(bind, "nowhere.invalid:0").startswith(
        "The server 'shop' cannot listen on nowhere.invalid:0: "
    )


def test_an_ipv6_address_on_a_machine_without_it_is_a_refusal(
    bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*args: object) -> object:
        raise socket.gaierror(socket.EAI_ADDRFAMILY, "Address family for hostname not supported")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    assert "cannot listen on [::1]:0: address family for hostname not supported" in refusal(bind, "[::1]:0")


@pytest.mark.parametrize(
    ("text", "says"),
    [("127.0.0.1:80", "permission denied (ports below 1024 need root)"), ("unix:/s", "permission denied")],
)
def test_an_address_that_only_root_may_bind_is_explained(text: str, says: str) -> None:
    assert explain(PermissionError(errno.EACCES, "Permission denied"), parse(text), [], Owner()) == says


def test_an_address_of_another_machine_is_a_refusal(bind: Bind) -> None:
    assert "cannot listen on 203.0.113.7:8000: cannot assign" in refusal(bind, "203.0.113.7:8000")
    assert "cannot listen on [2001:db8::7]:8000: cannot assign" in refusal(bind, "[2001:db8::7]:8000")


def test_sockets_outlive_a_stop_and_are_closed_at_exit(bind: Bind) -> None:
    (bound,) = bind("127.0.0.1:0")
    (bus,) = bind.buses  # type: ignore[attr-defined]
    bus.stop()
    bus.start()
    connect(bound.name).close()
    name = bound.name
    bus.exit()

    with pytest.raises(ConnectionRefusedError):
        connect(name)
    bus.start()
    connect(name.rpartition(":")[0] + f":{port_of(bus)}").close()


def port_of(bus: Bus) -> int:
    (start,) = bus.listeners["start"]
    port: int = start.__self__.bound["shop"][0].socket.getsockname()[1]  # type: ignore[attr-defined]
    return port


def test_the_refusal_of_a_busy_port_names_the_server_and_closes_the_sockets_bound_before(
    bind: Bind, short: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        reason = refusal(bind, f"unix:{short}/first.sock", address)

    assert (
        reason == f"The server 'shop' cannot listen on {address}: the address is in use by another process."
    )
    assert list(short.iterdir()) == []


# Unix sockets


@pytest.mark.parametrize(("umask", "mode"), [(None, 0o777), (0o007, 0o770), (0o077, 0o700)])
def test_a_unix_socket_has_the_mode_that_the_umask_leaves(
    bind: Bind, short: Path, umask: int | None, mode: int
) -> None:
    before = os.umask(0o022)
    try:
        (bound,) = bind(f"unix:{short}/s", umask=umask)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)

    assert stat.S_IMODE((short / "s").stat().st_mode) == mode
    assert bound.name == bound.url == f"unix:{short}/s"
    connect(bound.name).close()


@pytest.mark.extended
@needs_root
def test_a_unix_socket_is_given_to_its_owner(bind: Bind, short: Path) -> None:
    bind(f"unix:{short}/s", owner=Owner(NOBODY, NOBODY, (NOBODY,)))

    status = (short / "s").stat()
    assert (status.st_uid, status.st_gid) == (NOBODY, NOBODY)


@needs_root
def test_a_stale_socket_that_the_owner_may_not_replace_is_to_be_removed(bind: Bind, short: Path) -> None:
    os.chown(short, NOBODY, NOBODY)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short / "s"))
    with pytest.raises(ChannelFailures, match=f"uid {NOBODY} may not replace the socket of uid 0: remove it"):
        bind(f"unix:{short}/s", owner=Owner(NOBODY, NOBODY, (NOBODY,)))


def test_a_unix_socket_that_cannot_be_given_away_leaves_no_file(
    bind: Bind, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)  # which root may, and others may not
    with pytest.raises(ChannelFailures, match="operation not permitted"):
        bind(f"unix:{short}/s", owner=Owner(NOBODY))

    assert list(short.iterdir()) == []


def test_the_socket_of_a_dead_process_is_replaced(bind: Bind, short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short / "s"))
        dead.listen()
    os.link(short / "s", short / "old")
    (bound,) = bind(f"unix:{short}/s")

    connect(bound.name).close()
    assert not (short / "s").samefile(short / "old")


@pytest.mark.parametrize("backlog", [5, 0])
def test_the_socket_of_a_live_process_is_refused(bind: Bind, short: Path, backlog: int) -> None:
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as first:
        live.bind(str(short / "s"))
        live.listen(backlog)
        first.connect(str(short / "s"))  # with which a backlog of 0 is full
        reason = refusal(bind, f"unix:{short}/s")

    assert reason == (
        f"The server 'shop' cannot listen on unix:{short}/s: the address is in use by another process."
    )
    assert (short / "s").is_socket()


def test_a_socket_of_another_kind_is_refused(bind: Bind, short: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(short / "s"))

        assert "protocol wrong type" in refusal(bind, f"unix:{short}/s")
    assert (short / "s").is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_file_that_is_no_socket_is_refused_and_stays(bind: Bind, short: Path, kind: str) -> None:
    path = short / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(short / "elsewhere")

    assert "a file that is no socket has this name" in refusal(bind, f"unix:{path}")
    assert [each.name for each in short.iterdir()] == ["s"]


def test_a_missing_folder_is_a_refusal(bind: Bind, short: Path) -> None:
    assert refusal(bind, f"unix:{short}/no/s").endswith("no such file or directory.")


def test_a_folder_without_permission_to_write_is_a_refusal(bind: Bind, short: Path) -> None:
    short.chmod(0o555)
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)  # root would be refused nothing
    try:
        reason = refusal(bind, f"unix:{short}/s")
    finally:
        os.seteuid(own)

    assert reason.endswith("permission denied.")


@pytest.mark.parametrize("channel", ["exit", "abort"])
def test_the_file_is_removed_in_the_end_if_it_is_still_ours(bind: Bind, short: Path, channel: str) -> None:
    ours, *_ = bind(*(f"unix:{short}/{name}" for name in ("a", "b", "c")), "[::1]:0")
    (short / "b").unlink()
    (short / "b").write_text("of another program")
    (short / "c").unlink()
    (bus,) = bind.buses  # type: ignore[attr-defined]
    if channel == "exit":
        bus.exit()
    else:
        (start,) = bus.listeners["start"]
        start.__self__.abort()

    assert [path.name for path in short.iterdir()] == ["b"]
    assert (short / "b").read_text() == "of another program"
    assert (ours.socket.fileno() == -1) is (channel == "exit")


# IPv4 and IPv6


@pytest.fixture
def port() -> int:
    """A port that is free in both families, below those that Linux gives to sockets by itself."""
    while True:
        port = random.randrange(20_000, 32_000)
        with (
            contextlib.suppress(OSError),
            socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True),
        ):
            return port


def families(port: int) -> list[str]:
    """Return at which addresses of this machine something listens."""
    found = []
    for host in ("127.0.0.1", "::1"):
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection((host, port), DEADLINE).close()
            found.append(host)
    return found


@pytest.mark.parametrize("ipv4", ["0.0.0.0", "127.0.0.1", "localhost", ""])
@pytest.mark.parametrize("is_first", [True, False])
def test_the_wildcard_of_ipv6_leaves_ipv4_to_a_socket_that_is_named_for_it(
    bind: Bind, port: int, ipv4: str, is_first: bool
) -> None:
    binds = [f"{ipv4}:{port}", f"[::]:{port}"]
    bounds = bind(*(binds if is_first else reversed(binds)))

    assert len(bounds) == 2
    assert families(port) == ["127.0.0.1", "::1"]


def test_the_wildcard_of_ipv6_alone_takes_ipv4_as_well(bind: Bind, port: int) -> None:
    bind(f"[::]:{port}", "127.0.0.1:0")

    assert families(port) == ["127.0.0.1", "::1"]


def test_both_wildcards_may_be_of_two_holders_and_of_a_program_to_come(port: int) -> None:
    binds = {"shop": ((parse(f"0.0.0.0:{port}"),), 5), 'WSPBUS["HEALTH"]': ((parse(f"[::]:{port}"),), 5)}
    sockets = Sockets(Bus(), binds)
    sockets.start()
    assert families(port) == ["127.0.0.1", "::1"]
    sockets.close()

    sockets = Sockets(Bus(), {"shop": ((parse("127.0.0.1:0"),), 5)})
    sockets.start()
    planned = [PlannedSocket("new", str(parse(text)), 5) for text in (f"[::]:{port}", f":{port}")]
    sockets.add(planned)
    assert families(port) == ["127.0.0.1", "::1"]
    sockets.close()


def test_a_socket_of_the_same_site_that_is_in_the_way_is_named(bind: Bind, port: int) -> None:
    reason = refusal(bind, f"127.0.0.1:{port}", f"localhost:{port}")
    assert reason.endswith(
        f"cannot listen on localhost:{port}: this site listens on 127.0.0.1:{port} already."
    )

    sockets = Sockets(Bus(), {"shop": ((parse(f"[::]:{port}"),), 5)})
    sockets.start()
    with pytest.raises(Refusal, match=r"this site listens on \[::\]:\d+ already"):
        sockets.add([PlannedSocket("new", f"0.0.0.0:{port}", 5)])
    sockets.close()
