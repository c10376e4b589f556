"""Copy the tables into those of another version: the one way from each of Fn's versions to Hearth's, and back.

A copy has the same result for every version, to the last detail. MySQL cannot roll back a change of a table; it keeps
the old tables until the new ones take their place in one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import sqlalchemy as sa

from hearth.models.times import format_time, parse_time

_NEW: Final = "hearth_new_"
_OLD: Final = "hearth_old_"
_CHUNK: Final = 1000
#: Logs may have a MiB each.
_LOG_CHUNK: Final = 20
_TIMES: Final = ("created_at", "started_at", "completed_at", "updated_at")
#: What Fn cannot read where it is NULL.
_FILLED: Final = {"stats": "", "error": "", "cpus": 0}


def reshape(connection: sa.Connection, targets: Mapping[str, sa.Table]) -> None:
    """Give each table the shape of its target, with all of its rows; create missing tables."""
    for name in targets:
        for leftover in (_NEW + name, _OLD + name):
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {leftover}")
    found = [name for name in targets if sa.inspect(connection).has_table(name)]
    for name, target in targets.items():
        new = target.to_metadata(sa.MetaData(), name=_NEW + name)
        connection.execute(sa.schema.CreateTable(new))
        if name in found:
            _copy(connection, name, new)
    _swap(connection, list(targets), found)


def _swap(connection: sa.Connection, names: list[str], found: list[str]) -> None:
    if connection.dialect.name == "mysql":
        moves = [f"{name} TO {_OLD}{name}" for name in found] + [f"{_NEW}{name} TO {name}" for name in names]
        connection.exec_driver_sql(f"RENAME TABLE {', '.join(moves)}")  # all of them or none
        for name in found:
            connection.exec_driver_sql(f"DROP TABLE {_OLD}{name}")
        return
    for name in found:
        connection.exec_driver_sql(f"DROP TABLE {name}")
    for name in names:
        connection.exec_driver_sql(f"ALTER TABLE {_NEW}{name} RENAME TO {name}")
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"ALTER INDEX {_NEW}{name}_pkey RENAME TO {name}_pkey")


def _copy(connection: sa.Connection, name: str, new: sa.Table) -> None:
    columns = [column["name"] for column in sa.inspect(connection).get_columns(name)]
    old = sa.table(name, *[sa.column(column) for column in columns if column in new.c])
    for rows in _chunks(connection, old, [column.name for column in new.primary_key]):
        connection.execute(sa.insert(new), [_converted(new, row) for row in rows])


def _chunks(connection: sa.Connection, table: sa.TableClause, keys: list[str]) -> Iterator[list[sa.RowMapping]]:
    """Yield all rows in the order of their key, some at a time; of logs only a few."""
    order = [table.c[key] for key in keys]
    size = _LOG_CHUNK if "log" in table.c else _CHUNK
    query = sa.select(table).order_by(*order).limit(size)
    rows = list(connection.execute(query).mappings())
    while rows:
        yield rows
        last = sa.tuple_(*[sa.literal(rows[-1][key]) for key in keys])
        rows = list(connection.execute(query.where(sa.tuple_(*order) > last)).mappings())


def _converted(new: sa.Table, row: sa.RowMapping) -> dict[str, Any]:
    values = {**row, **{name: row.get(name) or empty for name, empty in _FILLED.items() if name in new.c}}
    values |= {name: _utc(row[name]) for name in _TIMES if name in row}
    if "log" in row:
        values["log"] = _bytes(row["log"]) if isinstance(new.c.log.type, sa.LargeBinary) else _text(row["log"])
    return values


def _utc(text: str | None) -> str | None:
    """Return a time in UTC: as texts, times compare only there. What is no time stays; reading it reports that."""
    if not text:
        return text
    try:
        return format_time(parse_time(text))
    except ValueError:
        return text


def _bytes(log: str | bytes) -> bytes:
    return log.encode() if isinstance(log, str) else bytes(log)


def _text(log: str | bytes) -> str:
    # PostgreSQL's texts hold no NUL
    return log.replace("\0", "") if isinstance(log, str) else log.decode("utf-8", "replace").replace("\0", "")
