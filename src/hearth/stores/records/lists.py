"""Lists of calls, newest first, each from an index in the order of its answer.

A bound on ``created_at`` becomes one on the id, which begins with the time. Calls whose id tells another time than
their ``created_at`` are listed apart, see ``sql.time_index``.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, Final

import sqlalchemy as sa

from hearth.models.call import SUCCESS
from hearth.models.times import format_time
from hearth.sql import time_index
from hearth.sql.database import Read
from hearth.sql.query import ALL, Query, Row, number, param
from hearth.sql.schema.tables import NO_SUCCESS, apps, calls, stray_calls
from hearth.stores.records.base import CallFilter

#: Names a bound of a list: its status is one that the index by status holds.
_FEW: Final = "few"
#: The id of the app that now has the name of a call's app.
_APP_ID: Final = sa.select(apps.c.id).where(apps.c.name == calls.c.app_name).scalar_subquery()


def belongs_to_app(app_id: sa.ScalarSelect[Any] = _APP_ID) -> sa.ColumnElement[bool]:
    """Select the calls that belong to their app, and not to a deleted one of the same name.

    A call that ran while its app was deleted is stored after that. A call that was stored by a version without ids has
    none, and belongs to the name. This is a ``CASE``, because planners would take a comparison of ids for one that few
    calls pass, and sort those few instead of walking an index in the order of the answer.
    """
    owner = sa.func.coalesce(app_id, calls.c.app_id)
    stays = sa.or_(calls.c.app_id.is_(None), calls.c.app_id.in_([sa.literal_column("''"), owner]))
    return sa.case((stays, sa.true()), else_=sa.false())


def listing(which: CallFilter) -> Read:
    """Read a list of calls, without those that are listed apart if a time bounds it."""
    bounds = _bounds(which)
    if which.from_time is not None:
        bounds["since"] = time_index.first_id(which.from_time)
    if below := _below(which):
        bounds["below"] = below
    shape = frozenset(bounds) if which.status in ("", SUCCESS) else frozenset({*bounds, _FEW})
    return _page(_listing_query(shape), bounds, which)


def strays(which: CallFilter) -> Read:
    """Read the calls of a list that the bounds on the id may have left out."""
    bounds = _bounds(which)
    if which.cursor:
        bounds["below"] = which.cursor
    return _page(_strays_query(frozenset(bounds)), bounds, which)


def merged(found: list[Row], more: list[Row], per_page: int) -> list[Row]:
    """Return both, newest first, each call once."""
    if not more:
        return found
    both = {row["id"]: row for row in (*found, *more)}
    newest = sorted(both.values(), key=operator.itemgetter("id"), reverse=True)
    return newest[:per_page] if per_page > 0 else newest


def _bounds(which: CallFilter) -> dict[str, Any]:
    """Return what a list asks for, by the names of parameters."""
    bounds = {"app": which.app_name, "path": which.path, "status": which.status}
    if which.from_time is not None:
        bounds["after"] = format_time(which.from_time)
    if which.to_time is not None:
        bounds["before"] = format_time(which.to_time)
    return {name: value for name, value in bounds.items() if value}


def _below(which: CallFilter) -> str:
    """Return one bound above the ids: of two, SQLite would begin at the one and skip rows down to the other."""
    bounds = [which.cursor] if which.cursor else []
    if which.to_time is not None:
        bounds.append(time_index.last_id(which.to_time))
    return min(bounds, default="")


def _page(query: Query, bounds: dict[str, Any], which: CallFilter) -> Read:
    return Read(query, {**bounds, "most": which.per_page if which.per_page > 0 else ALL})


# One query for each set of bounds, of which there are few: compiling takes longer than to execute it.


@functools.cache
def _listing_query(bounds: frozenset[str]) -> Query:
    app_id = _APP_ID
    query = sa.select(calls)
    if "app" in bounds:  # MariaDB would rather sort half of the table than walk it in the order of the answer
        index = "calls_by_status" if _FEW in bounds else "calls_by_path" if "path" in bounds else "calls_by_app"
        query = query.with_hint(calls, f"FORCE INDEX ({index})", "mysql")
        app_id = sa.select(apps.c.id).where(apps.c.name == param("app")).scalar_subquery()
    conditions: dict[str, sa.ColumnElement[bool] | sa.TextClause] = {
        "status": calls.c.status == param("status"),
        _FEW: NO_SUCCESS,
        "app": calls.c.app_name == param("app"),
        "path": calls.c.path == param("path"),
        "since": calls.c.id >= param("since"),
        "below": calls.c.id < param("below"),
        "after": calls.c.created_at > param("after"),
        "before": calls.c.created_at < param("before"),
    }
    wanted = [condition for name, condition in conditions.items() if name in bounds]
    return Query(query.where(*wanted, belongs_to_app(app_id)).order_by(calls.c.id.desc()).limit(number("most")))


@functools.cache
def _strays_query(bounds: frozenset[str]) -> Query:
    """Bound the notes rather than the calls, so that no database begins with the larger table."""
    query = sa.select(calls).join(stray_calls, stray_calls.c.id == calls.c.id)
    conditions = {
        "app": stray_calls.c.app_name == param("app"),
        "path": calls.c.path == param("path"),
        "status": calls.c.status == param("status"),
        "below": stray_calls.c.id < param("below"),
        "after": sa.and_(stray_calls.c.created_at > param("after"), calls.c.created_at > param("after")),
        "before": sa.and_(stray_calls.c.created_at < param("before"), calls.c.created_at < param("before")),
    }
    wanted = [condition for name, condition in conditions.items() if name in bounds]
    return Query(query.where(*wanted, belongs_to_app()).order_by(stray_calls.c.id.desc()).limit(number("most")))
