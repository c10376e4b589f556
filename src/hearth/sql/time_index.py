"""Find the calls of a time by their ids, and note the stray ones: those whose id tells another time.

An id begins with the time at which it was made. So a list of the calls of a time is a range of ids, which an index
gives in the order of the answer, at a cost that does not grow with the table. That holds for calls whose id and
``created_at`` are at most a second apart, which a node ensures. Otherwise (the clock was set back, or an older server
or another program wrote the row) the call is noted in a table of its own, which lists search as well. Usually that
table is empty.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

import sqlalchemy as sa

from hearth.models import ids
from hearth.models.times import EPOCH

#: Milliseconds that the two times of a call may be apart: more than passes between the two readings of the clock.
APART_MS: Final = 1000
_CHUNK: Final = 5000
_MS: Final = dt.timedelta(milliseconds=1)


def first_id(from_time: dt.datetime) -> str:
    """Return a bound: no call that was made after a time has an id below it, unless it is a stray one."""
    return ids.first_of((from_time - EPOCH) // _MS - APART_MS)


def last_id(to_time: dt.datetime) -> str:
    """Return a bound: every call that was made before a time has an id below it, unless it is a stray one."""
    return ids.first_of((to_time - EPOCH) // _MS + APART_MS + 1)


def note_all(connection: sa.Connection, calls: sa.Table, stray_calls: sa.Table) -> None:
    """Note the stray calls among all that are stored."""
    columns = (calls.c.id, calls.c.app_name, calls.c.created_at)
    page = sa.select(*columns).order_by(calls.c.id).limit(_CHUNK)
    rows = list(connection.execute(page).mappings())
    while rows:
        if found := [row for row in rows if _is_stray(row["id"], row["created_at"])]:
            connection.execute(sa.insert(stray_calls), [dict(row) for row in found])
        rows = list(connection.execute(page.where(calls.c.id > rows[-1]["id"])).mappings())


def _is_stray(call_id: str, created_at: str) -> bool:
    made_ms = ids.time_ms(call_id)
    if made_ms is None:
        return True
    try:
        created = dt.datetime.fromisoformat(created_at)
    except ValueError:  # reading the call will say so
        return True
    return created.tzinfo is None or abs((created - EPOCH) // _MS - made_ms) > APART_MS
