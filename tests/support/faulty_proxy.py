"""A TCP proxy between nodes that can be made slow, deaf or brutal."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import threading
from collections.abc import Iterator


@dataclasses.dataclass
class Cut:
    """Ends one connection in the midst of a request, or of its answer.

    Attributes:
        request: How the request begins.
        after: So many bytes of it still arrive; where it is shorter, all of it does, and its answer does not.
        of_answer: They are counted in the answer.
        made: It has happened.
    """

    request: bytes
    after: int
    of_answer: bool = False
    made: bool = False


class _Connection:
    """What is to come to a connection that carries a request to be cut."""

    def __init__(self) -> None:
        self.cut: Cut | None = None
        self._left = 0

    def mark(self, cut: Cut) -> None:
        self.cut, self._left = cut, cut.after

    def passed(self, data: bytes, *, is_answer: bool) -> bytes:
        """What of a piece is still to be forwarded."""
        if self.cut is None or (self.cut.of_answer and not is_answer):
            return data
        if is_answer and not self.cut.of_answer:
            self._left = 0
        passed = data[: self._left]
        self._left -= len(passed)
        self.cut.made = len(passed) < len(data)
        return passed


class FaultyProxy:
    """Forwards to ``target``.

    Attributes:
        target: Host and port; may change.
        deaf: Nothing is forwarded any more, nobody is told: a partition.
        delay_s: Seconds by which each piece comes late.
        cut_rate: How likely a connection is cut with each piece.
        cut: The next such request is cut.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.deaf = False
        self.delay_s = 0.0
        self.cut_rate = 0.0
        self.cut: Cut | None = None
        self.port = 0
        self._random = random.Random(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways."""
        try:
            while self.deaf:
                await asyncio.sleep(0.05)
            there_reader, there_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection()
        ways = [
            asyncio.ensure_future(self._forward(reader, there_writer, connection, is_answer=False)),
            asyncio.ensure_future(self._forward(there_reader, writer, connection, is_answer=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            writer.transport.abort()
            there_writer.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: _Connection, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                while self.deaf:
                    await asyncio.sleep(0.05)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self._random.random() < self.cut_rate:
                    return
                if self.cut is not None and not is_answer and data.startswith(self.cut.request):
                    connection.mark(self.cut)
                    self.cut = None
                passed = connection.passed(data, is_answer=is_answer)
                writer.write(passed)
                await writer.drain()
                if len(passed) < len(data):
                    return


@contextlib.contextmanager
def faulty_proxy(target: tuple[str, int]) -> Iterator[FaultyProxy]:
    """A proxy in a thread of its own."""
    proxy = FaultyProxy(target)
    loop = asyncio.new_event_loop()
    listening, stop = threading.Event(), asyncio.Event()

    async def run() -> None:
        async with asyncio.TaskGroup() as group:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                group.create_task(proxy.serve(reader, writer))

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            proxy.port = server.sockets[0].getsockname()[1]
            listening.set()
            await stop.wait()
            server.close()
            raise asyncio.CancelledError

    def main() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(run())
        loop.close()

    thread = threading.Thread(target=main)
    thread.start()
    listening.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
