"""Dead letters in SQL: stored with the final record of their calls, until they are redriven, purged or old."""

from __future__ import annotations

import datetime as dt
from typing import Final

import sqlalchemy as sa

from hearth.models.dead_letter import BETWEEN, DeadLetter, DeadLetterCount
from hearth.models.errors import DeadLetterNotFound
from hearth.models.times import format_time, parse_time
from hearth.sql.database import Database, Read, Steps, Write
from hearth.sql.query import Query, Row, number, param
from hearth.sql.schema.tables import dead_letters
from hearth.stores.records.base import DeadLetterFilter
from hearth.stores.records.rows import to_dead_letter

_TABLE: Final = dead_letters.c
_HEADS: Final = sa.select(_TABLE.id, _TABLE.head, _TABLE.redriven_as, sa.func.length(_TABLE.payload).label("size"))
_THIS: Final = (_TABLE.id == param("id"), _TABLE.app_name == param("app"))
_ONE: Final = Query(_HEADS.where(*_THIS).with_for_update())
_PAYLOAD: Final = Query(sa.select(_TABLE.payload).where(*_THIS))
_CLAIM: Final = Query(sa.update(dead_letters).where(*_THIS).values(redriven_as=param("new_id")))
_REMOVE: Final = Query(sa.delete(dead_letters).where(*_THIS))
_COUNTS: Final = Query(
    sa.select(_TABLE.app_name, sa.func.count().label("count"), sa.func.min(_TABLE.died_at).label("oldest")).group_by(
        _TABLE.app_name
    )
)
_OLD: Final = Query(
    sa.select(_TABLE.id, _TABLE.app_name)
    .where(_TABLE.died_at < param("before"))
    .order_by(_TABLE.died_at, _TABLE.id)
    .limit(number("most"))
)
#: Sorts behind every time.
_BEHIND: Final = "~"
#: The first condition bounds what is read of the index.
_OF_APP: Final = (
    _TABLE.app_name == param("app"),
    _TABLE.died_at <= param("died_at"),
    sa.or_(_TABLE.died_at < param("died_at"), _TABLE.id < param("id")),
)
_NEWEST: Final = (_TABLE.died_at.desc(), _TABLE.id.desc())
_SIZES: Final = Query(
    sa.select(_TABLE.id, _TABLE.died_at, (sa.func.length(_TABLE.payload) + sa.func.length(_TABLE.head)).label("size"))
    .where(*_OF_APP)
    .order_by(*_NEWEST)
    .limit(number("most"))
)


def _list(*filters: sa.ColumnElement[bool]) -> Query:
    return Query(_HEADS.where(*_OF_APP, *filters).order_by(*_NEWEST).limit(number("most")))


_PATH: Final = _TABLE.path == param("path")
_FROM: Final = _TABLE.died_at >= param("died_from")
#: By whether a path, and whether a time is given.
_LISTS: Final = {
    (False, False): _list(),
    (True, False): _list(_PATH),
    (False, True): _list(_FROM),
    (True, True): _list(_PATH, _FROM),
}


async def list_dead_letters(database: Database, which: DeadLetterFilter) -> list[DeadLetter]:
    """Return dead letters, the newest failure first."""
    died_at, _, call_id = (which.cursor or _BEHIND).partition(BETWEEN)
    params: dict[str, str | int] = {
        "app": which.app_name,
        "died_at": died_at,
        "id": call_id,
        "most": which.per_page,
    }
    if which.path:
        params["path"] = which.path
    if which.died_from is not None:
        params["died_from"] = format_time(which.died_from)
    rows = await database.query(_LISTS[bool(which.path), which.died_from is not None], **params)
    return [found for row in rows if (found := to_dead_letter(row)) is not None]


async def get_dead_letter(database: Database, app_name: str, call_id: str) -> tuple[DeadLetter, bytes]:
    """Return a dead letter with its payload. Raises ``DeadLetterNotFound``."""

    def steps() -> Steps[tuple[list[Row], list[Row]]]:
        names = {"id": call_id, "app": app_name}
        head = yield Read(_ONE, names)
        payload = yield Read(_PAYLOAD, names)
        return head, payload

    head, payload = await database.transaction(steps)
    if not head or (found := to_dead_letter(head[0])) is None:
        raise DeadLetterNotFound
    return found, bytes(payload[0]["payload"])


async def claim_dead_letter(database: Database, app_name: str, call_id: str, redriven_as: str) -> str:
    """Store the id of the call that a redrive makes; return the one that is stored, which may be an earlier one."""

    def steps() -> Steps[str]:
        names = {"id": call_id, "app": app_name}
        found = yield Read(_ONE, names)
        if not found:
            raise DeadLetterNotFound
        if stored := str(found[0]["redriven_as"]):
            return stored
        yield Write(_CLAIM, [{**names, "new_id": redriven_as}])
        return redriven_as

    return await database.transaction(steps)


async def remove_dead_letter(database: Database, app_name: str, call_id: str) -> bool:
    """Remove a dead letter; false if there is none."""

    def steps() -> Steps[bool]:
        names = {"id": call_id, "app": app_name}
        found = yield Read(_ONE, names)
        if found:
            yield Write(_REMOVE, [names])
        return bool(found)

    return await database.transaction(steps)


async def remove_old_dead_letters(database: Database, before: dt.datetime, most: int) -> int:
    """Remove some dead letters that failed before a time, oldest first; return how many."""

    def steps() -> Steps[int]:
        gone = yield Read(_OLD, {"before": format_time(before), "most": most})
        if gone:
            yield Write(_REMOVE, [{"id": row["id"], "app": row["app_name"]} for row in gone])
        return len(gone)

    return await database.transaction(steps)


async def count_dead_letters(database: Database) -> list[DeadLetterCount]:
    """Return the number of dead letters of each app that has some, and the age of the oldest."""
    rows = await database.query(_COUNTS)
    return [DeadLetterCount(row["app_name"], int(row["count"]), parse_time(row["oldest"])) for row in rows]


async def bytes_of_dead_letters(database: Database, app_name: str, most: int, at_once: int) -> int:
    """Return the bytes of the dead letters of an app; at least ``most`` if there are more. Reads some at a time."""
    size, died_at, call_id = 0, _BEHIND, ""
    while size < most:
        rows = await database.query(_SIZES, app=app_name, died_at=died_at, id=call_id, most=at_once)
        size += sum(int(row["size"]) for row in rows)
        if len(rows) < at_once:
            break
        died_at, call_id = rows[-1]["died_at"], rows[-1]["id"]
    return size
