"""MySQL and MariaDB, by asyncmy: it puts the values of the parameters into the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import asyncmy
import msgspec
from sqlalchemy.dialects.mysql import asyncmy as asyncmy_dialect

from hearth.sql.query import Query, Row, Rows
from hearth.sql.server import ServerDatabase
from hearth.sql.upserts import MOST_ROWS, Parts, Upsert, values_of

_DIALECT: Final = asyncmy_dialect.dialect()
_READ_COMMITTED: Final = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
#: Characters of a message, unless one statement has more: at four bytes each, what every server takes.
_MAX_MESSAGE: Final = 250_000

#: Its text, the values of its parameters, and their size.
_Statement = tuple[str, list[Any], int]


class MySQLDatabase(ServerDatabase):
    """A statement outside of START TRANSACTION and COMMIT is a transaction of its own."""

    async def _connect(self) -> Any:
        url = self._address.url
        named = {"user": url.username, "password": url.password, "db": url.database}
        return await asyncmy.connect(
            **{name: value for name, value in named.items() if value is not None},
            **self._address.connect_args,
            autocommit=True,
            init_command=_READ_COMMITTED,
        )

    def _ping(self, connection: Any) -> Any:
        return connection.ping(reconnect=False)

    def _disconnect(self, connection: Any) -> Any:
        return connection.ensure_closed()

    def _discard(self, connection: Any) -> None:
        connection.close()

    async def _order(self, connection: Any, text: str, values: list[Any] | None = None) -> None:
        async with connection.cursor() as cursor:
            await cursor.execute(text, values)
            while await cursor.nextset():
                pass

    async def _fetch(self, connection: Any, query: Query, params: Row) -> list[Row]:
        compiled = query.compiled(_DIALECT)
        async with connection.cursor() as cursor:
            await cursor.execute(compiled.text, compiled.values(params))
            return [dict(zip(compiled.columns, row, strict=True)) for row in await cursor.fetchall()]

    async def _execute(self, connection: Any, query: Query, rows: Rows) -> None:
        compiled = query.compiled(_DIALECT)
        async with connection.cursor() as cursor:
            await cursor.executemany(compiled.text, [compiled.values(row) for row in rows])

    async def _write(self, connection: Any, upsert: Upsert, parts: Parts) -> None:
        statements = list(_statements(upsert, parts))
        if len(statements) > 1:
            statements = [("START TRANSACTION", [], 0), *statements, ("COMMIT", [], 0)]
        await self._send(connection, statements)

    async def _put(self, connection: Any, upsert: Upsert, parts: Parts) -> None:
        await self._send(connection, _statements(upsert, parts))

    async def _send(self, connection: Any, statements: Iterable[_Statement]) -> None:
        """Send as few messages as possible; the server executes the statements of one until one of them fails."""
        texts: list[str] = []
        values: list[Any] = []
        room = _MAX_MESSAGE
        for text, some, size in statements:
            if texts and size > room:
                await self._order(connection, ";".join(texts), values)
                texts, values, room = [], [], _MAX_MESSAGE
            texts.append(text)
            values += some
            room -= size
        if texts:
            await self._order(connection, ";".join(texts), values)


def _statements(upsert: Upsert, parts: Parts) -> Iterator[_Statement]:
    for insert, rows in zip(upsert.mysql, parts, strict=True):
        for some, size in _pieces(rows):
            for text, values in insert.statements(some):
                yield text, values, size


def _pieces(rows: Sequence[msgspec.Struct]) -> Iterator[tuple[Sequence[msgspec.Struct], int]]:
    """Cut rows into pieces that fit in a message, each with its size, unless one row alone does not."""
    piece: list[msgspec.Struct] = []
    total = 0
    for row in rows:
        size = sum([len(value or "") for value in values_of(row)])
        if piece and (total + size > _MAX_MESSAGE or len(piece) == MOST_ROWS):
            yield piece, total
            piece, total = [], 0
        piece.append(row)
        total += size
    if piece:
        yield piece, total
