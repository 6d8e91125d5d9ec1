"""The way from a site to its engine, which can be slow, cut or blocked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Self

from ..processes import DEADLINE, free_port


class Way:
    """A port of loopback from which connections go to that of an engine, as a context manager.

    ``target``: the port of the engine; a new one is that of connections made from then on.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self._delay = 0.0
        self._is_open = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"Way to {target}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._connect, "127.0.0.1", self.port))
        self._do(self._unblock())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()

    def _do(self, task: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result(DEADLINE)

    # Faults

    def cut(self) -> None:
        """Close all connections."""
        self._do(self._cut())

    @contextlib.contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Delay each answer, and close the connections in the end, so that late answers are lost."""
        self._delay = seconds
        try:
            yield
        finally:
            self._delay = 0.0
            self.cut()

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Let nothing through. As with TCP, it arrives later, if both ends still wait for it."""
        self._do(self._block())
        try:
            yield
        finally:
            self._do(self._unblock())

    # In the thread

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # of `_close`; asyncio would log it
            await self._carry(reader, writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._is_open.wait()
            answers, requests = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # the engine is down
            self._drop(writer)
            return
        self._writers.add(requests)
        await asyncio.gather(
            self._pass_on(reader, requests, is_answer=False), self._pass_on(answers, writer, is_answer=True)
        )

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                await self._is_open.wait()
                if is_answer and self._delay:
                    await asyncio.sleep(self._delay)
                writer.write(data)
                await writer.drain()
        self._drop(writer)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()

    async def _block(self) -> None:
        self._is_open.clear()

    async def _unblock(self) -> None:
        self._is_open.set()

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
            self._writers.discard(writer)

    async def _close(self) -> None:
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
