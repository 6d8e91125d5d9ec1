"""The record of a process: requests in flight, log records and stacks that the site reads at any time."""

from __future__ import annotations

import faulthandler
import os
import signal
import time

import pytest

from django_wspbus.process.record import Record
from django_wspbus.process.slots import BACK_TO_BACK, LONGEST_NAME


@pytest.fixture
def record():
    made = Record.make(4)
    yield made
    made.close()


@pytest.fixture
def seen(record):
    """The record as the site sees it."""
    seen = Record(os.dup(record.descriptor))
    yield seen
    seen.close()


class TestFields:
    def test_a_new_record_knows_its_birth_and_nothing_else(self, record):
        assert 0 <= time.monotonic() - record.born < 60
        assert (record.slots_count, record.pid, record.stage, record.retiring) == (4, 0, 0, 0)
        assert (record.wanted, record.threads, record.connections, record.beat) == (0, 0, -1, 0)

    def test_both_sides_see_what_either_writes(self, record, seen):
        record.pid, record.connections, record.beat = 4711, 3, 12.5
        seen.retiring, seen.wanted = 1, 7

        assert (seen.pid, seen.connections, seen.beat) == (4711, 3, 12.5)
        assert (record.retiring, record.wanted) == (1, 7)


class TestRequestsInFlight:
    def test_a_request_is_in_flight_from_its_begin_to_its_end(self, record, seen):
        assert list(seen.slots.in_flight()) == []

        record.slots.writers[2].begin(99, "GET /shop/", 5.0)
        record.slots.writers[2].progress(6.5)

        (request,) = seen.slots.in_flight()
        assert (request.slot, request.thread, request.name) == (2, 99, "GET /shop/")
        assert (request.started, request.progressed, seen.slots.answered) == (5.0, 6.5, 0)

        record.slots.writers[2].end(7.0)

        assert list(seen.slots.in_flight()) == []
        assert seen.slots.answered == 1

    def test_each_request_of_a_slot_has_another_serial(self, record):
        serials = []
        for moment in range(1, 4):
            record.slots.writers[0].begin(1, "GET /", float(moment))
            serials += [request.serial for request in record.slots.in_flight()]
            record.slots.writers[0].end(moment + 0.5)

        assert len(set(serials)) == 3

    def test_a_long_path_is_cut_and_a_cut_character_is_replaced(self, record):
        record.slots.writers[0].begin(1, "GET /" + "Ã¤" * LONGEST_NAME, 1.0)

        (request,) = record.slots.in_flight()
        assert request.name.startswith("GET /ääää")
        assert len(request.name.encode()) <= LONGEST_NAME + 3

    def test_a_thread_is_busy_since_its_last_pause(self, record):
        record.slots.writers[1].begin(1, "GET /", 10.0)
        record.slots.writers[1].end(11.0)
        record.slots.writers[1].begin(1, "GET /", 11.0 + BACK_TO_BACK / 2)
        assert record.slots.busy_threads(12.0) == [10.0]

        record.slots.writers[1].end(12.0)
        assert record.slots.busy_threads(12.0 + BACK_TO_BACK / 2) == [10.0]
        assert record.slots.busy_threads(12.0 + 2 * BACK_TO_BACK) == []

        record.slots.writers[1].begin(1, "GET /", 13.0)
        assert record.slots.busy_threads(13.5) == [13.0]

    def test_another_name_or_thread_in_a_slot_replaces_the_last_one(self, record, seen):
        slot, found = record.slots.writers[0], []
        for number, (thread, name) in enumerate([(1, "GET /a"), (1, "GET /a"), (1, "GET /b"), (2, "GET /b")]):
            slot.begin(thread, name, 1.0 + number / 1000)  # back to back
            found += [(each.thread, each.name, each.started) for each in seen.slots.in_flight()]
            slot.end(1.0005 + number / 1000)

        assert found == [(1, "GET /a", 1.0), (1, "GET /a", 1.001), (1, "GET /b", 1.002), (2, "GET /b", 1.003)]
        assert seen.slots.answered == 4

    def test_the_progress_of_a_request_is_not_that_of_the_one_before(self, record, seen):
        slot = record.slots.writers[0]
        slot.begin(1, "GET /", 1.0)
        slot.progress(1.5)
        slot.end(2.0)
        slot.begin(1, "GET /", 2.01)

        (request,) = seen.slots.in_flight()
        assert (request.started, request.progressed, request.serial) == (2.01, 2.01, 2)

    def test_a_reader_never_sees_parts_of_two_requests(self, record):
        slot = record.slots.writers[0]
        names = ["GET /" + letter * 190 for letter in "ab"]
        writer = os.fork()
        if not writer:
            for moment in range(1, 10**7):
                slot.begin(moment % 2, names[moment % 2], float(moment))
                slot.end(moment + 0.5)
            os._exit(0)
        try:
            found, deadline = set(), time.monotonic() + 20
            while len(found) < 2 and time.monotonic() < deadline:
                for _ in range(5000):
                    found |= {(each.thread, each.name, each.started % 2) for each in record.slots.in_flight()}
        finally:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)

        assert found == {(0, names[0], 0.0), (1, names[1], 1.0)}


class TestLogRecords:
    def test_a_reader_goes_on_where_it_has_stopped(self, record, seen):
        record.ring.write(b"first")
        entries, position = seen.ring.read()
        assert entries == [b"first"]

        record.ring.write(b"second")
        record.ring.write(b"")
        assert seen.ring.read(position)[0] == [b"second", b""]

    def test_new_entries_overwrite_the_oldest_ones(self, record, seen):
        written = [b"%d " % number * (number % 50 + 1) for number in range(20_000)]
        for entry in written:
            record.ring.write(entry)

        entries, _ = seen.ring.read()

        assert 100 < len(entries) < len(written)
        assert entries == written[-len(entries) :]
        assert seen.ring.read(5)[0] == entries  # a position that has been overwritten

    def test_an_entry_longer_than_the_ring_is_cut(self, record):
        record.ring.write(b"x" * (2 * record.ring.size))
        record.ring.write(b"after")

        entries, _ = record.ring.read()

        assert [len(entry) for entry in entries] == [record.ring.size // 4, 5]


class TestStacks:
    def test_each_dump_replaces_the_one_before(self, record, seen):
        def wait_here(event):
            event.wait()

        for _ in range(2):
            seen.begin_dump()
            faulthandler.dump_traceback(record.descriptor, all_threads=True)
            assert seen.read_dump().count("test_each_dump_replaces_the_one_before") == 1

        assert record.pid == 0  # the rest of the record is as it was

    def test_a_signal_makes_another_process_dump_its_stacks(self, record, seen):
        ready, done = os.pipe()
        child = os.fork()
        if not child:
            faulthandler.register(signal.SIGUSR2, file=record.descriptor, all_threads=True)
            os.write(done, b"r")
            signal.pause()
            os._exit(0)
        try:
            assert os.read(ready, 1) == b"r"
            seen.begin_dump()
            os.kill(child, signal.SIGUSR2)
            deadline = time.monotonic() + 20
            while "test_a_signal_makes" not in seen.read_dump() and time.monotonic() < deadline:
                os.sched_yield()
            assert "test_a_signal_makes" in seen.read_dump()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(ready)
            os.close(done)
