"""Reads: one message to a server, one hand-over to a thread on SQLite, and no transaction around either."""

from __future__ import annotations

import sqlite3
from typing import Any, Final, Protocol

from sqlalchemy.dialects import sqlite

from hearth.models.errors import StoreUnavailable
from hearth.sql.address import BUSY_TIMEOUT_S
from hearth.sql.kept import KeptConnections
from hearth.sql.query import Query, Question, Row
from hearth.sql.questions import MESSAGES, QUESTIONS
from hearth.sql.transactions import Transactions
from hearth.worker import WorkThread

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")


class Reads(Protocol):
    """Asks a database."""

    async def rows(self, query: Query, **params: Any) -> list[Row]:
        """What is stored now; whatever was written before this was asked is seen.

        Raises:
            StoreUnavailable: The database failed.
            StoreRefused: It does not like the parameters.
        """

    async def close(self) -> None:
        """Release what is held."""


def reads(transactions: Transactions) -> Reads:
    """The quickest way to read from the database of these transactions."""
    if transactions.dialect == "sqlite":
        return ReadsInThread(str(transactions.engine.url.database))
    return ReadsAtServer(transactions)


class ReadsInThread:
    """SQLite in a thread of its own: a reader waits for no writer.

    Args:
        database: The file's name, or its ``file:`` URI.
    """

    def __init__(self, database: str) -> None:
        self._database = database
        self._connection: sqlite3.Connection | None = None
        self._thread = WorkThread("hearth-sqlite-reader")

    async def rows(self, query: Query, **params: Any) -> list[Row]:
        """Hand it over."""
        words = query.words(_DIALECT)
        values = words.values(params)
        try:
            return await self._thread.do(lambda: self._fetch(words.text, values))
        except sqlite3.Error as exc:
            raise StoreUnavailable(f"database: {exc}") from exc

    async def close(self) -> None:
        """Wait for what is being read, then close the file."""
        await self._thread.do(self._disconnect)
        self._thread.end()

    def _fetch(self, text: str, values: list[Any]) -> list[Row]:
        if self._connection is None:
            self._connection = self._connect()
        rows: list[Row] = self._connection.execute(text, values).fetchall()
        return rows

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._database,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            uri=self._database.startswith("file:"),
        )
        connection.row_factory = sqlite3.Row
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class ReadsAtServer:
    """PostgreSQL, MySQL or MariaDB, over connections that are kept."""

    def __init__(self, transactions: Transactions) -> None:
        dialect = transactions.engine.dialect
        messages = MESSAGES[transactions.dialect](dialect)
        self._transactions = transactions
        self._questions = QUESTIONS[transactions.dialect](dialect, messages)
        self._kept = KeptConnections(transactions.engine, messages.ping)

    async def rows(self, query: Query, **params: Any) -> list[Row]:
        """Send it."""
        async with self._transactions.limited(), self._kept.one() as connection:
            return await self._questions.ask(connection, Question(query, params))

    async def close(self) -> None:
        """Give the connections back."""
        await self._kept.close()
