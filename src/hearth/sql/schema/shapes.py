"""The tables as they were at earlier versions: Fn's 0 to 7, and Hearth's first. Each version lists what it added.

Fn counts its migrations in ``schema_migrations``; each added one column (storage specification 3).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import sqlalchemy as sa

from hearth.models import ids
from hearth.sql.schema import kinds, tables

#: The version of Fn's schema that Hearth extends, and that it leaves in ``schema_migrations``.
FN_VERSION: Final = 7
#: The version of today's Fn, which has other tables.
NEWEST_FN_VERSION: Final = 26
#: The tables of today's Fn.
NEWEST_FN_TABLES: Final = ("apps", "fns", "triggers")
#: The migration of Fn's that added a column.
ADDED_BY: Final = {
    ("routes", "created_at"): 1,
    ("calls", "stats"): 2,
    ("calls", "error"): 3,
    ("routes", "updated_at"): 4,
    ("apps", "created_at"): 5,
    ("apps", "updated_at"): 6,
    ("routes", "cpus"): 7,
}
TABLES: Final = ("apps", "routes", "calls", "logs")

#: Hearth's fourth revision: columns by table, with the characters that they hold.
ADDED_BY_0004: Final = (("apps", "id", 32), ("calls", "app_id", 32), ("calls", "response_status", 16))
#: Hearth's sixth revision: columns by table; 0 stands for a long text.
ADDED_BY_0006: Final = (("apps", "secrets", 0), ("routes", "secrets", 0), ("routes", "secrets_as", 16))
#: Hearth's seventh revision, likewise.
ADDED_BY_0007: Final = (("apps", "annotations", 0), ("apps", "syslog_url", 0), ("apps", "shape", 32))
#: Hearth's eighth revision, likewise.
ADDED_BY_0008: Final = (("apps", "auth", 16), ("routes", "auth", 16), ("routes", "signature", 0))
#: Hearth's ninth revision, likewise.
ADDED_BY_0009: Final = (("apps", "quotas", 0),)
#: Hearth's tenth revision, likewise.
ADDED_BY_0010: Final = (("routes", "concurrency", 16),)
#: Hearth's twelfth revision, likewise.
ADDED_BY_0012: Final = (("calls", "details", 0), ("routes", "delivery", 0))
#: Hearth's thirteenth revision, likewise.
ADDED_BY_0013: Final = (("routes", "digest", 128), ("fns", "digest", 128))
#: Hearth's eighteenth revision, likewise.
ADDED_BY_0018: Final = (("routes", "min_instances", 16), ("routes", "max_instances", 16), ("fns", "min_instances", 16))
#: The tables of functions that may keep containers ready.
KEPT_READY: Final = ("routes", "fns")
_ADDED: Final = (
    *(*ADDED_BY_0004, *ADDED_BY_0006, *ADDED_BY_0007, *ADDED_BY_0008, *ADDED_BY_0009),
    *(*ADDED_BY_0010, *ADDED_BY_0012, *ADDED_BY_0013, *ADDED_BY_0018),
)
_NOT_FIRST: Final = frozenset([(table, column) for table, column, _ in _ADDED])

_VERSIONS: Final = ("CREATE TABLE schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)",)
_VERSIONS_SQLITE: Final = (
    "CREATE TABLE schema_migrations (version uint64, dirty bool)",
    "CREATE UNIQUE INDEX version_unique ON schema_migrations (version)",
)


def first() -> dict[str, sa.Table]:
    """Return Hearth's first tables, without indexes: Fn's version 7, with logs as bytes."""
    found = {}
    for name in TABLES:
        columns = [column for column in tables.metadata.tables[name].columns if (name, column.name) not in _NOT_FIRST]
        found[name] = _table(name, columns, log=kinds.blob())
    return found


def fn(version: int) -> dict[str, sa.Table]:
    """Return Fn's tables at a version: with what it has added until then, and logs as text."""
    found = {}
    for name, table in first().items():
        columns = [column for column in table.columns if ADDED_BY.get((name, column.name), 0) <= version]
        found[name] = _table(name, columns, log=kinds.text())
    return found


def stray_calls() -> sa.Table:
    """Return the table that Hearth's third revision added, with its index."""
    return tables.stray_calls.to_metadata(sa.MetaData())


def access() -> list[sa.Table]:
    """Return the tables of tokens and of the audit log, with their indexes."""
    copies = sa.MetaData()
    return [table.to_metadata(copies) for table in (tables.tokens, tables.audit)]


def secrets() -> sa.Table:
    """Return the table that Hearth's sixth revision added, with its index."""
    return tables.secrets.to_metadata(sa.MetaData())


def versions() -> sa.Table:
    """Return the table that Hearth's eleventh revision added, with its index."""
    return tables.versions.to_metadata(sa.MetaData())


def results() -> sa.Table:
    """Return the table that Hearth's twelfth revision added, with its index."""
    return tables.results.to_metadata(sa.MetaData())


def dead_letters() -> sa.Table:
    """Return the table of dead letters, with its indexes."""
    return tables.dead_letters.to_metadata(sa.MetaData())


def schedules() -> list[sa.Table]:
    """Return the tables of schedules, with their indexes."""
    copies = sa.MetaData()
    return [table.to_metadata(copies) for table in (tables.schedules, tables.firings)]


def idempotency_keys() -> sa.Table:
    """Return the table of idempotency keys, with its indexes."""
    return tables.idempotency_keys.to_metadata(sa.MetaData())


def fns() -> list[sa.Table]:
    """Return the tables that Hearth's seventh revision added, with their indexes."""
    copies = sa.MetaData()
    return [table.to_metadata(copies) for table in (tables.fns, tables.triggers)]


def add_text(connection: sa.Connection, table: str, column: str, length: int) -> None:
    """Add a column for texts, unless an interrupted migration has: MySQL keeps what was done.

    Args:
        connection: To the database.
        table: The table.
        column: The new column.
        length: Characters of a short text; 0 for a long one.
    """
    if column in {found["name"] for found in sa.inspect(connection).get_columns(table)}:
        return
    kind = (kinds.name(length) if length else kinds.text()).compile(connection.dialect)
    is_postgres = connection.dialect.name == "postgresql"
    collation = ' COLLATE "C"' if length and is_postgres and "COLLATE" not in kind else ""
    connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column} {kind}{collation}")


def name_apps(connection: sa.Connection) -> None:
    """Give an id to each app that has none."""
    apps = sa.table("apps", sa.column("name"), sa.column("id"))
    for name in connection.execute(sa.select(apps.c.name).where(apps.c.id.is_(None))).scalars().all():
        connection.execute(sa.update(apps).where(apps.c.name == name).values(id=ids.random_id()))


def add_index(connection: sa.Connection, table: str, name: str, *columns: str, where: str = "") -> None:
    """Add an index to a table, unless an interrupted migration has: MySQL keeps what was done."""
    if name in {index["name"] for index in sa.inspect(connection).get_indexes(table)}:
        return
    connection.exec_driver_sql(f"CREATE INDEX {name} ON {table} ({', '.join(columns)}){where}")


def ready_index(table: str) -> str:
    """Return the name of the index by the number of containers that are kept ready."""
    return f"{table}_by_min_instances"


def index_apps(connection: sa.Connection) -> None:
    """Index the ids of apps, unless an interrupted migration has."""
    if "apps_by_id" not in {index["name"] for index in sa.inspect(connection).get_indexes("apps")}:
        connection.exec_driver_sql("CREATE UNIQUE INDEX apps_by_id ON apps (id)")


def drop_index(connection: sa.Connection, table: str, name: str) -> None:
    """Drop an index of a table, unless an interrupted migration has."""
    if name in {index["name"] for index in sa.inspect(connection).get_indexes(table)}:
        connection.exec_driver_sql(
            f"DROP INDEX {name}" + (f" ON {table}" if connection.dialect.name == "mysql" else "")
        )


def note_fn_version(connection: sa.Connection, version: int) -> None:
    """Write Fn's note of its version, in the table's form that Fn makes on this database."""
    if not sa.inspect(connection).has_table("schema_migrations"):
        for statement in _VERSIONS_SQLITE if connection.dialect.name == "sqlite" else _VERSIONS:
            connection.exec_driver_sql(statement)
    note = sa.table("schema_migrations", sa.column("version", sa.BigInteger), sa.column("dirty", sa.Boolean))
    connection.execute(sa.delete(note))
    connection.execute(sa.insert(note).values(version=version, dirty=False))


def _table(name: str, columns: Iterable[sa.Column[Any]], log: sa.types.TypeEngine[Any]) -> sa.Table:
    copies = [
        sa.Column(
            column.name,
            log if column.name == "log" else column.type,
            primary_key=column.primary_key,
            nullable=column.nullable,
        )
        for column in columns
    ]
    return sa.Table(name, sa.MetaData(), *copies, **kinds.TABLE_OPTIONS)
