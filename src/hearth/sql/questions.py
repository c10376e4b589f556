"""Questions and transactions over a driver's own connection, in the words of each driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import sqlalchemy as sa

from hearth.sql.messages import Messages, MySQLMessages, PostgresMessages
from hearth.sql.query import Question, Removal, Row
from hearth.sql.writes import Writes


class Questions(Protocol):
    """Speaks to the connections of one driver, which are outside of a transaction; all raise what the driver raises."""

    def __init__(self, dialect: sa.Dialect, messages: Messages) -> None: ...

    async def ask(self, connection: Any, question: Question) -> list[Row]:
        """The rows of a question by itself: one message."""

    async def begin(self, connection: Any) -> None:
        """Begin a transaction."""

    async def ask_within(self, connection: Any, question: Question) -> list[Row]:
        """The rows of a question within a transaction."""

    async def end(self, connection: Any, removals: Sequence[Removal], writes: Writes) -> None:
        """Remove, write, commit."""


class PostgresQuestions:
    """asyncpg prepares each text once; a statement outside of a transaction is one by itself."""

    def __init__(self, dialect: sa.Dialect, messages: Messages) -> None:
        self._dialect = dialect
        self._messages = messages

    async def ask(self, connection: Any, question: Question) -> list[Row]:
        """Fetch."""
        words = question.query.words(self._dialect)
        rows: list[Row] = await connection.fetch(words.text, *words.values(question.params))
        return rows

    async def begin(self, connection: Any) -> None:
        """Whatever the server's own level: what is read locked is to be the newest."""
        await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")

    ask_within = ask

    async def end(self, connection: Any, removals: Sequence[Removal], writes: Writes) -> None:
        """Send one message for all writes, and the commit."""
        for removal in removals:
            words = removal.query.words(self._dialect)
            await connection.executemany(words.text, [words.values(params) for params in removal.params])
        if writes:
            await self._messages.send(connection, writes)
        await connection.execute("COMMIT")


class MySQLQuestions:
    """Each statement begins a transaction, unless one is open; so the commit goes with the last."""

    def __init__(self, dialect: sa.Dialect, messages: Messages) -> None:
        self._dialect = dialect
        self._messages = messages

    async def ask(self, connection: Any, question: Question) -> list[Row]:
        """Fetch, and commit in the same message: an open transaction would keep others from changing the tables."""
        return await self._rows(connection, question, ";COMMIT")

    async def begin(self, connection: Any) -> None:
        """Nothing is to be said."""

    async def ask_within(self, connection: Any, question: Question) -> list[Row]:
        """Fetch."""
        return await self._rows(connection, question, "")

    async def end(self, connection: Any, removals: Sequence[Removal], writes: Writes) -> None:
        """Send one message for all writes, with the commit."""
        async with connection.cursor() as cursor:
            for removal in removals:
                words = removal.query.words(self._dialect)
                for params in removal.params:
                    await cursor.execute(words.text, words.values(params))
        await self._messages.send(connection, writes)

    async def _rows(self, connection: Any, question: Question, tail: str) -> list[Row]:
        words = question.query.words(self._dialect)
        async with connection.cursor() as cursor:
            await cursor.execute(words.text + tail, words.values(question.params))
            found = [dict(zip(words.columns, row, strict=True)) for row in await cursor.fetchall()]
            while await cursor.nextset():
                pass
        return list[Row](found)


MESSAGES: Final[dict[str, type[Messages]]] = {"postgresql": PostgresMessages, "mysql": MySQLMessages}
QUESTIONS: Final[dict[str, type[Questions]]] = {"postgresql": PostgresQuestions, "mysql": MySQLQuestions}
