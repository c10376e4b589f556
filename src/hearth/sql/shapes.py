"""The tables as they were at versions of the past: Fn's 0 to 7, and Hearth's. Frozen; today's are in tables.py.

Fn counts its migrations in ``schema_migrations``; each added one column (storage specification 3).
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from hearth.sql import kinds

#: The version of Fn's schema that Hearth extends, and that it leaves in ``schema_migrations``.
FN_VERSION: Final = 7
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

_VERSIONS: Final = ("CREATE TABLE schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)",)
_VERSIONS_SQLITE: Final = (
    "CREATE TABLE schema_migrations (version uint64, dirty bool)",
    "CREATE UNIQUE INDEX version_unique ON schema_migrations (version)",
)


def first() -> dict[str, sa.Table]:
    """Hearth's first tables: Fn's version 7, with logs as bytes."""
    metadata = sa.MetaData()
    return {
        "apps": sa.Table(
            "apps",
            metadata,
            sa.Column("name", kinds.name(), primary_key=True),
            sa.Column("config", kinds.text(), nullable=False),
            sa.Column("created_at", kinds.name()),
            sa.Column("updated_at", kinds.name()),
            **kinds.TABLE_OPTIONS,
        ),
        "routes": sa.Table(
            "routes",
            metadata,
            sa.Column("app_name", kinds.name(), primary_key=True),
            sa.Column("path", kinds.name(), primary_key=True),
            sa.Column("image", kinds.name(), nullable=False),
            sa.Column("format", kinds.name(16), nullable=False),
            sa.Column("memory", sa.Integer, nullable=False),
            sa.Column("cpus", sa.Integer),
            sa.Column("timeout", sa.Integer, nullable=False),
            sa.Column("idle_timeout", sa.Integer, nullable=False),
            sa.Column("type", kinds.name(16), nullable=False),
            sa.Column("headers", kinds.text(), nullable=False),
            sa.Column("config", kinds.text(), nullable=False),
            sa.Column("created_at", kinds.text()),
            sa.Column("updated_at", kinds.name()),
            **kinds.TABLE_OPTIONS,
        ),
        "calls": sa.Table(
            "calls",
            metadata,
            sa.Column("created_at", kinds.name(), nullable=False),
            sa.Column("started_at", kinds.name(), nullable=False),
            sa.Column("completed_at", kinds.name(), nullable=False),
            sa.Column("status", kinds.name(), nullable=False),
            sa.Column("id", kinds.name(), primary_key=True),
            sa.Column("app_name", kinds.name(), nullable=False),
            sa.Column("path", kinds.name(), nullable=False),
            sa.Column("stats", kinds.text()),
            sa.Column("error", kinds.text()),
            **kinds.TABLE_OPTIONS,
        ),
        "logs": sa.Table(
            "logs",
            metadata,
            sa.Column("id", kinds.name(), primary_key=True),
            sa.Column("app_name", kinds.name(), nullable=False),
            sa.Column("log", kinds.blob(), nullable=False),
            **kinds.TABLE_OPTIONS,
        ),
    }


def stray_calls() -> sa.Table:
    """Hearth's third revision: calls whose id tells another time than their ``created_at``."""
    return sa.Table(
        "stray_calls",
        sa.MetaData(),
        sa.Column("id", kinds.name(), primary_key=True),
        sa.Column("app_name", kinds.name(), nullable=False),
        sa.Column("created_at", kinds.name(), nullable=False),
        sa.Index("stray_calls_by_time", "app_name", "created_at", "id"),
        **kinds.TABLE_OPTIONS,
    )


def fn(version: int) -> dict[str, sa.Table]:
    """Fn's tables at a version: what it has added by then, with logs as text."""
    metadata = sa.MetaData()
    return {
        name: sa.Table(
            name,
            metadata,
            *[_fn_column(column) for column in table.columns if ADDED_BY.get((name, column.name), 0) <= version],
            **kinds.TABLE_OPTIONS,
        )
        for name, table in first().items()
    }


def index_calls(connection: sa.Connection, name: str, *columns: str) -> None:
    """Add an index to the calls, unless an interrupted migration has: MySQL keeps what was done."""
    if name in {index["name"] for index in sa.inspect(connection).get_indexes("calls")}:
        return
    connection.exec_driver_sql(f"CREATE INDEX {name} ON calls ({', '.join(columns)})")


def drop_index_of_calls(connection: sa.Connection, name: str) -> None:
    """Drop an index of the calls, unless an interrupted migration has."""
    if name in {index["name"] for index in sa.inspect(connection).get_indexes("calls")}:
        connection.exec_driver_sql(f"DROP INDEX {name}" + (" ON calls" if connection.dialect.name == "mysql" else ""))


def note_fn_version(connection: sa.Connection, version: int) -> None:
    """Write Fn's note of its version, in the table's form that Fn makes on this database."""
    if not sa.inspect(connection).has_table("schema_migrations"):
        for statement in _VERSIONS_SQLITE if connection.dialect.name == "sqlite" else _VERSIONS:
            connection.exec_driver_sql(statement)
    note = sa.table("schema_migrations", sa.column("version", sa.BigInteger), sa.column("dirty", sa.Boolean))
    connection.execute(sa.delete(note))
    connection.execute(sa.insert(note).values(version=version, dirty=False))


def _fn_column(column: sa.Column[object]) -> sa.Column[object]:
    kind = kinds.text() if column.name == "log" else column.type
    return sa.Column(column.name, kind, primary_key=column.primary_key, nullable=column.nullable)
