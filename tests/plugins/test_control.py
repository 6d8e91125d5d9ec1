"""The control socket of a site: what is left of it when it cannot be made, and at the end."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from django_wspbus.plugins import control
from django_wspbus.plugins.control import ControlSocket
from django_wspbus.wspbus import Bus


@pytest.mark.parametrize("end", ["exit", "abort", "unsubscribe"])
def test_the_file_of_a_socket_without_configuration_is_removed_at_the_end(
    socket_folder: Path, end: str
) -> None:
    plugin = ControlSocket(Bus(), True, lambda call: None)
    plugin.start()
    assert len(list(socket_folder.iterdir())) == 1
    getattr(plugin, end)()
    assert list(socket_folder.iterdir()) == []
    plugin.close()


def test_the_next_program_removes_the_file(socket_folder: Path) -> None:
    first = ControlSocket(Bus(), True, lambda call: None)
    first.start()
    second = ControlSocket(Bus(), True, lambda call: None, handed_over=first.hand_over())
    second.bind()
    second.start()
    assert len(list(socket_folder.iterdir())) == 1
    second.exit()
    assert list(socket_folder.iterdir()) == []


def test_a_socket_that_cannot_be_served_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(control, "ControlServer", fail)
    path = tmp_path / "control.sock"
    plugin = ControlSocket(Bus(), path, lambda call: None)
    plugin.bind()
    plugin.start()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(FileNotFoundError):
        client.connect(str(path))
