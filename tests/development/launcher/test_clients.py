"""The clients of the launcher's control socket, while a loop of the test plays the launcher and its site."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from django_wspbus.control import address, server
from django_wspbus.development.launcher import control
from django_wspbus.development.launcher.control import LauncherControl
from django_wspbus.development.launcher.start import LauncherStart
from django_wspbus.process.messages import Message
from django_wspbus.successor.invocation import Invocation
from django_wspbus.successor.state import ControlState, WaitingClient
from tests.control.conftest import replies, request
from tests.processes import DEADLINE
from tests.servers.load import await_that

NO_PROCESS = 2**22 + 1
"""A PID that no process of the system has."""


class Site:
    """The process of a site that serves, with its ``answer`` to a client that the launcher passes on."""

    serves = True

    def __init__(self, answer: Callable[[int, Message, socket.socket], object]) -> None:
        self.answer = answer


class Launcher:
    """The launcher's loop, which does at once what a client wants. ``outcome``: that of the next boot."""

    def __init__(self, start: LauncherStart) -> None:
        self.child: Any = None
        self.lines: list[str] = []
        self.signals: list[int] = []
        self.control = LauncherControl(start, lambda: self.control.attend(self), self.lines.append)
        self.outcome: Callable[[], object] = self.control.boots.note_started
        self.control.boots.begin(NO_PROCESS)

    def post(self, child: Any, message: Message, descriptors: list[int]) -> None:
        order: Any = message["control"]
        child.answer(order["number"], order, socket.socket(fileno=os.dup(descriptors[0])))

    def request_exit(self, number: int) -> None:
        self.signals.append(number)
        self.control.boots.end()

    def boot_again(self) -> None:
        self.control.boots.begin(NO_PROCESS)
        self.outcome()

    def connect(self) -> socket.socket:
        (name,) = [name for name in address.listed() if name.pid == os.getpid()]
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE)
        client.connect(name.address)
        return client

    def ask(self, action: str, **arguments: Any) -> list[Any]:
        """Return the replies to a request."""
        with self.connect() as client:
            client.sendall(request(action, **arguments))
            return replies(client)

    @property
    def is_idle(self) -> bool:
        return not self.control._calls._running and not self.control._waiting._running

    def close(self) -> None:
        self.control.close()
        await_that(lambda: self.is_idle)


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Launcher]]:
    monkeypatch.setattr(server, "REQUEST_TIMEOUT", DEADLINE)
    with ExitStack() as stack:

        def launch(control: ControlState | bool = True) -> Launcher:
            invocation = Invocation("", [], [], "/srv/shop", {})
            launcher = Launcher(LauncherStart(invocation, settings="shop.settings", control=control))
            stack.callback(launcher.close)
            return launcher

        yield launch


@pytest.fixture
def launcher(launch: Callable[..., Launcher]) -> Launcher:
    return launch()


def test_while_the_code_boots_the_launcher_answers_that_it_does(launcher: Launcher) -> None:
    (hello,) = launcher.ask("hello")
    assert (hello["result"]["pid"], hello["result"]["settings"]) == (os.getpid(), "shop.settings")
    (status,) = launcher.ask("status")
    found = status["result"]
    assert (found["condition"], found["state"], found["well"]) == ("starting", "STARTING", False)
    assert (found["directory"], found["last_failure"], found["servers"]) == ("/srv/shop", None, {})
    assert launcher.ask("ping") == [{"result": None}]
    assert launcher.ask("requests") == [
        {"error": "The site is starting. Try again when it serves.", "status": 1}
    ]


def test_code_that_does_not_boot_is_the_answer_to_every_action(launcher: Launcher) -> None:
    launcher.control.boots.note_failed("NameError: x", "shop/urls.py, line 1: NameError: x")
    found = launcher.ask("status")[0]["result"]
    assert (found["condition"], found["state"], found["reason"]) == ("failed", "STOPPED", "NameError: x")
    assert (found["well"], found["last_failure"]) == (False, "shop/urls.py, line 1: NameError: x")
    (reply,) = launcher.ask("graceful", fleet=True)  # it begins no deploy
    assert "does not boot" in reply["error"]
    (reply,) = launcher.ask("stacks")
    assert "does not boot" in reply["error"]
    assert "shop/urls.py, line 1: NameError: x" in reply["error"]


@pytest.mark.parametrize("action", ["graceful", "restart"])
def test_a_reload_boots_the_code_again_and_waits_for_the_outcome(launcher: Launcher, action: str) -> None:
    step, outcome = launcher.ask(action)
    assert step == {"step": "booting the site"}
    assert outcome["result"]["message"].startswith("Restarted in ")
    assert launcher.control.boots.last.number == 2


def test_a_reload_that_fails_says_why(launcher: Launcher) -> None:
    launcher.outcome = lambda: launcher.control.boots.note_failed("NameError: x", "line 1: NameError: x")
    _, outcome = launcher.ask("graceful")
    assert "line 1: NameError: x" in outcome["error"]
    launcher.outcome = launcher.control.boots.end
    assert launcher.ask("graceful")[1] == {"error": "The site exits.", "status": 1}


def test_a_client_of_a_stop_gets_the_outcome_before_the_launcher_ends(launcher: Launcher) -> None:
    with launcher.connect() as client:
        client.sendall(request("stop"))
        assert b"Stopped in " in client.recv(1000)
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):  # the end of the connection is that of the process
            client.recv(1)
        client.shutdown(socket.SHUT_RDWR)
    assert launcher.signals == [signal.SIGTERM]


def test_a_client_that_goes_is_not_waited_for(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LOOK_INTERVAL", 0.01)
    launcher.outcome = lambda: None
    with launcher.connect() as client:
        client.sendall(request("restart"))
        assert client.recv(1000) == b'{"step": "booting the site"}\n'
        assert not launcher.is_idle
    await_that(lambda: launcher.is_idle)
    assert launcher.control.boots.last.state == "starting"


@pytest.mark.parametrize("action", ["status", "stop"])
def test_a_site_that_serves_answers_in_place_of_the_launcher(launcher: Launcher, action: str) -> None:
    def answer(number: int, order: Message, client: socket.socket) -> None:
        with client:
            client.sendall(f"site does {order['action']}".encode())
            launcher.control.note_taken(number, is_taken=True)

    launcher.child = Site(answer)
    launcher.control.boots.note_started()
    with launcher.connect() as client:
        client.sendall(request(action))
        assert client.recv(1000) == f"site does {action}".encode()
        if action == "stop":  # the connection shows the end of the launcher
            await_that(lambda: launcher.control._until_end)
            (descriptor,) = launcher.control._until_end
            os.close(descriptor)
        assert client.recv(1000) == b""


def test_a_client_that_the_site_declines_gets_the_answer_of_the_launcher(launcher: Launcher) -> None:
    def decline(number: int, order: Message, client: socket.socket) -> None:
        client.close()
        launcher.control.note_taken(number, is_taken=False)

    launcher.child = Site(decline)
    launcher.control.boots.note_started()
    assert launcher.ask("ping") == [{"result": None}]
    launcher.child = None  # it has just ended, and the launcher has not noted that yet
    assert launcher.ask("ping") == [{"result": None}]


def test_a_client_of_a_site_that_ends_at_once_gets_the_answer_of_the_launcher(launcher: Launcher) -> None:
    def end(number: int, order: Message, client: socket.socket) -> None:
        client.close()
        launcher.control.note_end_of_site()

    launcher.child = Site(end)
    launcher.control.boots.note_started()
    assert launcher.ask("ping") == [{"result": None}]


def test_the_launcher_answers_for_a_site_that_hangs(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "TIME_TO_TAKE", 0.01)
    held: list[socket.socket] = []  # the process has the connection as well, and does nothing with it
    launcher.child = Site(lambda number, order, client: held.append(client))
    launcher.control.boots.note_started()
    error = f"The site process {NO_PROCESS} does not answer: it is stopped, or C code holds the GIL."
    assert launcher.ask("ping") == [{"error": error, "status": 1}]
    step, outcome = launcher.ask("stacks")
    assert step["step"].endswith("These are the stacks of its own process:")
    (process,) = outcome["result"]["processes"]
    assert f"There is no process {NO_PROCESS} here" in process["error"]
    with launcher.connect() as client:
        client.sendall(request("stop"))
        client.shutdown(socket.SHUT_WR)
        received = b""
        while b"result" not in received:
            received += client.recv(1000)
        assert b"Ending it." in received
        client.shutdown(socket.SHUT_RDWR)
    assert launcher.signals == [signal.SIGTERM]
    for client in held:
        client.close()


@pytest.mark.parametrize(("action", "result"), [(None, "Restarted in "), ("ping", None)])
def test_a_client_that_a_site_has_handed_back_gets_the_outcome_of_the_next_boot(
    launcher: Launcher, action: str | None, result: str | None
) -> None:
    client, other = socket.socketpair()
    with client:
        client.settimeout(DEADLINE)
        waiting = WaitingClient(other.detach(), began=0.0, action=action)
        launcher.control.note_waiting([asdict(waiting)], [waiting.descriptor])
        assert not launcher.is_idle
        launcher.boot_again()
        (reply,) = replies(client)
        assert reply["result"] is result if result is None else reply["result"]["message"].startswith(result)


def test_the_file_of_a_socket_that_the_command_has_made_is_removed_at_the_end(
    launch: Callable[..., Launcher], short: Path
) -> None:
    path = short / "control.sock"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    status = path.lstat()
    state = ControlState(sock.detach(), str(path), (status.st_dev, status.st_ino), [])
    launcher = launch(control=state)
    assert not os.get_inheritable(state.descriptor)
    launcher.control.close()
    assert list(short.iterdir()) == []


def test_the_launcher_starts_without_a_socket_that_cannot_be_made(
    launch: Callable[..., Launcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(address, "HAS_ABSTRACT_SOCKETS", False)
    monkeypatch.setattr(address, "folder_of", lambda uid: str(tmp_path / "file"))
    launcher = launch()
    assert launcher.lines == [
        "The control socket cannot be made: It is no folder. `wspbus` does not find this site."
    ]


def test_an_error_of_the_launcher_is_written_to_the_terminal(launcher: Launcher) -> None:
    def fail() -> None:
        raise KeyError("unexpected")

    launcher.boot_again = fail  # type: ignore[method-assign]
    assert launcher.ask("restart")[1]["error"] == "restart failed: KeyError: 'unexpected'"
    assert launcher.lines[0].endswith("KeyError: 'unexpected'")
