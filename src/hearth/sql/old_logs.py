"""Remove old logs from the table of logs, which is in the datastore or in a database of its own.

An id begins with the time at which its call was made, so a time is a range of ids. Calls whose id tells another time
than their record (``stray_calls``) keep their logs as long as the record.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

import sqlalchemy as sa

from hearth.models import ids
from hearth.models.call import QUEUED, RUNNING
from hearth.models.times import EPOCH
from hearth.sql.database import Database, Read, Steps, Write
from hearth.sql.query import Query, number, param
from hearth.sql.schema.tables import calls, logs, stray_calls

_IS_STRAY: Final = sa.select(stray_calls.c.id).where(stray_calls.c.id == logs.c.id).exists()
_IS_OLD: Final = (logs.c.id < param("below"), sa.not_(_IS_STRAY))
#: The call itself is old enough to be removed, together with its log.
_GOES_WITH_CALL: Final = (
    sa.select(calls.c.id)
    .where(calls.c.id == logs.c.id, calls.c.id < param("calls_below"), calls.c.status.not_in([QUEUED, RUNNING]))
    .exists()
)
_OLD: Final = Query(sa.select(logs.c.id).where(*_IS_OLD).order_by(logs.c.id).limit(number("most")))
_COUNT: Final = Query(
    sa.select(sa.func.count().label("count")).select_from(logs).where(*_IS_OLD, sa.not_(_GOES_WITH_CALL))
)
_SIZES: Final = Query(
    sa.select(logs.c.id, sa.func.length(logs.c.log).label("size"))
    .where(logs.c.id < param("cursor"))
    .order_by(logs.c.id.desc())
    .limit(number("most"))
)
#: No index finds the logs of an app, so those of others are passed.
_PASSED: Final = (
    sa.select(
        logs.c.id,
        sa.case((logs.c.app_name == param("app"), sa.func.length(logs.c.log)), else_=sa.literal_column("0")).label(
            "size"
        ),
    )
    .where(logs.c.id < param("cursor"))
    .order_by(logs.c.id.desc())
    .limit(number("most"))
    .subquery()
)
_SIZE_OF_APP: Final = Query(
    sa.select(
        sa.func.count().label("count"),
        sa.func.min(_PASSED.c.id).label("last"),
        sa.func.sum(_PASSED.c.size).label("size"),
    )
)
_REMOVE: Final = Query(sa.delete(logs).where(logs.c.id == param("id")))
#: Logs whose sizes one query reads.
STEP: Final = 1_000
_MS: Final = dt.timedelta(milliseconds=1)


class OldLogs:
    """Finds and removes the oldest logs of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def remove(self, before: dt.datetime, most: int) -> int:
        """Remove some of the oldest logs of calls made before a time, in one transaction; return how many."""

        def steps() -> Steps[int]:
            gone = yield Read(_OLD, {"below": first_id(before), "most": most})
            if gone:
                yield Write(_REMOVE, [{"id": row["id"]} for row in gone])
            return len(gone)

        return await self._database.transaction(steps)

    async def count(self, before: dt.datetime, calls_before: dt.datetime | None = None) -> int:
        """Count the logs that :meth:`remove` would remove, without those of calls that are removed themselves."""
        calls_below = "" if calls_before is None else first_id(calls_before)
        found = await self._database.query(_COUNT, below=first_id(before), calls_below=calls_below)
        return int(found[0]["count"])

    async def time_beyond(self, size: int) -> dt.datetime | None:
        """Return the time before which logs have to go, so that at most ``size`` bytes stay; ``None`` if all may stay.

        Walks from the newest log in steps, so that other reads have their turn.
        """
        cursor = "~"  # sorts behind every id
        while True:
            found = await self._database.query(_SIZES, cursor=cursor, most=STEP)
            for row in found:
                size -= int(row["size"])
                if size < 0 and (made_ms := ids.time_ms(row["id"])) is not None:
                    return EPOCH + made_ms * _MS + _MS
            if len(found) < STEP:
                return None
            cursor = found[-1]["id"]

    async def stored_bytes(self, app_name: str, most: int) -> int:
        """Return the bytes of the logs of an app; at least ``most`` if there are more."""
        size, cursor = 0, "~"
        while size < most:
            [found] = await self._database.query(_SIZE_OF_APP, app=app_name, cursor=cursor, most=STEP)
            size += int(found["size"] or 0)
            if found["count"] < STEP:
                break
            cursor = found["last"]
        return size


def first_id(at: dt.datetime) -> str:
    """Return the smallest id of a call made at this time."""
    return ids.first_of((at - EPOCH) // _MS)
