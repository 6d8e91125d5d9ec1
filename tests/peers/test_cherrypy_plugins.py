"""The plugins of CherryPy, unchanged, on our bus."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request

import pytest
from cheroot import wsgi
from cherrypy.process import plugins, servers

from django_wspbus.wspbus import ChannelFailures, states
from tests.wspbus.conftest import DEADLINE


def test_a_simple_plugin_listens_on_the_channels_that_its_methods_are_named_after(bus):
    calls = []

    class Plugin(plugins.SimplePlugin):
        def start(self):
            calls.append("start")

        start.priority = 75

        def stop(self):
            calls.append("stop")

        def order_paid(self, number):
            calls.append(number)

    bus.listeners.setdefault("order_paid", set())
    plugin = Plugin(bus)
    plugin.subscribe()
    bus.subscribe("start", lambda: calls.append("74"), 74)
    bus.start()
    bus.publish("order_paid", 7)
    plugin.unsubscribe()
    bus.publish("order_paid", 8)
    bus.exit()
    assert calls == ["74", "start", 7]


def test_a_monitor_calls_back_in_its_thread_until_the_bus_stops(bus, journal):
    called = threading.Event()
    callers = set()

    def callback():
        callers.add(threading.current_thread())
        called.set()

    monitor = plugins.Monitor(bus, callback, frequency=0.01, name="the monitor")
    monitor.subscribe()
    bus.start()
    thread = monitor.thread
    assert called.wait(DEADLINE)
    bus.graceful()
    renewed = monitor.thread
    bus.exit()
    assert monitor.thread is None
    for each in (thread, renewed):
        each.join(DEADLINE)
        assert not each.is_alive()
    assert callers <= {thread, renewed}
    assert renewed is not thread
    assert journal.lines.count("Started monitor thread 'the monitor'.") == 2
    assert journal.lines.count("Stopped thread 'the monitor'.") == 2


def test_a_monitor_may_exit_the_bus_that_joins_it(bus):
    monitor = plugins.Monitor(bus, bus.exit, frequency=0.01)
    monitor.subscribe()
    bus.start()
    bus.block()
    assert bus.state is states.EXITING


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_background_task_that_fails_logs_on_the_bus(bus, journal):
    task = plugins.BackgroundTask(0.01, lambda: 1 / 0, bus=bus)
    task.start()
    task.join(DEADLINE)
    (line,) = journal.lines
    assert line.startswith("Error in background task thread function")
    assert "ZeroDivisionError" in line


def test_a_thread_manager_publishes_the_threads_that_come_and_go(bus, in_thread):
    events = []
    plugins.ThreadManager(bus).subscribe()
    bus.subscribe("start_thread", lambda number: events.append(("start", number)))
    bus.subscribe("stop_thread", lambda number: events.append(("stop", number)))

    def serve():
        bus.publish("acquire_thread")
        bus.publish("acquire_thread")
        bus.publish("release_thread")

    bus.start()
    in_thread(serve).join(DEADLINE)
    assert events == [("start", 1), ("stop", 1)]
    bus.publish("acquire_thread")
    bus.exit()
    assert events[2:] == [("start", 1), ("stop", 1)]


def test_a_pid_file_is_there_from_start_to_exit(bus, tmp_path):
    path = tmp_path / "site.pid"
    plugins.PIDFile(bus, str(path)).subscribe()
    bus.start()
    assert path.read_text() == f"{os.getpid()}\n"
    bus.stop()
    assert path.exists()
    bus.exit()
    assert not path.exists()


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def get(port):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/", timeout=DEADLINE) as response:
        return response.read()


def test_a_server_adapter_serves_between_start_and_stop(bus, journal):
    for _ in range(2):
        server = wsgi.Server(("127.0.0.1", 0), hello, numthreads=2)
        adapter = servers.ServerAdapter(bus, server, server.bind_addr)
        adapter.subscribe()
        bus.start()
        port = server.bind_addr[1]
        assert get(port) == b"hello"
        bus.stop()
        with pytest.raises(OSError, match="refused"):
            get(port)
        adapter.unsubscribe()
    assert len([line for line in journal.lines if line.startswith("Serving on http://127.0.0.1:")]) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_that_cannot_start_fails_the_start_and_the_bus_exits(bus, journal):
    class Server(wsgi.Server):
        def prepare(self):
            raise OSError("no socket")

    servers.ServerAdapter(bus, Server(("127.0.0.1", 0), hello)).subscribe()
    with pytest.raises(ChannelFailures, match="no socket"):
        bus.start()
    assert bus.state is states.EXITING
    assert "Bus EXITED" in journal.lines
    for thread in threading.enumerate():
        if thread.name.startswith("HTTPServer "):  # which calls bus.exit() as well
            thread.join(DEADLINE)
            assert not thread.is_alive()


SITE = """
import os, sys
from cherrypy.process import plugins
from django_wspbus.wspbus import Bus


def say(*words, to=1):
    # CherryPy's handler works on top of whatever it interrupts, and print() does not let itself be.
    os.write(to, (" ".join(map(str, words)) + os.linesep).encode())


bus = Bus()
bus.subscribe("log", lambda msg, level: say(msg, to=2))
for channel in ("stop", "exit", "graceful"):
    bus.subscribe(channel, lambda channel=channel: say(channel))
plugin = getattr(plugins, sys.argv[1])
if sys.argv[1] == "Autoreloader":
    import edited
    plugin = plugin(bus, frequency=0.05, match="edited$")
    checked = []

    def look():
        run()
        if plugin.mtimes and not checked:
            checked.append(1)
            say("watching", edited.VALUE, os.getpid())

    run, plugin.callback = plugin.run, look
else:
    plugin = plugin(bus)
plugin.subscribe()
bus.start()
bus.defer(lambda: say("ready"))
bus.block()
say("end")
"""


def test_a_signal_handler_exits_on_sighup(run):
    process = run(SITE, "SignalHandler", flags=[])
    process.out.expect("ready")
    process.signal(signal.SIGHUP)
    assert process.finish() == ["ready", "stop", "exit", "end"]
    assert "Caught signal SIGHUP." in process.err.lines


def test_a_signal_handler_is_graceful_on_sigusr1_and_exits_on_sigterm(run):
    process = run(SITE, "SignalHandler", flags=[])
    process.out.expect("ready")
    process.signal(signal.SIGUSR1)
    process.out.expect("graceful")
    process.signal(signal.SIGTERM)
    assert process.finish() == ["ready", "graceful", "stop", "exit", "end"]


def test_an_autoreloader_executes_the_process_anew_when_a_module_is_edited(run, tmp_path):
    module = tmp_path / "edited.py"
    module.write_text("VALUE = 'old'")
    process = run(SITE, "Autoreloader", flags=["-B"])
    assert process.out.expect("watching old").split()[-1] == str(process.popen.pid)
    new = tmp_path / "new"
    new.write_text("VALUE = 'changed'")
    new.rename(module)  # in one step, as the program may read it at once
    assert process.out.expect("watching changed").split()[-1] == str(process.popen.pid)
    assert [line for line in process.out.lines if "watching" not in line] == [
        "ready",
        "stop",
        "exit",
        "ready",
    ]
    assert f"Restarting because {module} changed." in process.err.lines
