"""Insert or replace, in the words of each database."""

from __future__ import annotations

import importlib
from typing import Any

import sqlalchemy as sa


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
    insert = _insert(dialect, table)
    statement: sa.Insert
    if dialect == "mysql":
        statement = insert.on_duplicate_key_update({name: insert.inserted[name] for name in names})
    else:
        new = {name: insert.excluded[name] for name in names}
        statement = insert.on_conflict_do_update(index_elements=keys, set_=new, where=where)
    return statement


def adding(dialect: str, table: sa.Table) -> sa.Insert:
    """Insert a row, unless there is one with its key."""
    keys = [column.name for column in table.primary_key]
    insert = _insert(dialect, table)
    statement: sa.Insert
    if dialect == "mysql":
        # INSERT IGNORE would also swallow what is wrong with the data
        statement = insert.on_duplicate_key_update({keys[0]: table.c[keys[0]]})
    else:
        statement = insert.on_conflict_do_nothing(index_elements=keys)
    return statement


def inserting(dialect: str, table: sa.Table) -> sa.Insert:
    """Insert a row that is new."""
    statement: sa.Insert = _insert(dialect, table)
    return statement


def _insert(dialect: str, table: sa.Table) -> Any:
    """Each dialect has a statement of its own; only that of the database in use is loaded."""
    return importlib.import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
