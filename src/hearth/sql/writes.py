"""What is written together: rows of several tables, and calls that replace what is stored of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from hearth.sql.query import Question, Removal, Row

Rows = Sequence[Mapping[str, Any]]

#: Statements and the rows for each, in the order in which they are to be written; each table and each row once.
Writes = Sequence[tuple[sa.Insert, Rows]]


class Stored(NamedTuple):
    """How far a stored call has come."""

    status: str
    completed_at: str


class Swap(NamedTuple):
    """Calls that are to replace what is stored of them, if that has one of these statuses; or to be new.

    Attributes:
        records: The calls, ordered by id; each id once.
        over: The statuses.
        also: Other rows of these calls, each written if its call is.
    """

    records: Rows
    over: frozenset[str]
    also: Writes = ()


class Changes(NamedTuple):
    """What a transaction makes of what it has read.

    Attributes:
        removals: Done first.
        writes: Done then.
    """

    removals: Sequence[Removal]
    writes: Writes


#: Makes changes of the rows of each question. Called on whatever thread, and again where the transaction is repeated.
Decide = Callable[[list[list[Row]]], Changes]


class Batches(Protocol):
    """Writes rows, all or none."""

    async def write(self, writes: Writes) -> None:
        """Write in one transaction; rows of one statement in their order.

        Raises:
            StoreUnavailable: The database failed. Whether it was done, only the database knows.
            StoreRefused: It does not like the data.
        """

    async def swap(self, swap: Swap, writes: Writes = ()) -> dict[str, Stored]:
        """Swap and write in one transaction; by their ids the stored calls that were not replaced.

        Raises:
            StoreUnavailable: As above.
            StoreRefused: As above.
        """

    async def change(self, questions: Sequence[Question], decide: Decide) -> None:
        """Ask, and do what is decided on the answers, in one transaction; the questions lock what they find.

        Raises:
            StoreUnavailable: As above.
            StoreRefused: As above.
        """

    async def close(self) -> None:
        """Release what is held."""


def without(kept: Mapping[str, Stored], rows: Rows) -> Rows:
    """The rows of calls that were replaced."""
    return [row for row in rows if row["id"] not in kept] if kept else rows


def fresh(kept: Mapping[str, Stored], writes: Writes) -> Writes:
    """What is to be written of calls that were replaced."""
    return [(statement, without(kept, rows)) for statement, rows in writes]
