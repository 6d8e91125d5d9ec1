"""The sites on a machine: the command finds them by their sockets, and talks to those of its user."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from django_wspbus.control import address, client, finding
from django_wspbus.control.address import Name
from django_wspbus.control.client import ask
from django_wspbus.control.conversation import ControlError
from django_wspbus.control.finding import FoundSite, at, choose, find
from django_wspbus.control.protocol import Entry, Error, Result, Step

from ..processes import DEADLINE
from .conftest import Served, request

OTHER = 65534
"""Another user."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
needs_abstract_sockets = pytest.mark.skipif(not address.HAS_ABSTRACT_SOCKETS, reason="Linux has them")


def hello(pid: int, project: str) -> dict[str, Any]:
    facts = {"project": project, "settings": f"{project}.settings", "directory": f"/srv/{project}"}
    return {"hello": lambda call: {"pid": pid, "uid": os.geteuid(), "version": "0.1.0", **facts}}


@pytest.fixture
def pid(monkeypatch: pytest.MonkeyPatch) -> int:
    """The PID that the sites of a test claim; no other site is found meanwhile, and none is too slow."""
    monkeypatch.setattr(finding, "HELLO_TIMEOUT", DEADLINE)
    everyone = address.listed
    claimed = 2 * 10**9 + 10 * os.getpid()
    monkeypatch.setattr(
        finding, "listed", lambda: [name for name in everyone() if name.pid in range(claimed, claimed + 10)]
    )
    return claimed


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_site_is_found_by_its_socket_and_says_which_one_it_is(serve: Any, pid: int) -> None:
    served = serve(hello(pid, "shop"), pid)
    (site,) = find()
    assert site == FoundSite(
        served.name, os.geteuid(), pid, "shop", "shop.settings", "/srv/shop", "0.1.0", trouble=""
    )
    assert choose(find()) == site
    assert choose(find(), pid=pid) == site
    for name in ("shop", "shop.settings", "/srv/shop"):
        assert choose(find(), project=name) == site
    assert at(served.name.text) == FoundSite(
        Name(served.name.text), os.geteuid(), pid, "shop", "shop.settings", "/srv/shop", "0.1.0"
    )


def test_without_a_site_the_error_says_so(pid: int) -> None:
    assert find() == []
    with pytest.raises(ControlError, match="No site of this user is running in this network namespace"):
        choose(find())
    with pytest.raises(ControlError, match="with the PID 5 and the project 'shop' is running"):
        choose(find(), pid=5, project="shop")


def test_several_sites_are_told_apart_by_pid_and_project(serve: Any, pid: int) -> None:
    serve(hello(pid, "shop"), pid)
    serve(hello(pid + 1, "blog"), pid + 1)
    with pytest.raises(ControlError, match="There are 2 sites: choose one with --pid or --project") as raised:
        choose(find())
    assert raised.value.status == 2
    assert [site.project for site in raised.value.sites] == ["shop", "blog"]
    assert choose(find(), pid=pid + 1).project == "blog"
    assert choose(find(), project="shop").pid == pid
    with pytest.raises(ControlError, match="with the project 'news' is running") as none:
        choose(find(), project="news")
    assert [(site.pid, site.project) for site in none.value.sites] == [(pid, "shop"), (pid + 1, "blog")]


def test_sites_with_equal_pids_are_told_apart_by_project(serve: Any, pid: int) -> None:
    serve(hello(pid, "shop"), pid)
    serve(hello(pid, "blog"), pid)
    with pytest.raises(ControlError, match="choose one with --project, as their PIDs are equal"):
        choose(find(), pid=pid)
    assert choose(find(), pid=pid, project="blog").project == "blog"


def test_two_sites_of_one_project_are_told_apart_by_pid(serve: Any, pid: int) -> None:
    serve(hello(pid, "shop"), pid)
    serve(hello(pid + 1, "shop"), pid + 1)
    with pytest.raises(ControlError, match=r"There are 2 sites: choose one with --pid\.$"):
        choose(find(), project="shop")


@pytest.mark.extended
def test_a_site_that_does_not_answer_is_listed_after_a_while(
    serve: Any, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "HELLO_TIMEOUT", 3)
    serve(hello(pid, "shop"), pid)
    stopped, _ = address.listen(pid + 1)
    with stopped:
        began = time.monotonic()
        answering, silent = sorted(find(), key=lambda site: site.pid)
        assert time.monotonic() - began < 10
        assert answering.trouble == ""
        assert silent.trouble.startswith("does not answer")
        with pytest.raises(ControlError, match=f"The site with the PID {pid + 1} does not answer: it is"):
            choose(find(), pid=pid + 1)
        with pytest.raises(ControlError, match="There are 2 sites"):
            choose(find())


def fill_queue(name: Name, waiting: socket.socket) -> None:
    """Fill a queue that has room for one client; another test that looks for sites may have done so."""
    waiting.setblocking(False)
    with suppress(BlockingIOError):
        waiting.connect(name.address)


def test_a_site_whose_queue_is_full_does_not_answer(pid: int) -> None:
    stopped, name = address.listen(pid)
    stopped.listen(0)
    with stopped, socket.socket(socket.AF_UNIX) as waiting:
        fill_queue(name, waiting)
        (site,) = find()
        assert site.trouble.startswith("does not answer")
        with pytest.raises(ControlError, match="does not answer"):
            next(ask(site, "status"))


@needs_root
@needs_abstract_sockets
def test_the_site_of_another_user_is_listed_and_refused(serve: Any, pid: int) -> None:
    serve(hello(pid, "shop"), pid)
    with acting_as(OTHER):
        (site,) = find()
        assert site.trouble == "belongs to the user with the uid 0"
        with pytest.raises(ControlError, match="belongs to the user with the uid 0"):
            choose(find(), pid=pid)
        with pytest.raises(ControlError, match="No site of this user is running") as raised:
            choose(find())
        assert raised.value.sites == [site]
        with pytest.raises(ControlError, match="belongs to the user with the uid 0"):
            next(ask(site, "hello"))


@needs_root
@needs_abstract_sockets
def test_a_client_sends_nothing_to_a_socket_of_another_user(pid: int) -> None:
    """The name claims to be of this user, as that of a malicious process would."""
    name = address.new_name(pid)
    liar = socket.socket(socket.AF_UNIX)
    liar.bind(name.address)
    with acting_as(OTHER):
        liar.listen()
    with liar:
        (site,) = find()
        assert site.trouble == f"is no site of its user: its socket belongs to the user with the uid {OTHER}"
        with pytest.raises(ControlError, match="is no site of its user"):
            next(ask(site, "stop"))
        liar.settimeout(5)
        for _ in range(2):
            with liar.accept()[0] as connection:
                connection.settimeout(5)
                assert connection.recv(1) == b""


@needs_root
@needs_abstract_sockets
@pytest.mark.parametrize("has_full_queue", [False, True])
def test_a_false_socket_beside_a_site_keeps_nobody_from_choosing_it(
    serve: Any, pid: int, has_full_queue: bool
) -> None:
    served = serve(hello(pid, "shop"), pid)
    name = address.new_name(pid)
    with socket.socket(socket.AF_UNIX) as liar, socket.socket(socket.AF_UNIX) as waiting:
        liar.bind(name.address)
        with acting_as(OTHER):
            liar.listen(0 if has_full_queue else address.BACKLOG)
        if has_full_queue:
            fill_queue(name, waiting)
        sites = find()
        assert choose(sites, pid=pid).name == choose(sites).name == served.name
        (false,) = [site for site in sites if site.name == name]
        assert false.trouble
        assert has_full_queue or false.uid == OTHER


@needs_root
@needs_abstract_sockets
def test_a_client_of_another_user_is_refused(serve: Any) -> None:
    served = serve({"hello": lambda call: "hello"})
    source = f"""
import os, socket
os.setuid({OTHER})
client = socket.socket(socket.AF_UNIX)
client.connect({served.name.address!r})
try:
    client.sendall({request("hello")!r})
except OSError:
    pass
print(client.recv(4096).decode(), end="")
"""
    # Without the variables of coverage, which this user could not write.
    command = [sys.executable, "-I", "-c", source]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert result.stderr == ""
    assert f"The user with the uid {OTHER} may not control this site." in result.stdout
    assert served.ask("hello") == {"result": "hello"}


def test_the_folder_of_sockets_is_private(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no abstract sockets; ``short``: a path may have about 100 characters."""
    monkeypatch.setattr(address, "HAS_ABSTRACT_SOCKETS", False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(short))
    folder = Path(address.folder_of(os.geteuid()))
    with Served(hello(5, "shop"), 5) as served:
        assert Path(served.name.text).parent == folder
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [site.project for site in find()] == ["shop"]
        folder.chmod(0o755)
        assert find() == []
        with pytest.raises(PermissionError, match="It is not private"):
            address.listen(6)
    folder.rename(short / "other")
    folder.symlink_to(short / "other")
    with pytest.raises(PermissionError, match="It is no folder"):
        address.listen(6)


# Asking


def test_replies_are_yielded_as_they_come(serve: Any, pid: int) -> None:
    def work(call: Any) -> str:
        call.step("booting")
        call.record({"text": "one"})
        return str(call.arguments["name"])

    serve({**hello(pid, "shop"), "work": work}, pid)
    (site,) = find()
    for timeout in (5, None):
        assert list(ask(site, "work", {"name": "x" * 50_000}, timeout=timeout)) == [
            Step("booting"),
            Entry({"text": "one"}),
            Result("x" * 50_000),
        ]
    assert list(ask(site, "work", {})) == [
        Step("booting"),
        Entry({"text": "one"}),
        Error("work failed: KeyError: 'name'"),
    ]
    with pytest.raises(ControlError, match="request has at most 65,536 bytes") as raised:
        list(ask(site, "work", {"name": "x" * 70_000}))
    assert raised.value.status == 2


def test_a_client_waits_for_a_reply_no_longer_than_it_says(serve: Any, pid: int) -> None:
    served = serve({**hello(pid, "shop"), "hang": lambda call: call.wait_until_gone(30)}, pid)
    with pytest.raises(ControlError, match=r"The site has not answered within 0\.1 seconds"):
        next(ask(at(served.name.text), "hang", timeout=0.1))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "The site has ended, or closed the connection, before it answered"),
        (b"nonsense\n", "The answer of the site was not understood"),
        (b'{"steps": 1}\n', "The answer of the site was not understood"),
        (b"x" * (2**24 + 70_000), "The site has sent more than 16,777,216 bytes in one reply"),
    ],
    ids=["end", "nonsense", "unknown", "huge"],
)
def test_a_wrong_answer_is_an_error(later: Any, pid: int, data: bytes, error: str) -> None:
    sock, name = address.listen(pid)

    def answer() -> None:
        while True:
            with sock.accept()[0] as connection:
                if b'"status"' not in connection.recv(4096):  # another test looks for sites
                    continue
                try:
                    connection.sendall(data)
                except OSError:  # the client has read enough
                    pass
                return

    with sock:
        later(answer)
        with pytest.raises(ControlError, match=error):
            next(ask(FoundSite(name, os.geteuid(), pid), "status", timeout=DEADLINE))


def test_a_site_that_has_ended_is_no_site(pid: int) -> None:
    with pytest.raises(ControlError, match="has ended"):
        next(ask(FoundSite(address.new_name(pid), os.geteuid(), pid), "status"))
    assert at("/nowhere/control.sock").trouble == "has ended: nothing listens there"


def test_a_client_of_a_stop_waits_while_the_process_lives(
    serve: Any, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(client, "END_TIMEOUT", 0.01)
    looked, ending = [], threading.Event()

    def look(pid: int) -> bool:
        looked.append(pid)
        if len(looked) > 5:
            ending.set()
        return True

    def stop(call: Any) -> str:
        call.send(Result("Stopped"))
        call.is_answered = True
        ending.wait(30)
        return ""

    monkeypatch.setattr(client, "is_running", look)
    served = serve({"stop": stop}, pid)
    site = FoundSite(served.name, os.geteuid(), pid)
    assert list(ask(site, "stop", timeout=None)) == [Result("Stopped")]
    assert set(looked) == {os.getpid()}
    monkeypatch.setattr(client, "is_running", lambda pid: False)
    ending.clear()
    with pytest.raises(ControlError, match="has not ended"):
        list(ask(site, "stop", timeout=None))
    ending.set()


def test_a_client_that_waits_as_long_as_it_takes_notices_that_the_site_hangs(
    pid: int, later: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CHECK_INTERVAL", 0.02)
    monkeypatch.setattr(client, "HELLO_TIMEOUT", 0.1)
    monkeypatch.setattr(client, "MOST_UNANSWERED", 1)
    sock, name = address.listen(pid)
    with sock:
        waiting = later(lambda: list(ask(FoundSite(name, os.geteuid(), pid), "graceful", timeout=None)))
        connection, _ = sock.accept()
        with connection, pytest.raises(ControlError, match="The site does not answer any more"):
            waiting.result(30)


def test_a_client_that_waits_as_long_as_it_takes_waits_while_the_site_lives(
    serve: Any, pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CHECK_INTERVAL", 0.02)
    pings, enough = [], threading.Event()

    def ping(call: Any) -> None:
        pings.append(call)
        if len(pings) > 2 * client.MOST_UNANSWERED:
            enough.set()

    served = serve({"graceful": lambda call: enough.wait(30), "ping": ping}, pid)
    assert list(ask(FoundSite(served.name, os.geteuid(), pid), "graceful", timeout=None)) == [Result(True)]
