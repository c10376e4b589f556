"""SQLAlchemy statements, compiled once for each database and executed by the driver itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

#: A limit that no list reaches.
ALL: Final = 2**31 - 1

#: A row by the names of its columns: the driver's own type, or a dictionary.
Row = Mapping[str, Any]
Rows = Sequence[Row]


class Compiled(NamedTuple):
    """A statement for one driver.

    Attributes:
        text: SQL.
        names: The parameters, in order.
        constants: The values that the statement itself brings.
        columns: The columns that it selects.
    """

    text: str
    names: list[str]
    constants: Mapping[str, Any]
    columns: list[str]

    def values(self, params: Row) -> list[Any]:
        """Return the values of the parameters, in order."""
        return [params[name] if name in params else self.constants[name] for name in self.names]


def param(name: str) -> sa.BindParameter[Any]:
    """Return a parameter of the type that it is compared with."""
    return sa.bindparam(name, required=False)


def number(name: str) -> sa.BindParameter[int]:
    """Return a parameter that is a number, such as a limit."""
    return sa.bindparam(name, required=False, type_=sa.Integer)


class Query:
    """A statement with parameters (:func:`param`). Keep it where it is executed again: compiling takes longer.

    Args:
        statement: A SELECT, INSERT, UPDATE or DELETE.
        columns: The columns that an UPDATE sets, each from the parameter of its name.
    """

    __slots__ = ("_columns", "_compiled", "_statement")

    def __init__(
        self, statement: sa.Select[*tuple[Any, ...]] | sa.UpdateBase, columns: Sequence[str] | None = None
    ) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: sa.Dialect) -> Compiled:
        """Return the statement for a database."""
        known = self._compiled.get(dialect.name)
        if known is None:
            known = self._compiled[dialect.name] = self._compile(dialect)
        return known

    def _compile(self, dialect: sa.Dialect) -> Compiled:
        options = {"render_postcompile": True}
        found: Any = self._statement.compile(dialect=dialect, column_keys=self._columns, compile_kwargs=options)
        selected = self._statement.selected_columns if isinstance(self._statement, sa.Select) else ()
        return Compiled(str(found), list(found.positiontup), found.params, [column.name for column in selected])
