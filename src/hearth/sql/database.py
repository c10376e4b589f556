"""A database as the stores read and write it, of any kind.

A transaction is a generator: it yields what is to be done, and receives the rows of each :class:`Read`. SQLite runs all
of it in the committing thread, at the cost of one hand-over; a server runs it over one connection::

    def rename(old: str, new: str) -> Steps[bool]:
        if not (yield Read(BY_NAME, {"name": old})):
            return False
        yield Write(RENAME, [{"old": old, "new": new}])
        return True

    renamed = await database.transaction(lambda: rename("a", "b"))
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from hearth.sql.query import Query, Row, Rows
from hearth.sql.upserts import Parts, Upsert

T = TypeVar("T")

#: Receives the error of an operation, or ``None`` once it has succeeded.
Done = Callable[[Exception | None], object]

#: Writes, and changes nothing.
PROBE: Final = "UPDATE alembic_version SET version_num = version_num"


class Read(NamedTuple):
    """Read rows. A query ``with_for_update`` keeps others from changing them until the transaction ends."""

    query: Query
    params: Row


class Write(NamedTuple):
    """Execute a statement once for each row of parameters."""

    query: Query
    rows: Rows


class Put(NamedTuple):
    """Write rows of some tables, see :meth:`Database.write`."""

    upsert: Upsert
    parts: Parts


#: What a transaction does, and its result. It may run more than once.
Steps = Generator[Read | Write | Put, list[Row], T]


class Database(abc.ABC):
    """One database. Every operation is atomic, also if it is cancelled.

    All raise ``StoreUnavailable`` if the database failed: whether it has written, only the database knows. They raise
    ``StoreRefused`` if it rejects the data. A transaction that the server has rolled back because of another one is
    repeated a few times; nothing else is sent twice.
    """

    @abc.abstractmethod
    def query(self, query: Query, **params: Any) -> Coroutine[Any, Any, list[Row]]:
        """Return the rows that are stored now, including all that was written before this call."""

    @abc.abstractmethod
    def write(self, upsert: Upsert, *parts: Sequence[msgspec.Struct]) -> Coroutine[Any, Any, None]:
        """Write rows in one transaction: the first part to the first table of ``upsert``, and so on.

        Each row of a part has a key of its own. Sort the parts: two transactions that lock the same rows in different
        orders would wait for each other.
        """

    @abc.abstractmethod
    def submit(self, upsert: Upsert, parts: Parts, done: Done) -> None:
        """Begin to :meth:`write`, and call back on this loop when it has ended; never before this returns."""

    @abc.abstractmethod
    def transaction(self, steps: Callable[[], Steps[T]]) -> Coroutine[Any, Any, T]:
        """Run the steps in one transaction and return their result. What they raise undoes it."""

    @abc.abstractmethod
    async def check(self) -> None:
        """Write a row as it is: a full disk, a deleted file or a server that only reads shows here."""

    async def shrink(self) -> bool:
        """Return some free space of the file to the disk; false if too little is free. Servers do it themselves."""
        return False

    @abc.abstractmethod
    async def close(self) -> None:
        """Wait for what was asked for, then release the connections."""
