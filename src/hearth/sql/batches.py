"""Writes many rows in one transaction: what every call waits for, so that it has to be short.

On a database server a transaction is a few messages, and SQLAlchemy's share of it is small. On SQLite it is a few
microseconds of work, between ten hand-overs from thread to thread and back if each statement is sent on its own. So
there a batch is one piece of work for one thread that has a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from hearth.models.errors import StoreRefused, StoreUnavailable
from hearth.sql.address import BUSY_TIMEOUT_S
from hearth.sql.transactions import Transactions, repeated

#: Statements and the rows for each, in the order in which they are to be written.
Writes = Sequence[tuple[sa.Insert, Sequence[Mapping[str, Any]]]]

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")
#: Rows that one statement writes: few different statements, and few of them for any number of rows.
_SIZES: Final = (64, 16, 4, 1)


class Batches(Protocol):
    """Writes rows, all or none."""

    async def write(self, writes: Writes) -> None:
        """Write in one transaction; rows of one statement in their order.

        Raises:
            StoreUnavailable: The database failed. Whether it was done, only the database knows.
            StoreRefused: It does not like the data.
        """

    async def close(self) -> None:
        """Release what is held."""


def batches(transactions: Transactions) -> Batches:
    """The quickest way to write to the database of these transactions."""
    if transactions.dialect == "sqlite":
        return _OneThread(str(transactions.engine.url.database))
    return _Statements(transactions)


class _Statements:
    """One statement after the other, on a connection of the pool."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    @repeated
    async def write(self, writes: Writes) -> None:
        async with self._transactions.writing() as db:
            for statement, rows in writes:
                if rows:
                    await db.execute(statement, rows)

    async def close(self) -> None:
        """Nothing is held."""


class _OneThread:
    """SQLite in a thread of its own.

    Args:
        database: The file's name, or its ``file:`` URI.
    """

    def __init__(self, database: str) -> None:
        self._database = database
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "hearth-sqlite-writer")
        self._texts: dict[tuple[sa.Insert, int], tuple[str, list[str]]] = {}

    async def write(self, writes: Writes) -> None:
        # no limit of its own: a lock is waited for BUSY_TIMEOUT_S, and nobody can call back a thread from a disk
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, writes)
        except sqlite3.DatabaseError as exc:
            kind = StoreRefused if isinstance(exc, sqlite3.IntegrityError | sqlite3.DataError) else StoreUnavailable
            raise kind(f"database: {exc}") from exc

    async def close(self) -> None:
        """Wait for what is being written, then close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    def _write(self, writes: Writes) -> None:
        if self._connection is None:
            self._connection = self._connect()
        db = self._connection
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in writes:
                self._insert(db, statement, rows)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a disk that is full has undone it already
                db.execute("ROLLBACK")
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._database,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            uri=self._database.startswith("file:"),
        )
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _insert(self, db: sqlite3.Connection, statement: sa.Insert, rows: Sequence[Mapping[str, Any]]) -> None:
        """Many rows with each statement: between two of them the thread lets the others run, and waits for its turn."""
        start = 0
        while start < len(rows):
            count = next(size for size in _SIZES if size <= len(rows) - start)
            text, names = self._text(statement, count)
            db.execute(text, [row[name] for row in rows[start : start + count] for name in names])
            start += count

    def _text(self, statement: sa.Insert, count: int) -> tuple[str, list[str]]:
        known = self._texts.get((statement, count))
        if known is None:
            compiled: Any = statement.compile(dialect=_DIALECT)
            names = list(compiled.positiontup)
            one = f"({', '.join('?' * len(names))})"
            text = str(compiled).replace(f"VALUES {one}", f"VALUES {', '.join([one] * count)}", 1)
            known = self._texts[statement, count] = (text, names)
        return known
