"""The program that answers while a project's code does not boot: real sockets, real clients, real files."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from django_wspbus.development.error_page.program import MOST_CONNECTIONS
from django_wspbus.development.launch import ErrorReport
from django_wspbus.process.messages import RELAUNCH, Link
from tests.processes import DEADLINE, ROOT, has_signal, wakeups
from tests.servers.load import await_that

PROGRAM = """
import sys
sys.path[:] = [sys.argv[1], *(path for path in sys.path if path)]
from django_wspbus.development.error_page import main
main(int(sys.argv[2]))
"""
PATIENT = """
import sys
sys.path.append(sys.argv[1])
from django_wspbus.development.error_page import connection, program
connection.TIME_FOR_BODY = program.TIME_TO_END = 1000
"""
LONG_AGO = """
import sys
sys.path.append(sys.argv[1])
from django_wspbus.development.error_page import program
program.TIME_TO_END = 1000
program.Connection.opened = property(lambda self: -1000, lambda self, now: None)
"""

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SOURCE = "one = 1\ntwo = <2>\n"


class ErrorPage:
    """The program in a folder, with the launcher's end of the pair, and the sockets it was given."""

    def __init__(self, folder, prelude=""):
        self.folder = folder
        ours, its = socket.socketpair()
        ours.settimeout(DEADLINE)
        self.link = Link(ours)
        with its:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", prelude + PROGRAM, str(ROOT), str(its.fileno())],
                pass_fds=[its.fileno()],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def serve(
        self,
        debug=True,
        hosts=(),
        probed=(),
        listeners=None,
        title="SyntaxError: invalid syntax (views.py, line 2)",
        text=None,
    ):
        path = self.folder / "views.py"
        error = f'Traceback (most recent call last):\n  File "{path}", line 2\n    two = <2>\n'
        error += "          ^\nSyntaxError: invalid syntax\n"
        report = ErrorReport(
            title,
            text or error,
            is_public=debug,
            root=str(self.folder),
            hosts=list(hosts),
            probed=list(probed),
        )
        sockets = listeners or [self.listener]
        self.link.send(asdict(report), [sock.fileno() for sock in sockets])
        return self

    def retry(self):
        """Tell it to end for another boot of the site."""
        self.link.send({"retry": True})

    def is_waiting(self):
        """Return whether it handles signals, and sleeps."""
        process = psutil.Process(self.process.pid)
        return process.status() == psutil.STATUS_SLEEPING and has_signal(
            process.pid, "SigCgt", signal.SIGTERM
        )

    def fetch(self, method="GET", path="/", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            with connection.getresponse() as response:
                return response, response.read().decode()

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)

    def wait(self):
        """Return the status, once it has ended; it has written nothing to the terminal."""
        output, _ = self.process.communicate(timeout=DEADLINE)
        assert output.decode() == ""
        return self.process.returncode


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "views.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture
def page(folder):
    with running(folder) as page:
        yield page


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A page that tests only look at."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "views.py").write_text(SOURCE)
    with running(folder) as page:
        page.serve(hosts=["shop.example", ".example.org"])
        yield page


@contextlib.contextmanager
def running(folder, prelude=""):
    page = ErrorPage(folder, prelude)
    try:
        yield page
        page.link.close()  # which ends it at any moment; a signal is handled only once it is ready
        assert page.wait() in (0, RELAUNCH)
    finally:
        page.process.kill()
        page.process.communicate()
        page.link.close()
        page.listener.close()


def read_all(sock):
    """Return all that comes, to the end of the connection."""
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


def ask(page, request):
    with page.connect() as sock:
        sock.sendall(request)
        return read_all(sock)


# Answers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE"])
def test_each_request_is_answered_with_the_error(page, method):
    page.serve()
    response, body = page.fetch(method, "/any/path?query=1", **BROWSER)
    assert response.status == 500
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Connection"] == "close"
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<h1>invalid syntax (views.py, line 2)</h1>" in body
    assert "two = &lt;2&gt;" in body
    assert ("isOfGet = true" in body) is (method == "GET")


def test_head_is_answered_without_a_body(page):
    page.serve()
    answer = ask(page, b"HEAD / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b""
    assert int(re.search(rb"Content-Length: (\d+)", head)[1]) > 1000


def test_other_clients_get_json_or_text(page):
    page.serve()
    _, body = page.fetch(Accept="application/json")
    assert json.loads(body)["error"] == "SyntaxError: invalid syntax (views.py, line 2)"
    assert json.loads(body)["traceback"].endswith("SyntaxError: invalid syntax\n")
    response, body = page.fetch(Accept="*/*")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert body.startswith("Traceback")


def test_a_terminal_gets_the_title_of_what_is_no_traceback(page):
    page.serve(title="CommandError", text="One.\nTwo, \udce4.\n")
    assert page.fetch()[1] == "CommandError\n\nOne.\nTwo, \\udce4.\n"
    assert "Two, \\udce4." in page.fetch(**BROWSER)[1]


@pytest.mark.parametrize("accept", ["text/html", "application/json", "*/*"])
def test_without_debug_nothing_is_said_of_the_error(page, accept):
    page.serve(debug=False)
    response, body = page.fetch(Accept=accept)
    assert response.status == 500
    assert "The site does not start at present; the reason is in its terminal." in body
    for secret in ("views.py", "SyntaxError", "two", "Traceback", str(page.folder)):
        assert secret not in body


def test_it_answers_on_every_kind_of_socket(page, tmp_path):
    with contextlib.ExitStack() as stack:
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        tcp6 = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        tcp6.setblocking(False)
        page.serve(listeners=[page.listener, unix, tcp6])
        clients = [page.connect(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_INET6)]
        clients[1].connect(str(tmp_path / "socket"))
        clients[2].connect(tcp6.getsockname())
        for client in clients:
            stack.enter_context(client)
            client.settimeout(DEADLINE)
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_all(client).startswith(b"HTTP/1.1 500 ")


def test_a_body_is_read_before_the_connection_is_closed(folder):
    with running(folder, PATIENT) as page:
        page.serve()
        assert page.fetch("POST", body=b"x" * 900_000)[0].status == 500
        assert page.fetch("POST", body=iter([b"x" * 400_000] * 2))[0].status == 500  # in chunks


def test_a_body_that_is_too_long_is_not_waited_for(folder):
    with running(folder, PATIENT) as page, page.connect() as sock:
        page.serve()
        sock.sendall(b"POST / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (1 << 20))
        assert sock.recv(100).startswith(b"HTTP/1.1 500 ")
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):  # noqa: PT012
            while True:
                sock.sendall(b"x" * 65536)


def test_a_body_that_does_not_come_is_not_waited_for(page):
    page.serve()
    begin = time.monotonic()
    assert ask(page, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nx").startswith(
        b"HTTP/1.1 500 "
    )
    assert time.monotonic() - begin >= 0.9
    answer = ask(
        page, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 500 ")


def test_a_client_that_has_sent_all_it_will_is_answered(page):
    page.serve()
    with page.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nx")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 500 ")


def test_what_is_no_request_is_refused_and_does_no_harm(page):
    page.serve()
    assert ask(page, b"hello\r\n").startswith(b"HTTP/1.1 400 ")
    context = ssl.create_default_context()
    with page.connect() as sock, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(sock, server_hostname="localhost")
    assert page.fetch()[0].status == 500


def test_resets_and_halves_of_requests_do_no_harm(page):
    page.serve()
    with contextlib.ExitStack() as stack:
        for number in range(60):
            sock = stack.enter_context(page.connect())
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"[: number % 64])
            if number % 3 == 0:  # a reset
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if number % 3 < 2:
                sock.close()
        assert page.fetch()[0].status == 500


def test_with_too_many_connections_the_oldest_makes_room(folder):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"
    with running(folder, limit) as page, contextlib.ExitStack() as stack:
        page.serve()
        clients = [stack.enter_context(page.connect()) for _ in range(60)]
        assert page.fetch()[0].status == 500
        assert read_all(clients[0]) == b""
        clients[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_all(clients[-1]).startswith(b"HTTP/1.1 500 ")


def test_of_very_many_connections_the_oldest_is_given_up(page):
    page.serve()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(page.connect()) for _ in range(MOST_CONNECTIONS + 1)]
        assert read_all(clients[0]) == b""
        clients[1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_all(clients[1]).startswith(b"HTTP/1.1 500 ")


def test_a_client_that_does_not_read_holds_up_no_other(page):
    page.serve(title="E: long", text="long " * 1_600_000)
    with page.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(9) == b"HTTP/1.1 "
        assert page.fetch("HEAD")[0].status == 500
        assert len(read_all(sock)) > 8_000_000


# Whom it answers


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


LOCALS = [
    "localhost",
    "LOCALHOST:1234",
    "shop.localhost",
    "127.0.0.1",
    "[::1]:8000",
    "localhost.",
    "127.0.0.1:80",
]


@pytest.mark.parametrize("host", [*LOCALS, "shop.example", "a.b.example.org", "example.org"])
def test_it_answers_for_this_machine_and_for_allowed_hosts(served, host):
    assert status_of(ask(served, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())) == 500


REFUSED = [
    "Host: evil.example",
    "Host: localhost.evil.example",
    "Host: notlocalhost",
    "Host: 10.0.0.1",
    "Host: localhost, evil.example",
    "Host: localhost\r\nHost: evil.example",
    "Host: localhost\r\nHost: localhost",
    "Host: evil.example\\@localhost",
    "Host: user@localhost",
    "Host: localhost:80:80",
    "Host: local host",
    "Host: [::1",
    "Host: [evil]",
    "Host:",
    "X-Forwarded-Host: localhost",
    "X: y",
]


@pytest.mark.parametrize("header", REFUSED)
@pytest.mark.parametrize("target", ["/", "/__wspbus_wait__", "/__wspbus_retry__"])
def test_it_says_nothing_to_another_host_to_none_or_to_several(served, header, target):
    answer = ask(served, f"GET {target} HTTP/1.1\r\n{header}\r\nAccept: text/html\r\n\r\n".encode())
    assert status_of(answer) == 400
    for secret in ("views.py", "SyntaxError", "two", "shop.example", str(served.folder)):
        assert secret.encode() not in answer


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost/", 500),
        ("http://localhost:80", 500),
        ("*", 500),
        ("//evil.example/", 500),
        ("http://evil.example/", 400),
        ("HTTP://evil.example", 400),
        ("http://localhost@evil.example/", 400),
        ("http://localhost:80@evil.example", 400),
        ("http:///", 400),
        ("ftp://localhost/", 400),
        ("evil.example:443", 400),
    ],
)
def test_a_target_that_names_a_host_names_an_allowed_one(served, target, status):
    assert status_of(ask(served, f"OPTIONS {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())) == status


def test_it_answers_for_the_address_that_a_client_has_connected_to(page):
    with socket.create_server(("127.0.0.2", 0)) as other:
        page.serve(listeners=[page.listener, other])
        head = b"GET / HTTP/1.1\r\nHost: 127.0.0.2\r\n\r\n"
        assert status_of(ask(page, head)) == 400
        with socket.create_connection(other.getsockname(), DEADLINE) as sock:
            sock.sendall(head)
            assert status_of(read_all(sock)) == 500


def test_probes_get_no_more_than_that_the_site_does_not_start(page):
    with socket.create_server(("127.0.0.1", 0)) as health:
        page.serve(listeners=[page.listener, health], probed=[1])
        with socket.create_connection(health.getsockname(), DEADLINE) as sock:
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n\r\n")
            answer = read_all(sock)
        assert status_of(answer) == 500
        assert b"views.py" not in answer
        assert "views.py" in page.fetch()[1]


def test_over_both_families_an_address_of_ipv4_is_known_by_its_own_form(page):
    dual = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    with dual:
        page.serve(listeners=[dual])
        with socket.create_connection(("127.0.0.3", dual.getsockname()[1]), DEADLINE) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.3\r\n\r\n")
            assert status_of(read_all(sock)) == 500


def test_with_a_star_in_allowed_hosts_it_answers_for_all(page):
    page.serve(hosts=["*"])
    assert status_of(ask(page, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")) == 500


def retry_of(page):
    """Return the path of the button."""
    return re.search(r'action="([^"]+)"', page.fetch(**BROWSER)[1])[1]


def press(page, target, *headers, host="localhost:8000"):
    lines = [f"POST {target} HTTP/1.1", f"Host: {host}", "Content-Length: 0", *headers, "", ""]
    return ask(page, "\r\n".join(lines).encode())


OWN = [
    [],
    ["Origin: http://localhost:8000", "Sec-Fetch-Site: same-origin"],
    ["Origin: https://localhost:8000"],
    ["Sec-Fetch-Site: none"],
]
FOREIGN = [
    ["Origin: http://evil.example"],
    ["Origin: http://localhost"],
    ["Origin: http://localhost:8001"],
    ["Origin: http://localhost:8000.evil.example"],
    ["Origin: http://localhost:8000/"],
    ["Origin: null"],
    ["Origin:"],
    ["Origin: http://localhost:8000", "Origin: http://evil.example"],
    ["Sec-Fetch-Site: cross-site"],
    ["Sec-Fetch-Site: same-site"],
    ["Origin: http://localhost:8000", "Sec-Fetch-Site: cross-site"],
]


@pytest.mark.parametrize("headers", OWN)
def test_the_button_of_the_page_has_the_site_started_again(page, headers):
    page.serve()
    answer = press(page, retry_of(page), *headers)
    assert status_of(answer) == 303
    assert b"Location: /\r\n" in answer
    assert page.wait() == RELAUNCH


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_page_of_another_site_can_neither_press_the_button_nor_wait(served, headers):
    assert status_of(press(served, retry_of(served), *headers)) == 403
    head = "\r\n".join(["GET /__wspbus_wait__ HTTP/1.1", "Host: localhost:8000", *headers, "", ""])
    assert status_of(ask(served, head.encode())) == 403
    assert served.fetch()[0].status == 500  # it is there still


@pytest.mark.parametrize("token", ["", "?", "?guess", "?%C3%A9", "?\u00e9"])
def test_a_retry_without_the_token_of_the_page_is_refused(served, token):
    retry = retry_of(served)
    assert len(retry) > len("/__wspbus_retry__?") + 40
    assert status_of(press(served, f"/__wspbus_retry__{token}", "Sec-Fetch-Site: same-origin")) == 403
    assert status_of(press(served, f"{retry}x")) == 403
    assert served.fetch()[0].status == 500
    assert retry_of(served) == retry


@pytest.mark.parametrize(
    ("referer", "location"),
    [
        ("http://localhost:8000/shop?a=b", "/shop?a=b"),
        ("https://LOCALHOST:8000/shop", "/shop"),
        ("http://localhost:8000", "/"),
        ("http://evil.example/shop", "/"),
        ("http://localhost:8000//evil.example/x", "/"),
        ("http://x//evil.example/x", "/"),
        ("http://localhost:8000/\\evil.example", "/"),
        ("http://localhost:8000/a\\b", "/"),
        ("http://localhost:8000/\t/evil.example", "/"),
        ("http://localhost:8000/a\x7f", "/"),
        ("http://localhost:8000/__wspbus_retry__", "/"),
        ("javascript:alert(1)", "/"),
        ("//evil.example", "/"),
        ("", "/"),
    ],
)
def test_after_the_button_comes_a_page_of_this_site(served, referer, location):
    head = "GET /__wspbus_retry__ HTTP/1.1\r\nHost: localhost:8000\r\n"
    answer = ask(served, f"{head}Referer: {referer}\r\n\r\n".encode("latin-1"))
    assert status_of(answer) == 303
    assert f"\r\nLocation: {location}\r\n".encode() in answer


def test_no_other_page_may_frame_it_or_take_it_in(page):
    page.serve()
    headers = page.fetch(**BROWSER)[0].headers
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    for rule in ("frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"):
        assert rule in headers["Content-Security-Policy"]


# Its end


def test_another_boot_ends_it_and_the_wait_of_the_pages(folder):
    with running(folder) as page, page.connect() as waiting, page.connect() as idle:
        page.serve()
        _, body = page.fetch(**BROWSER)
        wait = json.loads(re.search(r"wait = (\".*?\")", body)[1])
        waiting.sendall(f"GET {wait} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert waiting.recv(65536).startswith(b"HTTP/1.1 200 ")
        page.process.send_signal(signal.SIGSTOP)  # or it may have ended before the second message
        page.retry()
        page.retry()  # once more is no other end
        page.process.send_signal(signal.SIGCONT)
        begin = time.monotonic()
        assert read_all(waiting) == b"again\n"
        assert read_all(idle) == b""
        assert page.wait() == 3
        assert time.monotonic() - begin < DEADLINE / 3
        with page.connect() as late:  # it waits in the queue for the next program
            late.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            page.listener.setblocking(True)
            with page.listener.accept()[0] as accepted:
                assert accepted.recv(3) == b"GET"


def test_a_client_that_has_just_connected_may_still_ask_when_it_ends(folder):
    with running(folder, PATIENT) as page, page.connect() as idle:
        page.serve()
        page.fetch()
        page.retry()
        idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_all(idle).startswith(b"HTTP/1.1 500 ")
        assert page.wait() == 3


def test_a_client_that_has_connected_long_ago_and_not_asked_does_not_hold_up_the_end(folder):
    with running(folder, LONG_AGO) as page, page.connect() as idle:
        page.serve()
        page.fetch()
        page.retry()
        assert read_all(idle) == b""
        assert page.wait() == 3


def test_a_request_that_has_begun_is_answered_before_the_end(folder):
    with (
        running(folder, PATIENT) as page,
        page.connect() as upload,
        page.connect() as late,
    ):
        page.serve()
        late.sendall(b"GET / HT")
        upload.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n")
        page.fetch()
        page.retry()
        late.sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
        upload.sendall(b"x" * 500_000)
        assert read_all(late).startswith(b"HTTP/1.1 500 ")
        assert read_all(upload).startswith(b"HTTP/1.1 500 ")
        assert page.wait() == 3


def test_half_of_a_request_does_not_hold_up_the_end(folder):
    with running(folder) as page, page.connect() as half:
        page.serve()
        half.sendall(b"GET / HT")
        page.fetch()
        page.retry()
        assert read_all(half).startswith(b"HTTP/1.1 408 ")
        assert page.wait() == 3


def test_in_a_folder_that_is_gone_it_answers(page, folder):
    # Python 3.13.0 imports no module of C in a folder that is not there.
    await_that(page.is_waiting)
    shutil.rmtree(folder)
    page.serve(title="E", text='File "views.py", line 2\n')
    assert page.fetch(**BROWSER)[0].status == 500


def test_the_page_has_a_button_that_has_the_site_started_again(page):
    page.serve()
    _, body = page.fetch(Accept="text/html")
    path = re.search(r'<form method="post" action="([^"]+)">', body)[1]
    assert page.fetch(path=path)[0].status == 303  # whatever fetches links ahead of time
    assert page.process.poll() is None
    response, _ = page.fetch("POST", path, "", Referer=f"http://127.0.0.1:{page.port}/books/?page=2")
    assert (response.status, response.getheader("Location")) == (303, "/books/?page=2")
    assert page.wait() == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("serves", [True, False])
def test_a_signal_ends_it(page, number, serves):
    with page.connect() as sock:
        if serves:
            page.serve()
            page.fetch()
            sock.sendall(b"GET /__wspbus_wait__ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        else:
            await_that(page.is_waiting)
        page.process.send_signal(number)
        assert page.wait() == 0
        if serves:
            assert read_all(sock) == b""


@pytest.mark.parametrize("serves", [True, False])
def test_without_a_launcher_it_ends(page, serves):
    if serves:
        page.serve()
        page.fetch()
    page.link.close()
    assert page.wait() == 0


def test_a_wait_for_another_program_ends_at_once(page):
    page.serve()
    response, body = page.fetch(path="/__wspbus_wait__?1-2")
    assert (response.status, body) == (200, "again\n")
    assert page.fetch("HEAD", "/__wspbus_wait__")[0].status == 200
    with page.connect() as sock:  # and one whose client leaves is no trouble
        sock.sendall(b"GET /__wspbus_wait__ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(65536)
        sock.sendall(b"more")
    assert page.fetch()[0].status == 500


def test_idle_it_sleeps(page):
    page.serve()
    with page.connect():
        page.fetch()
        process = psutil.Process(page.process.pid)
        await_that(lambda: len(process.net_connections()) <= 2)

        def sleeps():  # at the latest, once the request is done with
            before = wakeups(process.pid)
            time.sleep(0.5)
            return wakeups(process.pid) == before

        await_that(sleeps)


def test_it_imports_neither_django_nor_email():
    package = "django_wspbus.development.error_page"
    program = f"import sys, {package}, {package}.html; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    modules = {name.partition(".")[0] for name in output.stdout.split()}
    assert "django_wspbus" in modules
    assert not modules & {"django", "gunicorn", "email", "asyncio"}


# In a browser


class Fixed(BaseHTTPRequestHandler):
    """What the next program answers; it keeps what it was asked."""

    def do_GET(self):
        self.server.asked.append((self.command, self.path))
        body = b"<title>It works</title>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments):
        pass


class Next(ThreadingHTTPServer):
    """A browser connects before it has anything to ask: each connection has a thread of its own."""

    daemon_threads = True
    block_on_close = False


@pytest.fixture
def browser(tmp_path_factory):
    """Return what opens a page in a browser of its own, and returns what lists the titles of its pages."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium here")
    profile = tmp_path_factory.mktemp("profile")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    with contextlib.ExitStack() as stack:

        def open_page(url):
            process = subprocess.Popen(
                [program, *options, f"--user-data-dir={profile}", url],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            stack.callback(process.wait, DEADLINE)
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
            await_that((profile / "DevToolsActivePort").exists)
            await_that(lambda: (profile / "DevToolsActivePort").read_text().count("\n"))
            port = (profile / "DevToolsActivePort").read_text().split("\n")[0]

            def titles():
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=DEADLINE) as answer:
                    return [each["title"] for each in json.load(answer) if each["type"] == "page"]

            return titles

        yield open_page


@pytest.mark.extended
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_browser_shows_the_error_and_then_the_next_programs_answer(browser, page, folder, method):
    page.serve()
    url = f"http://127.0.0.1:{page.port}/shop?a=b#part"
    form = folder / "form.html"
    form.write_text(f'<form action="{url}" method="post"></form><script>document.forms[0].submit()</script>')
    titles = browser(url if method == "get" else form.as_uri())
    await_that(lambda: titles() == ["SyntaxError: invalid syntax (views.py, line 2)"])
    page.retry()
    assert page.wait() == 3
    with Next(("127.0.0.1", 0), Fixed, bind_and_activate=False) as server:
        server.socket.close()
        server.socket = page.listener.dup()
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            await_that(lambda: titles() == ["It works"])
        finally:
            server.shutdown()
            thread.join()
    # The page may have had no time to begin its wait; then the next program is asked for that, too.
    assert next(each for each in server.asked if "wspbus" not in each[1]) == ("GET", "/shop?a=b")
