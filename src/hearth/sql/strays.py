"""Calls whose id tells another time than their ``created_at``, which no list may miss.

An id begins with the time at which it was made. So a list of the calls of a time is a range of ids, which an index
gives in the order of the answer, at a cost that does not grow with the table. That holds for calls whose two times are
at most a second apart, which a node takes care of. Where they are not (the clock was set back, an older server or
another program made the row) the call is noted in a table of its own, searched as well; as a rule it is empty.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from hearth.models import ids
from hearth.models.times import EPOCH

#: How far the two times of a call may be apart, ms; more than a request waits between the two looks at the clock.
_APART_MS: Final = 1000
_CHUNK: Final = 5000
_MS: Final = dt.timedelta(milliseconds=1)


def among(records: Iterable[Mapping[str, Any] | sa.RowMapping]) -> list[dict[str, Any]]:
    """The rows to note of these rows of calls: most often none."""
    return [
        {"id": record["id"], "app_name": record["app_name"], "created_at": record["created_at"]}
        for record in records
        if _is_astray(ids.time_ms(record["id"]), record["created_at"])
    ]


def first_id(from_time: dt.datetime) -> str:
    """A bound that no id of a call is below which was made after a time and is not astray."""
    return ids.first_of((from_time - EPOCH) // _MS - _APART_MS)


def last_id(to_time: dt.datetime) -> str:
    """A bound that every id of a call is below which was made before a time and is not astray."""
    return ids.first_of((to_time - EPOCH) // _MS + _APART_MS + 1)


def note_all(connection: sa.Connection, calls: sa.Table, stray_calls: sa.Table) -> None:
    """Look at every call that is stored, and note those that are astray."""
    columns = (calls.c.id, calls.c.app_name, calls.c.created_at)
    page = sa.select(*columns).order_by(calls.c.id).limit(_CHUNK)
    rows = list(connection.execute(page).mappings())
    while rows:
        if astray := among(rows):
            connection.execute(sa.insert(stray_calls), astray)
        rows = list(connection.execute(page.where(calls.c.id > rows[-1]["id"])).mappings())


@functools.lru_cache(maxsize=64)  # many calls of a busy node are made in the same millisecond
def _is_astray(made_ms: int | None, created_at: str) -> bool:
    if made_ms is None:
        return True
    try:
        created = dt.datetime.fromisoformat(created_at)
    except ValueError:  # reading the call will say so
        return True
    return created.tzinfo is None or abs((created - EPOCH) // _MS - made_ms) > _APART_MS
