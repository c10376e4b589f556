"""Statements that are put into words once for a database, and asked often past SQLAlchemy's own machinery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

#: A limit that is none.
ALL: Final = 2**31 - 1

#: A row by the names of its columns: a driver's own, or a dictionary.
Row = Mapping[str, Any]


class Words(NamedTuple):
    """A statement as a driver wants it.

    Attributes:
        text: The statement.
        names: Its parameters, in order.
        given: The values that it brings itself.
        columns: What it selects.
    """

    text: str
    names: list[str]
    given: Mapping[str, Any]
    columns: list[str]

    def values(self, params: Mapping[str, Any]) -> list[Any]:
        """The parameters' values, in order."""
        return [params[name] if name in params else self.given[name] for name in self.names]


def param(name: str) -> sa.BindParameter[Any]:
    """What varies from one time to the next; of the type of what it is compared with."""
    return sa.bindparam(name, required=False)


def page_size() -> sa.BindParameter[int]:
    """How many rows at most: the parameter ``most``."""
    return sa.bindparam("most", required=False, type_=sa.Integer)


class Query:
    """A statement; keep it where it is asked again. What varies is a :func:`param`."""

    __slots__ = ("_statement", "_words")

    def __init__(self, statement: sa.Select[Any] | sa.Delete) -> None:
        self._statement = statement
        self._words: dict[str, Words] = {}

    def words(self, dialect: sa.Dialect) -> Words:
        """It in the words of a database."""
        known = self._words.get(dialect.name)
        if known is None:
            compiled: Any = self._statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
            statement = self._statement
            columns = [column.name for column in statement.selected_columns] if isinstance(statement, sa.Select) else []
            known = Words(str(compiled), list(compiled.positiontup), compiled.params, columns)
            self._words[dialect.name] = known
        return known


class Question(NamedTuple):
    """A query with its parameters."""

    query: Query
    params: Mapping[str, Any]


class Removal(NamedTuple):
    """A deletion with the parameters of each time that it is done."""

    query: Query
    params: Sequence[Mapping[str, Any]]
