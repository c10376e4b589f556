"""A database server: a few connections of its driver, kept open, each used for one transaction at a time.

Time goes into messages, so what is written together is one message where the server has a way to say it.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import msgspec

from hearth.aio.background import Background
from hearth.sql.address import Address
from hearth.sql.database import PROBE, Database, Done, Put, Read, Steps, Write
from hearth.sql.errors import Conflict, failures, is_duplicate, translated
from hearth.sql.query import Query, Row, Rows
from hearth.sql.upserts import Parts, Upsert

T = TypeVar("T")

#: Connections in use at once, and those that stay open while nobody uses them.
_MOST: Final = 20
_KEPT: Final = 10
#: Seconds without use after which a connection is asked whether its server is still there.
REST_S: Final = 0.1
#: Seconds that a transaction may take: a server that hangs has failed.
_LIMIT_S: Final = 30.0
#: Times that a transaction is tried which the server rolls back because of another one.
_TRIES: Final = 5


class ServerDatabase(Database):
    """PostgreSQL, MySQL or MariaDB. A subclass speaks to one driver.

    Args:
        address: Where the server is.
        limit_s: Seconds that a transaction may take.
    """

    _BEGIN = "START TRANSACTION"

    def __init__(self, address: Address, *, limit_s: float = _LIMIT_S) -> None:
        self._address = address
        self._limit_s = limit_s
        self._free = asyncio.Semaphore(_MOST)
        self._idle: list[tuple[Any, float]] = []
        self._submitted = Background()

    def query(self, query: Query, **params: Any) -> Coroutine[Any, Any, list[Row]]:
        """Read in one message."""
        return self._run(lambda connection: self._fetch(connection, query, params))

    def write(self, upsert: Upsert, *parts: Sequence[msgspec.Struct]) -> Coroutine[Any, Any, None]:
        """Write in one message, if the server takes one so large."""
        return self._run(lambda connection: self._write(connection, upsert, parts))

    def submit(self, upsert: Upsert, parts: Parts, done: Done) -> None:
        """Write in a task."""
        self._submitted.start(self._report(self.write(upsert, *parts), done))

    def transaction(self, steps: Callable[[], Steps[T]]) -> Coroutine[Any, Any, T]:
        """Run the steps between BEGIN and COMMIT."""
        return self._run(lambda connection: self._transact(connection, steps()))

    async def check(self) -> None:
        """Write a row as it is."""
        await self._run(lambda connection: self._order(connection, PROBE))

    async def close(self) -> None:
        """Wait for what was asked for, then close the connections."""
        await self._submitted.join()
        for _ in range(_MOST):
            await self._free.acquire()
        while self._idle:
            with contextlib.suppress(*failures()):
                await self._disconnect(self._idle.pop()[0])

    async def _report(self, write: Awaitable[None], done: Done) -> None:
        try:
            await write
        except Exception as exc:  # the caller has to know of every error
            done(exc)
        else:
            done(None)

    async def _run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        for _ in range(_TRIES - 1):
            with contextlib.suppress(Conflict):
                async with self._connection() as connection:
                    return await work(connection)
        async with self._connection() as connection:
            return await work(connection)

    async def _transact(self, connection: Any, steps: Steps[T]) -> T:
        rows: Any = None
        await self._order(connection, self._BEGIN)
        try:
            while True:
                rows = await self._step(connection, steps.send(rows))
        except StopIteration as end:
            await self._order(connection, "COMMIT")
            result: T = end.value
            return result
        except failures() as exc:
            if is_duplicate(exc):  # another transaction has added a row that this one has looked for and not found
                raise Conflict("database: another transaction has added the same row") from exc
            raise

    def _step(self, connection: Any, step: Read | Write | Put) -> Awaitable[Any]:
        if isinstance(step, Read):
            return self._fetch(connection, step.query, step.params)
        if isinstance(step, Write):
            return self._execute(connection, step.query, step.rows)
        return self._put(connection, step.upsert, step.parts)

    # -- connections ----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """Yield a connection outside of a transaction, for this use alone.

        It is closed if the use does not come to its end: the server then rolls back.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limit_s), self._free:
                connection = await self._take(loop.time())
                try:
                    yield connection
                except BaseException:
                    self._discard(connection)
                    raise
                if len(self._idle) < _KEPT:
                    self._idle.append((connection, loop.time()))
                else:
                    await self._disconnect(connection)
        except failures() as exc:
            raise translated(exc) from exc

    async def _take(self, now: float) -> Any:
        while self._idle:
            connection, used_at = self._idle.pop()
            if self._is_closed(connection):
                continue
            if now - used_at < REST_S or await self._is_alive(connection):
                return connection
        return await self._connect()

    async def _is_alive(self, connection: Any) -> bool:
        try:
            await self._ping(connection)
        except BaseException as exc:
            self._discard(connection)
            if not isinstance(exc, failures()):
                raise
            return False
        return True

    # -- the driver -----------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _connect(self) -> Awaitable[Any]:
        """Connect, at READ COMMITTED: what is read for update is the newest."""

    @abc.abstractmethod
    def _ping(self, connection: Any) -> Awaitable[object]:
        """Wait for an answer of the server."""

    def _is_closed(self, connection: Any) -> bool:
        """Return whether the driver knows that the server has closed a connection."""
        return False

    @abc.abstractmethod
    def _disconnect(self, connection: Any) -> Awaitable[None]:
        """Close a connection in the server's way."""

    @abc.abstractmethod
    def _discard(self, connection: Any) -> None:
        """Close a connection without a word to the server, which may not answer."""

    @abc.abstractmethod
    def _order(self, connection: Any, text: str) -> Awaitable[object]:
        """Execute a statement without parameters."""

    @abc.abstractmethod
    def _fetch(self, connection: Any, query: Query, params: Row) -> Awaitable[list[Row]]:
        """Return the rows of a query."""

    @abc.abstractmethod
    def _execute(self, connection: Any, query: Query, rows: Rows) -> Awaitable[Any]:
        """Execute a statement once for each row of parameters."""

    @abc.abstractmethod
    def _write(self, connection: Any, upsert: Upsert, parts: Parts) -> Awaitable[Any]:
        """Write the parts in a transaction of their own."""

    @abc.abstractmethod
    def _put(self, connection: Any, upsert: Upsert, parts: Parts) -> Awaitable[Any]:
        """Write the parts within a transaction."""
