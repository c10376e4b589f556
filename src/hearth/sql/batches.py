"""Writes many rows in one transaction, and swaps calls: what every call waits for, so that it has to be short.

On a database server a transaction is a few messages, and SQLAlchemy's share of it is small. On SQLite it is a few
microseconds of work, between ten hand-overs from thread to thread and back if each statement is sent on its own. So
there a batch is one piece of work for one thread that has a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from hearth.models.errors import StoreRefused, StoreUnavailable
from hearth.sql import upsert
from hearth.sql.address import BUSY_TIMEOUT_S
from hearth.sql.tables import calls
from hearth.sql.transactions import Transactions, repeated

T = TypeVar("T")
Rows = Sequence[Mapping[str, Any]]

#: Statements and the rows for each, in the order in which they are to be written.
Writes = Sequence[tuple[sa.Insert, Rows]]


class Stored(NamedTuple):
    """How far a stored call has come."""

    status: str
    completed_at: str


class Swap(NamedTuple):
    """Calls that are to replace what is stored of them, if that has one of these statuses; or to be new.

    Attributes:
        records: The calls, ordered by id; each id once.
        over: The statuses.
        also: Other rows of these calls, each written if its call is.
    """

    records: Rows
    over: frozenset[str]
    also: Writes = ()


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

    async def swap(self, swap: Swap, writes: Writes = ()) -> dict[str, Stored]:
        """Swap and write in one transaction; by their ids the stored calls that were not replaced.

        Raises:
            StoreUnavailable: As above.
            StoreRefused: As above.
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
        self._add = upsert.adding(transactions.dialect, calls)
        self._replace = upsert.replacing(transactions.dialect, calls)

    @repeated
    async def write(self, writes: Writes) -> None:
        async with self._transactions.writing() as db:
            await self._write(db, writes)

    @repeated
    async def swap(self, swap: Swap, writes: Writes = ()) -> dict[str, Stored]:
        async with self._transactions.writing() as db:
            stored = await self._locked(db, [row["id"] for row in swap.records])
            if missing := [row for row in swap.records if row["id"] not in stored]:
                # A row that is not there cannot be held, so it is made first; then whoever comes later has to wait.
                made = min(swap.over)
                await db.execute(self._add, [{**row, "status": made} for row in missing])
                stored |= await self._locked(db, [row["id"] for row in missing])
            kept = {call_id: found for call_id, found in stored.items() if found.status not in swap.over}
            fresh = [(self._replace, _without(kept, swap.records)), *_fresh(kept, swap.also)]
            await self._write(db, [*fresh, *writes])
        return kept

    @staticmethod
    async def _write(db: AsyncConnection, writes: Writes) -> None:
        for statement, rows in writes:
            if rows:
                await db.execute(statement, rows)

    @staticmethod
    async def _locked(db: AsyncConnection, ids: list[str]) -> dict[str, Stored]:
        query = sa.select(calls.c.id, calls.c.status, calls.c.completed_at).where(calls.c.id.in_(ids))
        found = await db.execute(query.order_by(calls.c.id).with_for_update())
        return {row.id: Stored(row.status, row.completed_at) for row in found}

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
        self._swaps: dict[frozenset[str], sa.Insert] = {}

    async def write(self, writes: Writes) -> None:
        await self._in_thread(lambda db: self._write(db, writes))

    async def swap(self, swap: Swap, writes: Writes = ()) -> dict[str, Stored]:
        return await self._in_thread(lambda db: self._swap(db, swap, writes))

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work in one transaction."""
        # no limit of its own: a lock is waited for BUSY_TIMEOUT_S, and nobody can call back a thread from a disk
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)
        except sqlite3.DatabaseError as exc:
            kind = StoreRefused if isinstance(exc, sqlite3.IntegrityError | sqlite3.DataError) else StoreUnavailable
            raise kind(f"database: {exc}") from exc

    async def close(self) -> None:
        """Wait for what is being written, then close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._connect()
        db = self._connection
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a disk that is full has undone it already
                db.execute("ROLLBACK")
            raise
        return result

    def _write(self, db: sqlite3.Connection, writes: Writes) -> None:
        for statement, rows in writes:
            self._insert(db, statement, rows)

    def _swap(self, db: sqlite3.Connection, swap: Swap, writes: Writes) -> dict[str, Stored]:
        statement = self._replacing(swap.over)
        kept = {}
        if self._insert(db, statement, swap.records) < len(swap.records):
            db.execute("ROLLBACK")  # which of them were not replaced can only be seen one by one
            db.execute("BEGIN IMMEDIATE")
            for row in swap.records:
                if not self._insert(db, statement, [row]):
                    found = db.execute("SELECT status, completed_at FROM calls WHERE id = ?", (row["id"],)).fetchone()
                    kept[row["id"]] = Stored(*found)
        self._write(db, [*_fresh(kept, swap.also), *writes])
        return kept

    def _replacing(self, over: frozenset[str]) -> sa.Insert:
        known = self._swaps.get(over)
        if known is None:
            where = calls.c.status.in_([sa.literal_column(f"'{status}'") for status in sorted(over)])
            known = self._swaps[over] = upsert.replacing("sqlite", calls, where=where)
        return known

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

    def _insert(self, db: sqlite3.Connection, statement: sa.Insert, rows: Rows) -> int:
        """Many rows with each statement: between two of them the thread lets the others run, and waits for its turn.

        How many rows were made or changed.
        """
        start = changed = 0
        while start < len(rows):
            count = next(size for size in _SIZES if size <= len(rows) - start)
            text, names = self._text(statement, count)
            changed += db.execute(text, [row[name] for row in rows[start : start + count] for name in names]).rowcount
            start += count
        return changed

    def _text(self, statement: sa.Insert, count: int) -> tuple[str, list[str]]:
        known = self._texts.get((statement, count))
        if known is None:
            compiled: Any = statement.compile(dialect=_DIALECT)
            names = list(compiled.positiontup)
            one = f"({', '.join('?' * len(names))})"
            text = str(compiled).replace(f"VALUES {one}", f"VALUES {', '.join([one] * count)}", 1)
            known = self._texts[statement, count] = (text, names)
        return known


def _without(kept: Mapping[str, Stored], rows: Rows) -> Rows:
    return [row for row in rows if row["id"] not in kept] if kept else rows


def _fresh(kept: Mapping[str, Stored], writes: Writes) -> Writes:
    return [(statement, _without(kept, rows)) for statement, rows in writes]
