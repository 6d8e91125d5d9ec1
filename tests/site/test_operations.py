"""The operations that clients of the control socket follow."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from django_wspbus.control.calls import Call, ClientGone
from django_wspbus.control.protocol import Request
from django_wspbus.site.following import Follower
from django_wspbus.site.operations import Operations
from django_wspbus.wspbus import Bus


def test_a_client_that_is_interrupted_between_two_steps_is_noticed() -> None:
    site: Any = SimpleNamespace(bus=Bus())
    mine, other = socket.socketpair()
    with mine:
        other.close()
        with pytest.raises(ClientGone):
            Operations(site, [])._show_steps(Call(Request("graceful"), mine), Follower("reload"))
