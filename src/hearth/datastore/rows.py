"""Apps, routes and calls as rows, and back. Maps are JSON text; what an older version left NULL reads as empty."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from hearth.models.app import App
from hearth.models.call import Call, Stat
from hearth.models.errors import StoreUnavailable
from hearth.models.route import Route
from hearth.models.times import ZERO, format_time, parse_time
from hearth.sql.query import Row

T = TypeVar("T")

#: Made once: to make one takes ten times as long as to read a map.
_MAPS: Final = msgspec.json.Decoder(dict[str, Any])
_STATS: Final = msgspec.json.Decoder(list[Stat])


def from_app(app: App) -> dict[str, Any]:
    """An app as a row."""
    return {"name": app.name, "config": _json(app.config), **_times(app)}


def to_app(row: Row) -> App:
    """A row as an app."""
    return App(
        name=row["name"],
        config=_map(row["config"]),
        created_at=_time(row["created_at"]),
        updated_at=_time(row["updated_at"]),
    )


def from_route(route: Route) -> dict[str, Any]:
    """A route as a row."""
    return {
        "app_name": route.app_name,
        "path": route.path,
        "image": route.image,
        "format": route.format,
        "memory": route.memory,
        "cpus": route.cpu_milli,
        "timeout": route.timeout,
        "idle_timeout": route.idle_timeout,
        "type": route.type,
        "headers": _json(route.headers),
        "config": _json(route.config),
        **_times(route),
    }


def to_route(row: Row) -> Route:
    """A row as a route."""
    return Route(
        app_name=row["app_name"],
        path=row["path"],
        image=row["image"],
        format=row["format"],
        memory=row["memory"],
        cpu_milli=row["cpus"] or 0,
        timeout=row["timeout"],
        idle_timeout=row["idle_timeout"],
        type=row["type"],
        headers=_map(row["headers"]),
        config=_map(row["config"]),
        created_at=_time(row["created_at"]),
        updated_at=_time(row["updated_at"]),
    )


def from_call(call: Call) -> dict[str, Any]:
    """A call's record as a row."""
    return {
        "id": call.id,
        "app_name": call.app_name,
        "path": call.path,
        "status": call.status,
        "created_at": format_time(call.created_at),
        "started_at": format_time(call.started_at),
        "completed_at": format_time(call.completed_at),
        "stats": _json(call.stats) if call.stats else "",
        "error": _storable(call.error),
    }


def to_call(row: Row) -> Call:
    """A row as a call's record.

    Raises:
        StoreUnavailable: It cannot be read. A list that left it out would be wrong without saying so.
    """
    try:
        return Call(
            id=row["id"],
            app_name=row["app_name"],
            path=row["path"],
            status=row["status"],
            created_at=_time(row["created_at"]),
            started_at=_time(row["started_at"]),
            completed_at=_time(row["completed_at"]),
            stats=_STATS.decode(row["stats"]) if row["stats"] else [],
            error=row["error"] or "",
        )
    except ValueError as exc:
        raise StoreUnavailable(f"the record of call {row['id']} cannot be read: {exc}") from exc


def read(convert: Callable[[Row], T], row: Row) -> T | Exception:
    """What cannot be read is the trouble of who asked for it, not of those who asked at the same time."""
    try:
        return convert(row)
    except (StoreUnavailable, ValueError) as exc:
        return exc


def _storable(text: str) -> str:
    """A text that every database takes: a function's words may hold what PostgreSQL's texts do not."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _times(thing: App | Route) -> dict[str, str]:
    return {"created_at": format_time(thing.created_at), "updated_at": format_time(thing.updated_at)}


def _time(text: str | None) -> dt.datetime:
    return parse_time(text) if text else ZERO


def _json(value: object) -> str:
    # Fn writes nothing for an empty map, and both read both
    return msgspec.json.encode(value).decode() if value else ""


def _map(text: str | None) -> dict[str, Any]:
    return _MAPS.decode(text) if text else {}
