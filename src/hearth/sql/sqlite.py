"""SQLite, in a thread that commits, one that reads, and one that copies the write-ahead log into the database.

A transaction is a few microseconds of work, so each is handed over to its thread as a whole. It has as few statements
as possible: after each of them the thread waits until the event loop leaves it the interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy.dialects import sqlite

from hearth.aio.clock import Clock
from hearth.aio.worker_thread import WorkThread
from hearth.host.open_file import OpenFile
from hearth.sql.address import BUSY_TIMEOUT_S
from hearth.sql.database import PROBE, Database, Done, Put, Read, Steps, Write
from hearth.sql.engine import INCREMENTAL
from hearth.sql.errors import translated
from hearth.sql.query import Query, Row
from hearth.sql.schema.kinds import TEXTS
from hearth.sql.upserts import Parts, Upsert
from hearth.sql.write_ahead_log import WriteAheadLog

T = TypeVar("T")

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")
#: Prepared statements that are kept: one for each number of rows of the tables that every call writes to, and others.
_KEPT_STATEMENTS: Final = 256
#: Pages that stay free for new rows; in a larger file, this part of it.
SPARE_PAGES: Final = 4_096
_SPARE_PART: Final = 8
#: Pages that are returned to the disk at once: 1 to 2 ms of processor time, for which writes wait.
_RETURNED_PAGES: Final = 64


class SqliteDatabase(Database):
    """A file.

    Args:
        name: The file's name, or its ``file:`` URI.
        clock: Tells when to look at the write-ahead log.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._file = OpenFile(Path(name.removeprefix("file:").partition("?")[0]))
        self._writer = _Connection(name, "hearth-sqlite-writer")
        self._reader = _Connection(name, "hearth-sqlite-reader")
        self._copier = _Connection(name, "hearth-sqlite-copier")
        self._log = WriteAheadLog(name, self._copier.do, clock)

    def query(self, query: Query, **params: Any) -> Coroutine[Any, Any, list[Row]]:
        """Read beside the writer, which waits for no reader, nor makes one wait."""
        return self._reader.do(lambda db: _fetch(db, query, params))

    def write(self, upsert: Upsert, *parts: Sequence[msgspec.Struct]) -> Coroutine[Any, Any, None]:
        """Write in one transaction."""
        return self._change(lambda db: self._write(db, upsert, parts))

    def submit(self, upsert: Upsert, parts: Parts, done: Done) -> None:
        """Hand the rows over to the committing thread."""
        self._log.is_quiet = False
        if not self._log.is_watched:
            self._log.watch()
        where = asyncio.get_running_loop(), copy_context()
        self._writer.post(functools.partial(self._write_and_report, upsert, parts, done, *where))

    def transaction(self, steps: Callable[[], Steps[T]]) -> Coroutine[Any, Any, T]:
        """Run the steps while nobody else writes."""
        return self._change(lambda db: self._run(db, steps()))

    async def check(self) -> None:
        """Write a row as it is."""
        await self._writer.do(self._probe)

    async def shrink(self) -> bool:
        """Return some free pages, if many are free and the file is of the kind that can return them."""
        return await self._change(_shrink)

    async def close(self) -> None:
        """Wait for what was asked for, then close the file."""
        await self._writer.close()
        await self._reader.close()
        await self._log.close()
        await self._copier.close()

    def _change(self, work: Callable[[sqlite3.Connection], T]) -> Coroutine[Any, Any, T]:
        self._log.is_quiet = False
        if not self._log.is_watched:
            self._log.watch()
        return self._writer.do(work)

    # -- in the committing thread ---------------------------------------------------------------------------------

    def _write_and_report(
        self, upsert: Upsert, parts: Parts, done: Done, loop: asyncio.AbstractEventLoop, context: Context
    ) -> None:
        error: Exception | None = None
        try:
            self._write(self._writer.connected(), upsert, parts)
        except Exception as exc:  # the caller has to know of every error
            error = translated(exc) if isinstance(exc, sqlite3.Error) else exc
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(done, error, context=context)

    def _write(self, db: sqlite3.Connection, upsert: Upsert, parts: Parts) -> None:
        self._file.check()
        statements = _statements(upsert, parts)
        if len(statements) == 1:  # as most often: a transaction of its own
            db.execute(*statements[0])
        elif statements:
            with _transaction(db):
                for text, values in statements:
                    db.execute(text, values)

    def _run(self, db: sqlite3.Connection, steps: Steps[T]) -> T:
        self._file.check()
        with _transaction(db):
            rows: Any = None
            while True:
                try:
                    step = steps.send(rows)
                except StopIteration as end:
                    result: T = end.value
                    return result
                rows = _do(db, step)

    def _probe(self, db: sqlite3.Connection) -> None:
        self._file.check()
        db.execute(PROBE)


class _Connection:
    """A connection and the thread that uses it.

    Attributes:
        post: Runs work in the thread, see :class:`WorkThread`.
    """

    def __init__(self, name: str, thread: str) -> None:
        self._name = name
        self._thread = WorkThread(thread)
        self.post = self._thread.post
        self._connection: sqlite3.Connection | None = None

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run one piece of work after the other.

        It has no time limit: a lock is waited for ``BUSY_TIMEOUT_S``, and a thread cannot be called back from a disk.
        """
        try:
            return await self._thread.do(lambda: work(self.connected()))
        except sqlite3.Error as exc:
            raise translated(exc) from exc

    async def close(self) -> None:
        """Wait for what was asked for, then close the connection."""
        await self._thread.do(self._disconnect)
        self._thread.end()

    def connected(self) -> sqlite3.Connection:
        """Return the connection, open; only its thread may ask."""
        if self._connection is None:
            self._connection = _connect(self._name)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(name: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        name,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_KEPT_STATEMENTS,
        uri=name.startswith("file:"),
    )
    db.row_factory = sqlite3.Row
    db.text_factory = TEXTS
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")  # WriteAheadLog does it
    return db


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has undone it already
            db.execute("ROLLBACK")
        raise


def _do(db: sqlite3.Connection, step: Read | Write | Put) -> list[Row]:
    if isinstance(step, Read):
        return _fetch(db, step.query, step.params)
    if isinstance(step, Write):
        compiled = step.query.compiled(_DIALECT)
        db.executemany(compiled.text, [compiled.values(row) for row in step.rows])
    else:
        for text, values in _statements(step.upsert, step.parts):
            db.execute(text, values)
    return []


def _statements(upsert: Upsert, parts: Parts) -> list[tuple[str, list[Any]]]:
    return [
        statement
        for insert, rows in zip(upsert.sqlite, parts, strict=True)
        if rows
        for statement in insert.statements(rows)
    ]


def _fetch(db: sqlite3.Connection, query: Query, params: Row) -> list[Row]:
    compiled = query.compiled(_DIALECT)
    rows: list[Row] = db.execute(compiled.text, compiled.values(params)).fetchall()
    return rows


def _shrink(db: sqlite3.Connection) -> bool:
    kind, pages, free = [
        db.execute(pragma).fetchone()[0]
        for pragma in ("PRAGMA auto_vacuum", "PRAGMA page_count", "PRAGMA freelist_count")
    ]
    if kind != INCREMENTAL or free <= max(SPARE_PAGES, pages // _SPARE_PART):
        return False
    # executescript steps the statement to its end; execute would return one page
    db.executescript(f"PRAGMA incremental_vacuum({_RETURNED_PAGES})")
    return True
