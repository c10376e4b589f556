"""Logs in a database of their own, in the table that Fn uses."""

from __future__ import annotations

import datetime as dt
import functools
import operator
from collections.abc import AsyncIterator, Sequence
from typing import Final

import sqlalchemy as sa

from hearth.models.errors import CallLogNotFound, InternalError
from hearth.models.log_reader import PIECE_BYTES, LogReader, in_pieces
from hearth.sql.database import Database
from hearth.sql.old_logs import OldLogs
from hearth.sql.open import open_database
from hearth.sql.query import Query, number, param
from hearth.sql.schema.tables import logs as table
from hearth.sql.upserts import STORE_LOGS, LogRow
from hearth.stores.logs.base import Log, LogsLost, LogStore
from hearth.telemetry.node import Telemetry

_PIECE: Final = Query(
    sa.select(sa.func.substr(table.c.log, number("start"), number("count")).label("piece")).where(
        table.c.id == param("id"), table.c.app_name == param("app")
    )
)
#: Logs that one transaction removes.
_AT_ONCE: Final = 200


async def open_sql(url: str, *, wait_s: float, telemetry: Telemetry) -> SqlLogStore:
    """Open the log store of a database's address; the database is migrated to the present schema.

    Raises:
        StartUpError: The address is wrong, or the database is not Hearth's or Fn's.
        StoreUnavailable: It cannot be opened.
    """
    return SqlLogStore(await open_database(url, wait_s=wait_s, variable="FN_LOGSTORE_URL"), telemetry)


class SqlLogStore(LogStore):
    """One row for each log, many in one transaction."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._span = telemetry.tracing.span
        self._database = database
        self._old = OldLogs(database)

    async def close(self) -> None:
        """Release connections."""
        await self._database.close()

    async def put_logs(self, logs: Sequence[Log]) -> None:
        """Store logs, all or none."""
        rows = [LogRow(log.call_id, log.app_name, log.text) for log in logs]
        try:
            with self._span("ds_insert_log"):
                await self._database.write(STORE_LOGS, sorted(rows, key=operator.attrgetter("id")))
        except InternalError as exc:
            raise LogsLost(len(logs), f"failed to write log, {exc}") from exc

    async def get_log(self, app_name: str, call_id: str) -> LogReader:
        """Open a call's log."""
        with self._span("ds_get_log"):
            piece = await self._piece(app_name, call_id, 0)
        if piece is None:
            raise CallLogNotFound
        return in_pieces(piece, functools.partial(self._piece, app_name, call_id))

    async def _piece(self, app_name: str, call_id: str, start: int) -> bytes | None:
        found = await self._database.query(_PIECE, id=call_id, app=app_name, start=start + 1, count=PIECE_BYTES)
        return (found[0]["piece"] or b"") if found else None  # SQLite cuts NULL out of an empty value

    async def remove_logs(self, before: dt.datetime, *, dry_run: bool = False) -> AsyncIterator[int]:
        """Remove logs of calls that were made before a time, then return free space to the disk."""
        if dry_run:
            yield await self._old.count(before)
            return
        while removed := await self._old.remove(before, _AT_ONCE):
            yield removed
        while await self._database.shrink():
            yield 0

    async def stored_bytes(self, app_name: str, most: int) -> int:
        """Add up sizes from the newest log."""
        return await self._old.stored_bytes(app_name, most)

    async def time_beyond(self, log_bytes: int) -> dt.datetime | None:
        """Add up sizes from the newest log."""
        return await self._old.time_beyond(log_bytes)
