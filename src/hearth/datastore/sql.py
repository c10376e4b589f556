"""The datastore in SQL: definitions and calls behind one engine."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from hearth.datastore.calls import SqlCalls
from hearth.datastore.definitions import SqlDefinitions
from hearth.sql import engine as sql_engine
from hearth.sql.batches import batches
from hearth.sql.reads import reads
from hearth.sql.transactions import Transactions


async def open_datastore(url: str, *, wait_s: float = sql_engine.WAIT_S) -> SqlDatastore:
    """The datastore of an address, ready for use.

    Args:
        url: The address, in one of Fn's forms.
        wait_s: How long to wait for a server that is not ready.

    Raises:
        StartUpError: The address or the database is of no use.
        StoreUnavailable: It cannot be opened.
    """
    return SqlDatastore(await sql_engine.open_engine(url, wait_s=wait_s))


class SqlDatastore(SqlDefinitions, SqlCalls):
    """Behind one SQLAlchemy engine, on SQLite, PostgreSQL or MySQL.

    Nothing that failed in the middle is sent again, except a transaction that the server itself undid.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        db = Transactions(engine)
        reading, writing = reads(db), batches(db)
        SqlDefinitions.__init__(self, db.dialect, reading, writing)
        SqlCalls.__init__(self, db, reading, writing)

    async def close(self) -> None:
        """Release connections."""
        await SqlDefinitions.close(self)
        await SqlCalls.close(self)
        await self._batches.close()
        await self._reads.close()
        await self.engine.dispose()
