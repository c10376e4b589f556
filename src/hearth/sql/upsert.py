"""Insert or replace, in the words of each database."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite


def replacing(
    dialect: str, table: sa.Table, *, keep: tuple[str, ...] = (), where: sa.ColumnElement[bool] | None = None
) -> sa.Insert:
    """Insert a row, or give the row with its key the new values.

    Args:
        dialect: SQLAlchemy's name of the database.
        table: Where to.
        keep: Columns that a row which is there already keeps.
        where: Which rows that are there are replaced; not on MySQL, which has no words for it.
    """
    keys = [column.name for column in table.primary_key]
    names = [column.name for column in table.columns if column.name not in (*keys, *keep)]
    if dialect == "mysql":
        insert = mysql.insert(table)
        return insert.on_duplicate_key_update({name: insert.inserted[name] for name in names})
    other = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    return other.on_conflict_do_update(
        index_elements=keys, set_={name: other.excluded[name] for name in names}, where=where
    )


def adding(dialect: str, table: sa.Table) -> sa.Insert:
    """Insert a row, unless there is one with its key."""
    keys = [column.name for column in table.primary_key]
    if dialect == "mysql":
        # INSERT IGNORE would also swallow what is wrong with the data
        return mysql.insert(table).on_duplicate_key_update({keys[0]: table.c[keys[0]]})
    other = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    return other.on_conflict_do_nothing(index_elements=keys)
