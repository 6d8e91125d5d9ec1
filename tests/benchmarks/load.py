"""A load on kept-alive connections from one thread, light enough to leave the processor to the servers."""

from __future__ import annotations

import selectors
import socket
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"ok"
"""The body of the page, which marks the end of an answer."""


class Client:
    """One connection, whose next request follows each answer at once."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self.ask()

    def ask(self) -> None:
        self._received = b""
        self.socket.sendall(REQUEST)

    def is_answered(self) -> bool:
        """Read from the server; return whether the answer is complete. EOFError if the server hung up."""
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._received += data
        if not self._received.startswith(b"HTTP/1.1 200"[: len(self._received)]):
            raise RuntimeError(f"got {self._received[:60]!r}")
        return self._received.endswith(b"\r\n\r\n" + BODY)


def requests_a_second(port: int, *, seconds: float, connections: int = 8) -> float:
    """Keep ``connections`` busy for ``seconds``; return the answers with status 200 per second."""
    answers = 0
    with selectors.DefaultSelector() as selector:

        def connect() -> None:
            client = Client(port)
            selector.register(client.socket, selectors.EVENT_READ, client)

        for _ in range(connections):
            connect()
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            for key, _ in selector.select(timeout=1):
                client: Client = key.data
                try:
                    if client.is_answered():
                        answers += 1
                        client.ask()
                except EOFError:  # a server may close a connection between requests
                    selector.unregister(client.socket)
                    client.socket.close()
                    connect()
        elapsed = time.perf_counter() - began
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return answers / elapsed
