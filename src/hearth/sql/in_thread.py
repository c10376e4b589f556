"""Writes to SQLite.

There a transaction is a few microseconds of work, between ten hand-overs from thread to thread and back if each
statement is sent on its own. So a batch is one piece of work for one thread that has a connection of its own; and of as
few statements as can be, since after each of them the thread waits until the loop leaves it the interpreter.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from hearth.models.errors import StoreRefused, StoreUnavailable
from hearth.sql import upsert
from hearth.sql.address import BUSY_TIMEOUT_S
from hearth.sql.query import Question, Row
from hearth.sql.tables import calls
from hearth.sql.writes import Decide, Stored, Swap, Writes, fresh
from hearth.worker import WorkThread

T = TypeVar("T")

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")
#: Pages of 4 KiB in the log before they are copied into the database, which all that is written meanwhile waits for.
#: Most are written again and again: the fewer copies, the less of it all (a sixth of a lone call's processor time).
_CHECKPOINT_PAGES: Final = 4000
#: Rows that one statement writes at most: there is a statement for each number of them.
_MOST_ROWS: Final = 64
#: Prepared statements that are kept: those of the tables that every call writes to, and what else there is.
_KEPT_STATEMENTS: Final = 4 * _MOST_ROWS


class InThread:
    """SQLite in a thread of its own.

    Args:
        database: The file's name, or its ``file:`` URI.
    """

    def __init__(self, database: str) -> None:
        self._database = database
        self._connection: sqlite3.Connection | None = None
        self._thread = WorkThread("hearth-sqlite-writer")
        self._texts: dict[tuple[sa.Insert, int], tuple[str, list[str]]] = {}
        self._swaps: dict[frozenset[str], sa.Insert] = {}

    async def write(self, writes: Writes) -> None:
        """Write in one transaction."""
        await self._in_thread(lambda: self._write_alone(writes))

    async def swap(self, swap: Swap, writes: Writes = ()) -> dict[str, Stored]:
        """Swap and write in one transaction."""
        return await self._in_transaction(lambda db: self._swap(db, swap, writes))

    async def change(self, questions: Sequence[Question], decide: Decide) -> None:
        """Ask, decide and do it in one transaction, which nobody else can write beside."""
        await self._in_transaction(lambda db: self._change(db, questions, decide))

    async def _in_transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._in_thread(lambda: self._transaction(work))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # no limit of its own: a lock is waited for BUSY_TIMEOUT_S, and nobody can call back a thread from a disk
        try:
            return await self._thread.do(work)
        except sqlite3.DatabaseError as exc:
            kind = StoreRefused if isinstance(exc, sqlite3.IntegrityError | sqlite3.DataError) else StoreUnavailable
            raise kind(f"database: {exc}") from exc

    async def close(self) -> None:
        """Wait for what is being written, then close the file."""
        await self._thread.do(self._disconnect)
        self._thread.end()

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._connected()
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a disk that is full has undone it already
                db.execute("ROLLBACK")
            raise
        return result

    def _write_alone(self, writes: Writes) -> None:
        statements = list(self._statements(writes))
        if len(statements) == 1:  # as most often: SQLite makes it a transaction of its own
            self._connected().execute(*statements[0])
        elif statements:
            self._transaction(lambda db: _execute(db, statements))

    def _swap(self, db: sqlite3.Connection, swap: Swap, writes: Writes) -> dict[str, Stored]:
        statement = self._replacing(swap.over)
        kept = {}
        if _execute(db, self._statements([(statement, swap.records)])) < len(swap.records):
            db.execute("ROLLBACK")  # which of them were not replaced can only be seen one by one
            db.execute("BEGIN IMMEDIATE")
            for row in swap.records:
                if not _execute(db, self._statements([(statement, [row])])):
                    found = db.execute("SELECT status, completed_at FROM calls WHERE id = ?", (row["id"],)).fetchone()
                    kept[row["id"]] = Stored(*found)
        _execute(db, self._statements([*fresh(kept, swap.also), *writes]))
        return kept

    def _change(self, db: sqlite3.Connection, questions: Sequence[Question], decide: Decide) -> None:
        changes = decide([self._ask(db, question) for question in questions])
        for removal in changes.removals:
            words = removal.query.words(_DIALECT)
            db.executemany(words.text, [words.values(params) for params in removal.params])
        _execute(db, self._statements(changes.writes))

    @staticmethod
    def _ask(db: sqlite3.Connection, question: Question) -> list[Row]:
        words = question.query.words(_DIALECT)
        found = db.execute(words.text, words.values(question.params))
        return [dict(zip(words.columns, row, strict=True)) for row in found.fetchall()]

    def _replacing(self, over: frozenset[str]) -> sa.Insert:
        known = self._swaps.get(over)
        if known is None:
            where = calls.c.status.in_([sa.literal_column(f"'{status}'") for status in sorted(over)])
            known = self._swaps[over] = upsert.replacing("sqlite", calls, where=where)
        return known

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._database,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_KEPT_STATEMENTS,
            uri=self._database.startswith("file:"),
        )
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _statements(self, writes: Writes) -> Iterator[tuple[str, list[Any]]]:
        """Texts and their values."""
        for statement, rows in writes:
            for start in range(0, len(rows), _MOST_ROWS):
                some = rows[start : start + _MOST_ROWS]
                text, names = self._text(statement, len(some))
                yield text, [row[name] for row in some for name in names]

    def _text(self, statement: sa.Insert, count: int) -> tuple[str, list[str]]:
        known = self._texts.get((statement, count))
        if known is None:
            compiled: Any = statement.compile(dialect=_DIALECT)
            names = list(compiled.positiontup)
            one = f"({', '.join('?' * len(names))})"
            text = str(compiled).replace(f"VALUES {one}", f"VALUES {', '.join([one] * count)}", 1)
            known = self._texts[statement, count] = (text, names)
        return known


def _execute(db: sqlite3.Connection, statements: Iterable[tuple[str, list[Any]]]) -> int:
    """How many rows were made or changed."""
    return sum([db.execute(text, values).rowcount for text, values in statements])
