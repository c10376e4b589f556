"""Rows for several tables as one message to a server, which is one transaction, in the words of each driver."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

import sqlalchemy as sa

from hearth.sql.writes import Rows, Writes

#: Characters of a statement and of a message to MySQL, unless one row has more: at four bytes each, what every
#: server takes.
_MAX_TEXT: Final = 250_000


class Messages(Protocol):
    """Speaks to the connections of one driver."""

    def __init__(self, dialect: sa.Dialect) -> None: ...

    async def send(self, connection: Any, writes: Writes) -> None:
        """Write all, or none if this fails and the connection is closed.

        Raises:
            Exception: What the driver raises.
        """

    async def ping(self, connection: Any) -> None:
        """Have an answer from the server.

        Raises:
            Exception: What the driver raises.
        """


class PostgresMessages:
    """One statement for all tables: asyncpg prepares it once, and PostgreSQL does all of it or nothing.

    Rows are sent as one array for each column. Of texts we write the array ourselves, as a text: the driver would look
    at each of them as if it were an array, which takes longer than all the rest.
    """

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect
        self._texts: dict[tuple[sa.Insert, ...], tuple[str, list[list[str]]]] = {}

    async def send(self, connection: Any, writes: Writes) -> None:
        """Send one statement."""
        text, names = self._text(tuple([statement for statement, _ in writes]))
        columns = [
            _array([row[name] for row in rows])
            for (_, rows), of_table in zip(writes, names, strict=True)
            for name in of_table
        ]
        await connection.execute(text, *columns)

    async def ping(self, connection: Any) -> None:
        """Send an empty query."""
        await connection.fetchrow(";")

    def _text(self, statements: tuple[sa.Insert, ...]) -> tuple[str, list[list[str]]]:
        known = self._texts.get(statements)
        if known is None:
            names: list[list[str]] = []
            texts = []
            for statement in statements:
                compiled: Any = statement.compile(dialect=self._dialect)
                texts.append(_from_arrays(str(compiled), sum(map(len, names))))
                names.append(list(compiled.positiontup))
            *others, last = texts
            parts = ", ".join(f"part{number} AS ({text})" for number, text in enumerate(others))
            known = self._texts[statements] = (f"WITH {parts} {last}" if parts else last, names)
        return known


def _from_arrays(text: str, before: int) -> str:
    """An insert whose parameters are columns, numbered on from those before it."""

    def column(found: re.Match[str]) -> str:
        via = "text::" if found[2] == "VARCHAR" else ""
        return f"${int(found[1]) + before}::{via}{found[2]}[]"

    return re.sub(r"\$(\d+)::(\w+)", column, text).replace(" VALUES (", " SELECT * FROM unnest(", 1)


def _array(values: list[Any]) -> str | list[Any]:
    """A column as a parameter: PostgreSQL's text of an array of texts, or what else the driver encodes."""
    if isinstance(values[0], bytes | int):
        return values
    if None not in values:
        text = '","'.join(values)
        if "\\" not in text and text.count('"') == 2 * (len(values) - 1):
            return f'{{"{text}"}}'
    return f"{{{','.join(map(_element, values))}}}"


def _element(value: str | None) -> str:
    if value is None:
        return "NULL"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class MySQLMessages:
    """Statements of many rows and the commit in one text, which MySQL leaves where something is wrong."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect
        self._parts: dict[sa.Insert, tuple[str, str, str, list[str]]] = {}

    async def send(self, connection: Any, writes: Writes) -> None:
        """Send one text, or several if it would be too long."""
        async with connection.cursor() as cursor:
            message = ""
            for text in self._statements(cursor, writes):
                if message and len(message) + len(text) > _MAX_TEXT:
                    await self._all_of(cursor, message)
                    message = ""
                message += f"{text};"
            await self._all_of(cursor, f"{message}COMMIT")

    async def ping(self, connection: Any) -> None:
        """Send a ping."""
        await connection.ping(False)

    @staticmethod
    async def _all_of(cursor: Any, text: str) -> None:
        await cursor.execute(text)
        while await cursor.nextset():
            pass

    def _statements(self, cursor: Any, writes: Writes) -> Iterator[str]:
        for statement, rows in writes:
            head, one, tail, names = self._part(statement)
            for values in _chunks(cursor, one, names, rows):
                yield f"{head}{', '.join(values)}{tail}"

    def _part(self, statement: sa.Insert) -> tuple[str, str, str, list[str]]:
        known = self._parts.get(statement)
        if known is None:
            compiled: Any = statement.compile(dialect=self._dialect)
            names = list(compiled.positiontup)
            head, one, tail = str(compiled).partition(f"({', '.join(['%s'] * len(names))})")
            known = self._parts[statement] = (head, one, tail, names)
        return known


def _chunks(cursor: Any, one: str, names: list[str], rows: Rows) -> Iterator[list[str]]:
    values: list[str] = []
    size = 0
    for row in rows:
        of_row = [row[name] for name in names]
        value = _quoted(of_row) or cursor.mogrify(one, of_row)
        if values and size + len(value) > _MAX_TEXT:
            yield values
            values, size = [], 0
        values.append(value)
        size += len(value)
    yield values


def _quoted(values: list[Any]) -> str | None:
    """A row in brackets, if it is of texts that need no escape: the driver would look at each sign of each of them."""
    try:
        text = "','".join(values)
    except TypeError:
        return None
    return f"('{text}')" if "\\" not in text and text.count("'") == 2 * (len(values) - 1) else None
