"""The statements that every call waits for, as literal SQL of each database: store records and logs of many calls.

SQLite and MySQL take the rows as one list of VALUES. PostgreSQL takes the rows of a table as one JSON parameter, and
the rows of all tables in one statement, which is a transaction of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

#: Rows that one statement writes at most: there is a text for each number of rows.
MOST_ROWS: Final = 64
#: Returns the values of a row, in the order of its columns.
values_of: Final = msgspec.structs.astuple


class CallRow(msgspec.Struct, frozen=True, gc=False):
    """A row of ``calls``."""

    id: str
    app_name: str
    path: str
    status: str
    created_at: str
    started_at: str
    completed_at: str
    stats: str
    error: str
    app_id: str
    response_status: str
    details: str


class StrayRow(msgspec.Struct, frozen=True, gc=False):
    """A row of ``stray_calls``."""

    id: str
    app_name: str
    created_at: str


class LogRow(msgspec.Struct, frozen=True, gc=False):
    """A row of ``logs``."""

    id: str
    app_name: str
    log: bytes


class ResultRow(msgspec.Struct, frozen=True, gc=False):
    """A row of ``results``."""

    id: str
    app_name: str
    expires_at: str
    head: str
    body: bytes


class DeadLetterRow(msgspec.Struct, frozen=True, gc=False):
    """A row of ``dead_letters``."""

    id: str
    app_name: str
    path: str
    died_at: str
    redriven_as: str
    head: str
    payload: bytes


#: Types of rows that hold bytes.
WITH_BYTES: Final = frozenset({LogRow, ResultRow, DeadLetterRow})

#: Rows for each table of an :class:`Upsert`.
Parts = tuple[Sequence[msgspec.Struct], ...]


class Insert:
    """An INSERT of any number of rows.

    Args:
        row: The type of the rows.
        head: The statement up to its rows.
        mark: The marker of one value.
        tail: The statement after its rows.
    """

    def __init__(self, row: type[msgspec.Struct], head: str, mark: str, tail: str = "") -> None:
        self._head, self._tail = head, tail
        self._row = f"({', '.join([mark] * len(row.__struct_fields__))})"
        self._texts: dict[int, str] = {}

    def statements(self, rows: Sequence[msgspec.Struct]) -> list[tuple[str, list[Any]]]:
        """Return the texts that write the rows, each with its values."""
        pieces = [rows[start : start + MOST_ROWS] for start in range(0, len(rows), MOST_ROWS)]
        return [(self._text(len(some)), [*itertools.chain.from_iterable(map(values_of, some))]) for some in pieces]

    def _text(self, count: int) -> str:
        known = self._texts.get(count)
        if known is None:
            known = self._texts[count] = self._head + ", ".join([self._row] * count) + self._tail
        return known


class Upsert(NamedTuple):
    """Writes rows of some tables; each part of the rows is for one table.

    Attributes:
        rows: The types of the rows of each table.
        sqlite: One statement for each table.
        mysql: One statement for each table.
        postgres: The statement that writes all tables. Its parameters are the rows of each table as JSON, or as one
            array for each column of a table that holds bytes.
        postgres_first: The statement that writes the first table, if it often goes alone.
    """

    rows: tuple[type[msgspec.Struct], ...]
    sqlite: tuple[Insert, ...]
    mysql: tuple[Insert, ...]
    postgres: str
    postgres_first: str = ""


_INTO_CALLS: Final = (
    "INSERT INTO calls (id, app_name, path, status, created_at, started_at, completed_at, stats, error, app_id,"
    " response_status, details) VALUES "
)
_INTO_STRAYS: Final = "INSERT INTO stray_calls (id, app_name, created_at) VALUES "

_SQLITE_STORE_CALLS: Final = Insert(
    CallRow,
    _INTO_CALLS,
    "?",
    " ON CONFLICT (id) DO UPDATE SET app_name = excluded.app_name, path = excluded.path, status = excluded.status,"
    " created_at = excluded.created_at, started_at = excluded.started_at, completed_at = excluded.completed_at,"
    " stats = excluded.stats, error = excluded.error, app_id = excluded.app_id,"
    " response_status = excluded.response_status, details = excluded.details",
)
_SQLITE_STORE_STRAYS: Final = Insert(
    StrayRow,
    _INTO_STRAYS,
    "?",
    " ON CONFLICT (id) DO UPDATE SET app_name = excluded.app_name, created_at = excluded.created_at",
)
_SQLITE_STORE_LOGS: Final = Insert(
    LogRow,
    "INSERT INTO logs (id, app_name, log) VALUES ",
    "?",
    " ON CONFLICT (id) DO UPDATE SET app_name = excluded.app_name, log = excluded.log",
)
_SQLITE_ADD_CALLS: Final = Insert(CallRow, _INTO_CALLS, "?", " ON CONFLICT (id) DO NOTHING")
_SQLITE_ADD_STRAYS: Final = Insert(StrayRow, _INTO_STRAYS, "?", " ON CONFLICT (id) DO NOTHING")

_MYSQL_STORE_CALLS: Final = Insert(
    CallRow,
    "REPLACE INTO calls (id, app_name, path, status, created_at, started_at, completed_at, stats, error, app_id,"
    " response_status, details) VALUES ",
    "%s",
)
_MYSQL_STORE_STRAYS: Final = Insert(StrayRow, "REPLACE INTO stray_calls (id, app_name, created_at) VALUES ", "%s")
_MYSQL_STORE_LOGS: Final = Insert(LogRow, "REPLACE INTO logs (id, app_name, log) VALUES ", "%s")
# INSERT IGNORE would also hide what is wrong with the data
_MYSQL_ADD_CALLS: Final = Insert(CallRow, _INTO_CALLS, "%s", " ON DUPLICATE KEY UPDATE id = calls.id")
_MYSQL_ADD_STRAYS: Final = Insert(StrayRow, _INTO_STRAYS, "%s", " ON DUPLICATE KEY UPDATE id = stray_calls.id")

_POSTGRES_STORE_CALLS: Final = """
INSERT INTO calls (id, app_name, path, status, created_at, started_at, completed_at, stats, error, app_id,
    response_status, details)
SELECT id, app_name, path, status, created_at, started_at, completed_at, stats, error, app_id, response_status, details
FROM json_populate_recordset(NULL::calls, $1)
ON CONFLICT (id) DO UPDATE SET app_name = excluded.app_name, path = excluded.path, status = excluded.status,
    created_at = excluded.created_at, started_at = excluded.started_at, completed_at = excluded.completed_at,
    stats = excluded.stats, error = excluded.error, app_id = excluded.app_id,
    response_status = excluded.response_status, details = excluded.details
"""
_POSTGRES_STORE_ALL: Final = """
WITH noted AS (
    INSERT INTO stray_calls (id, app_name, created_at)
    SELECT id, app_name, created_at FROM json_populate_recordset(NULL::stray_calls, $2)
    ON CONFLICT (id) DO UPDATE SET app_name = excluded.app_name, created_at = excluded.created_at
), written AS (
    INSERT INTO logs (id, app_name, log) SELECT * FROM unnest($3::text[], $4::text[], $5::bytea[])
    ON CONFLICT (id) DO UPDATE SET app_name = excluded.app_name, log = excluded.log
)
INSERT INTO calls (id, app_name, path, status, created_at, started_at, completed_at, stats, error, app_id,
    response_status, details)
SELECT id, app_name, path, status, created_at, started_at, completed_at, stats, error, app_id, response_status, details
FROM json_populate_recordset(NULL::calls, $1)
ON CONFLICT (id) DO UPDATE SET app_name = excluded.app_name, path = excluded.path, status = excluded.status,
    created_at = excluded.created_at, started_at = excluded.started_at, completed_at = excluded.completed_at,
    stats = excluded.stats, error = excluded.error, app_id = excluded.app_id,
    response_status = excluded.response_status, details = excluded.details
"""
_POSTGRES_STORE_LOGS: Final = """
INSERT INTO logs (id, app_name, log) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
ON CONFLICT (id) DO UPDATE SET app_name = excluded.app_name, log = excluded.log
"""
_POSTGRES_ADD_ALL: Final = """
WITH noted AS (
    INSERT INTO stray_calls (id, app_name, created_at)
    SELECT id, app_name, created_at FROM json_populate_recordset(NULL::stray_calls, $2)
    ON CONFLICT (id) DO NOTHING
)
INSERT INTO calls (id, app_name, path, status, created_at, started_at, completed_at, stats, error, app_id,
    response_status, details)
SELECT id, app_name, path, status, created_at, started_at, completed_at, stats, error, app_id, response_status, details
FROM json_populate_recordset(NULL::calls, $1)
ON CONFLICT (id) DO NOTHING
"""

#: Replaces calls, notes of stray calls, and logs.
STORE: Final = Upsert(
    (CallRow, StrayRow, LogRow),
    (_SQLITE_STORE_CALLS, _SQLITE_STORE_STRAYS, _SQLITE_STORE_LOGS),
    (_MYSQL_STORE_CALLS, _MYSQL_STORE_STRAYS, _MYSQL_STORE_LOGS),
    _POSTGRES_STORE_ALL,
    _POSTGRES_STORE_CALLS,
)
#: Adds calls that are not stored yet, and notes of stray calls.
ADD: Final = Upsert(
    (CallRow, StrayRow),
    (_SQLITE_ADD_CALLS, _SQLITE_ADD_STRAYS),
    (_MYSQL_ADD_CALLS, _MYSQL_ADD_STRAYS),
    _POSTGRES_ADD_ALL,
)
#: Replaces logs.
STORE_LOGS: Final = Upsert(
    (LogRow,),
    (_SQLITE_STORE_LOGS,),
    (_MYSQL_STORE_LOGS,),
    _POSTGRES_STORE_LOGS,
)
#: Replaces the results of calls.
STORE_RESULTS: Final = Upsert(
    (ResultRow,),
    (
        Insert(
            ResultRow,
            "INSERT INTO results (id, app_name, expires_at, head, body) VALUES ",
            "?",
            " ON CONFLICT (id) DO UPDATE SET app_name = excluded.app_name, expires_at = excluded.expires_at,"
            " head = excluded.head, body = excluded.body",
        ),
    ),
    (Insert(ResultRow, "REPLACE INTO results (id, app_name, expires_at, head, body) VALUES ", "%s"),),
    """
INSERT INTO results (id, app_name, expires_at, head, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[])
ON CONFLICT (id) DO UPDATE SET app_name = excluded.app_name, expires_at = excluded.expires_at,
    head = excluded.head, body = excluded.body
""",
)
_INTO_DEAD_LETTERS: Final = "INSERT INTO dead_letters (id, app_name, path, died_at, redriven_as, head, payload) VALUES "
#: Adds dead letters that are not stored yet.
ADD_DEAD_LETTERS: Final = Upsert(
    (DeadLetterRow,),
    (Insert(DeadLetterRow, _INTO_DEAD_LETTERS, "?", " ON CONFLICT (id) DO NOTHING"),),
    (Insert(DeadLetterRow, _INTO_DEAD_LETTERS, "%s", " ON DUPLICATE KEY UPDATE id = dead_letters.id"),),
    """
INSERT INTO dead_letters (id, app_name, path, died_at, redriven_as, head, payload)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[])
ON CONFLICT (id) DO NOTHING
""",
)
