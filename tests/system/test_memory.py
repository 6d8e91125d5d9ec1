"""The private memory of a process."""

from __future__ import annotations

import os

from django_wspbus.system.memory import most_private_memory, private_memory


def test_the_private_memory_of_a_process_is_a_part_of_all_that_it_uses():
    private, most = private_memory(os.getpid()), most_private_memory(os.getpid())
    assert 10**6 < private <= most
    block = bytearray(b"x" * 50_000_000)
    assert private_memory(os.getpid()) >= private + 40_000_000
    del block


def test_a_process_that_has_ended_has_no_memory():
    assert private_memory(2**22 + 1) is None
    assert most_private_memory(2**22 + 1) is None
