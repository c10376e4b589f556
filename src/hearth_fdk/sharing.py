"""Several calls at once in one program: async handlers as tasks of one event loop, others in threads."""

from __future__ import annotations

import asyncio
import contextvars
import io
import os
import queue
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

from hearth_fdk.context import Call
from hearth_fdk.framing import FramingError
from hearth_fdk.listening import ClientGone, StreamOutput, StreamReader
from hearth_fdk.serving import AsyncOutput, Runner, StreamBroken

_PIECE = 65536
#: The longest part of a line that is kept until its end comes.
_LINE = 8192

#: The lines of the call that runs here: in its thread, or in its tasks.
_lines: contextvars.ContextVar[_Lines] = contextvars.ContextVar("lines")


def serve(runner: Runner, listener: socket.socket, limit: int) -> None:
    """Serve up to ``limit`` calls at once until the program is killed."""
    listener.listen(max(limit, socket.SOMAXCONN))
    if runner.is_async:
        asyncio.run(_serve_on_loop(runner, listener, limit))
    else:
        _Workers(runner, limit).serve(listener)


# --- async handlers ---------------------------------------------------------------------------------------------------


async def _serve_on_loop(runner: Runner, listener: socket.socket, limit: int) -> None:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def connection() -> _Connection:
        return _Connection(runner, over)

    server = await loop.create_unix_server(connection, sock=listener, backlog=max(limit, socket.SOMAXCONN))
    async with server:
        await over


class _Connection(asyncio.Protocol, AsyncOutput):
    """A connection: one call after another, each a task. The platform closes it to cancel the call."""

    def __init__(self, runner: Runner, over: asyncio.Future[None]) -> None:
        self._runner = runner
        self._over = over
        self._reader = StreamReader()
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._is_paused = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            calls = self._reader.feed(data)
        except FramingError as exc:
            print(exc, file=sys.stderr, flush=True)
            self._transport.abort()
            return
        for call in calls:
            if self._task is not None:  # the platform never does that: the answers could not be distinguished
                self._transport.abort()
                return
            self._task = asyncio.get_running_loop().create_task(self._answer(call))
            self._task.add_done_callback(self._done)

    def eof_received(self) -> bool:
        """Cancel the call that runs. The connection is open until that has ended."""
        if self._task is None:
            return False
        self._task.cancel()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def drain(self) -> None:
        """Wait while the platform does not take what was written."""
        while self._is_paused:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        if self._transport.is_closing():
            raise ClientGone

    async def _answer(self, call: Call) -> None:
        output = StreamOutput(self._transport.write, is_plain=call.is_plain)
        with _marked(call):
            try:
                await self._runner.answer_async(call, output, self)
            except StreamBroken:  # would end the loop; its end says that the answer is not whole
                self._transport.abort()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self._transport.close()
        if error is not None and not isinstance(error, ClientGone) and not self._over.done():
            self._over.set_exception(error)


# --- other handlers ---------------------------------------------------------------------------------------------------


class _Workers:
    """Threads that serve connections: as many as there are calls at once, or fewer if the system gives no more.

    A thread cannot be stopped from outside: a call that the platform gives up runs to its end.
    """

    def __init__(self, runner: Runner, limit: int) -> None:
        self._runner = runner
        self._limit = limit
        self._connections: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._count = 0
        self._idle = threading.Semaphore(0)

    def serve(self, listener: socket.socket) -> None:
        """Accept connections, and start the threads that they need."""
        while True:
            connection, _ = listener.accept()
            if not self._idle.acquire(blocking=False):
                self._start_one()
            self._connections.put(connection)

    def _start_one(self) -> None:
        if self._count >= self._limit:
            return
        try:
            threading.Thread(target=self._work, daemon=True).start()
            self._count += 1
        except RuntimeError as exc:
            if not self._count:
                raise
            self._limit = self._count
            print(f"{exc}: {self._count} calls at once", file=sys.stderr, flush=True)

    def _work(self) -> None:
        runner = self._runner.another()
        while True:
            connection = self._connections.get()
            with connection:
                try:
                    _serve(runner, connection)
                except (ClientGone, ConnectionError, StreamBroken):
                    pass  # its end says that the answer is not whole
                except BaseException as exc:
                    _exit(exc)
            self._idle.release()


def _serve(runner: Runner, connection: socket.socket) -> None:
    reader = StreamReader()
    while piece := connection.recv(_PIECE):
        for call in reader.feed(piece):
            with _marked(call):
                runner.answer(call, StreamOutput(connection.sendall, is_plain=call.is_plain))


def _exit(exc: BaseException) -> None:
    """End the program, as a handler's ``sys.exit()`` does where there is one call at a time."""
    code = exc.code if isinstance(exc, SystemExit) else 1
    if not isinstance(exc, SystemExit) or isinstance(code, str):
        print(code if isinstance(code, str) else repr(exc), file=sys.stderr, flush=True)
    os._exit(code if isinstance(code, int) else int(code is not None))


# --- logs -------------------------------------------------------------------------------------------------------------


def mark_lines(environment: Mapping[str, str]) -> None:
    """Let what calls print name its call, if the platform says how."""
    name = environment.get("FN_LOGFRAME_NAME", "")
    if name:
        sys.stdout = sys.stderr = MarkedStream(sys.stderr, name)


class _Lines:
    """The part of its present line that one call has printed."""

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        self.partial = ""


class _marked:
    """Let what is printed meanwhile belong to a call."""

    def __init__(self, call: Call) -> None:
        self._lines = _Lines(call.call_id)

    def __enter__(self) -> None:
        self._token = _lines.set(self._lines)

    def __exit__(self, *error: object) -> None:
        if self._lines.partial:
            print(flush=True)
        _lines.reset(self._token)


class MarkedStream(io.TextIOBase):
    """Writes whole lines, each with the call that printed it. What no call printed is written as it is.

    Args:
        inner: Where lines go.
        name: The mark.
    """

    def __init__(self, inner: Any, name: str) -> None:
        self._inner = inner
        self._name = name
        self._writing = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, text: str) -> int:
        """Write what is complete of a call's lines."""
        lines = _lines.get(None)
        if lines is None:
            self._emit(text)
            return len(text)
        *whole, lines.partial = (lines.partial + text).split("\n")
        while len(lines.partial) > _LINE:
            whole.append(lines.partial[:_LINE])
            lines.partial = lines.partial[_LINE:]
        if whole:
            self._emit("".join([f"{self._name}={lines.call_id} {line}\n" for line in whole]))
        return len(text)

    def writable(self) -> bool:
        """Return true."""
        return True

    def flush(self) -> None:
        """Do nothing: whole lines are written at once."""

    def fileno(self) -> int:
        """Return the descriptor below."""
        return int(self._inner.fileno())

    def _emit(self, text: str) -> None:
        with self._writing:
            self._inner.write(text)
            self._inner.flush()
