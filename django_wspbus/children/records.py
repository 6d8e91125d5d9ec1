"""The records that the processes of a child hand to the site: see `process.record`."""

from __future__ import annotations

import logging
import os

from ..process.messages import Message
from ..process.record import Record

logger = logging.getLogger("django_wspbus")


def take_record(records: dict[int, Record], message: Message, descriptors: list[int]) -> None:
    """Keep the record that came with the `Hello` of a process, by its PID; close all other descriptors.

    A process that opens a further link hands its record over again.
    """
    is_hello = message.get("report") == "Hello"
    pid = message.get("pid", 0)
    if is_hello and not descriptors and message.get("role") == "worker" and pid not in records:
        logger.warning("Worker %s came without its record: it is not replaced by any limit.", pid)
    if is_hello and descriptors:
        descriptor = descriptors.pop(0)
        try:
            record = Record(descriptor)
        except Exception:  # the process serves without one, and its messages count all the same
            os.close(descriptor)
            logger.exception("The record of process %s cannot be read.", pid)
        else:
            before = records.get(pid)
            records[pid] = record
            if before is not None:
                before.close()
    while descriptors:
        os.close(descriptors.pop())
