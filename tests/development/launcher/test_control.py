"""The control socket of the launcher: what happens if it cannot be served, and at the end."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_wspbus.control.calls import Call
from django_wspbus.control.protocol import Request
from django_wspbus.development.launcher import control
from django_wspbus.development.launcher.control import LauncherControl
from django_wspbus.development.launcher.start import LauncherStart
from django_wspbus.successor.invocation import Invocation

START = LauncherStart(Invocation("", [], [], "/", {}), control=True)


def test_the_file_of_the_socket_is_removed_at_the_end(socket_folder: Path) -> None:
    launcher = LauncherControl(START, lambda: None, print)
    assert len(list(socket_folder.iterdir())) == 1
    launcher.close()
    assert list(socket_folder.iterdir()) == []


def test_the_launcher_starts_without_a_socket_that_cannot_be_served(
    socket_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(control, "ControlServer", fail)
    lines: list[str] = []
    launcher = LauncherControl(START, lambda: None, lines.append)
    assert list(socket_folder.iterdir()) == []
    assert "The control socket cannot be made: Too many open files" in lines[0]
    launcher.close()


def test_a_client_does_not_wait_for_a_loop_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "TIME_TO_DELIVER", 0.01)
    launcher = LauncherControl(replace(START, control=False), lambda: None, print)
    launcher.boots = SimpleNamespace(last=SimpleNamespace(state="serving"))  # type: ignore[assignment]
    posted: list[Any] = []
    child = SimpleNamespace(serves=True)
    mine, other = socket.socketpair()
    with mine, other, pytest.raises(RuntimeError, match="The launcher is busy"):
        launcher._pass_on(Call(Request("ping"), mine))
    launcher.attend(SimpleNamespace(child=child, post=lambda *args: posted.append(args)))  # type: ignore[arg-type]
    assert posted == []
