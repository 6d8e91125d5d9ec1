"""The main thread sleeps so that no signal is slept through."""

from __future__ import annotations

import signal

from .test_signals import SITE

AT_THE_LAST_MOMENT = (
    SITE
    + """
import os

sys.setswitchinterval(1e-6)
rounds = 200
begun = 0
come = 0

def count(number, frame):
    global come
    come += 1

def send():
    for number in range(rounds):
        while begun == number:  # until the main thread lets go of the interpreter, which it does to sleep
            pass
        os.kill(os.getpid(), signal.SIGUSR1)

signal.signal(signal.SIGUSR1, count)
threading.Thread(target=send).start()
bus.start()
for number in range(rounds):
    begun += 1
    assert bus.wait_for(lambda: come == begun, timeout=15), (come, begun)
bus.exit()
say(come)
"""
)


def test_a_signal_that_comes_just_before_the_main_thread_falls_asleep_wakes_it(run):
    assert run(AT_THE_LAST_MOMENT, "direct").finish() == ["200"]


KEEPS_ITS_WAKEUP_FD = (
    SITE
    + """
import socket

reader, writer = socket.socketpair()
writer.setblocking(False)
signal.set_wakeup_fd(writer.fileno())
bus.start()
bus.defer(lambda: signal.raise_signal(signal.SIGTERM))
say("ready")
bus.block()
assert signal.set_wakeup_fd(-1) == writer.fileno()
say(*reader.recv(100))
reader.close()
writer.close()
"""
)


def test_the_previous_wakeup_descriptor_is_restored_and_still_receives_signals(run):
    process = run(KEEPS_ITS_WAKEUP_FD, "direct")
    process.out.expect("ready")
    assert process.finish() == ["ready", str(int(signal.SIGTERM))]
