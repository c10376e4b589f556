"""Logs in a database of their own, in the table that Fn uses."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from hearth.logstores.base import Log, LogsLost, LogStore
from hearth.models.errors import CallLogNotFound, InternalError
from hearth.sql import upsert
from hearth.sql.engine import open_engine
from hearth.sql.tables import logs as table
from hearth.sql.transactions import Transactions, repeated
from hearth.telemetry.tracing import span


async def open_sql(url: str, *, wait_s: float) -> SqlLogStore:
    """The log store of a database's address; the database is brought to the present schema.

    Raises:
        StartUpError: The address or the database is of no use.
        StoreUnavailable: It cannot be opened.
    """
    return SqlLogStore(await open_engine(url, wait_s=wait_s, variable="FN_LOGSTORE_URL"))


class SqlLogStore(LogStore):
    """One row for each log, many in one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._db = Transactions(engine)
        self._replace = upsert.replacing(self._db.dialect, table)

    async def close(self) -> None:
        """Release connections."""
        await self._db.engine.dispose()

    async def put_logs(self, logs: Sequence[Log]) -> None:
        """Store logs, all or none."""
        try:
            with span("ds_insert_log"):
                await self._put(logs)
        except InternalError as exc:
            raise LogsLost(len(logs), f"failed to write log, {exc}") from exc

    @repeated
    async def _put(self, logs: Sequence[Log]) -> None:
        rows = [{"id": log.call_id, "app_name": log.app_name, "log": log.text} for log in logs]
        async with self._db.writing() as db:
            await db.execute(self._replace, sorted(rows, key=lambda row: str(row["id"])))

    async def get_log(self, app_name: str, call_id: str) -> bytes:
        """A call's log."""
        query = sa.select(table.c.log).where(table.c.id == call_id, table.c.app_name == app_name)
        with span("ds_get_log"):
            async with self._db.reading() as db:
                text: bytes | None = (await db.execute(query)).scalar_one_or_none()
        if text is None:
            raise CallLogNotFound
        return text
