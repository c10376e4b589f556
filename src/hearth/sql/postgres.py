"""PostgreSQL, by asyncpg: it prepares each text once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import msgspec
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from hearth.sql.query import Query, Row, Rows
from hearth.sql.server import ServerDatabase
from hearth.sql.upserts import WITH_BYTES, Parts, Upsert, values_of

_DIALECT: Final = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own is untyped
#: Seconds that closing a connection may take.
_CLOSE_S: Final = 2.0
_encode = msgspec.json.Encoder().encode


class PostgresDatabase(ServerDatabase):
    """A statement outside of BEGIN and COMMIT is a transaction of its own."""

    _BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"

    async def _connect(self) -> asyncpg.Connection:
        url = self._address.url
        return await asyncpg.connect(
            user=url.username, password=url.password, database=url.database, **self._address.connect_args
        )

    def _ping(self, connection: asyncpg.Connection) -> Any:
        return connection.fetchrow(";")

    def _is_closed(self, connection: asyncpg.Connection) -> bool:
        return bool(connection.is_closed())

    def _disconnect(self, connection: asyncpg.Connection) -> Any:
        return connection.close(timeout=_CLOSE_S)

    def _discard(self, connection: asyncpg.Connection) -> None:
        connection.terminate()

    def _order(self, connection: asyncpg.Connection, text: str) -> Any:
        return connection.execute(text)

    def _fetch(self, connection: asyncpg.Connection, query: Query, params: Row) -> Any:
        compiled = query.compiled(_DIALECT)
        return connection.fetch(compiled.text, *compiled.values(params))

    def _execute(self, connection: asyncpg.Connection, query: Query, rows: Rows) -> Any:
        compiled = query.compiled(_DIALECT)
        return connection.executemany(compiled.text, [compiled.values(row) for row in rows])

    def _put(self, connection: asyncpg.Connection, upsert: Upsert, parts: Parts) -> Any:
        if upsert.postgres_first and not any(parts[1:]):
            return connection.execute(upsert.postgres_first, *_parameters(parts[0], upsert.rows[0]))
        values = [value for rows, kind in zip(parts, upsert.rows, strict=True) for value in _parameters(rows, kind)]
        return connection.execute(upsert.postgres, *values)

    _write = _put


def _parameters(rows: Sequence[msgspec.Struct], kind: type[msgspec.Struct]) -> list[Any]:
    if kind not in WITH_BYTES:
        return [_encode(rows).decode()]
    return [*zip(*map(values_of, rows), strict=True)] or [()] * len(kind.__struct_fields__)
