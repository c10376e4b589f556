"""Apps and routes as rows, and back. Maps are JSON text; what an older version left NULL reads as empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from hearth.models.annotations import Annotations, compact
from hearth.models.app import App
from hearth.models.call_auth import Signature
from hearth.models.delivery import NO_RULES, Delivery
from hearth.models.errors import StoreUnavailable
from hearth.models.function import DEFAULT, DEFAULT_MEMORY_MIB, SYNC
from hearth.models.instances import Instances
from hearth.models.quotas import NO_QUOTAS, Quotas
from hearth.models.route import DEFAULT_IDLE_TIMEOUT_S, DEFAULT_TIMEOUT_S, Route
from hearth.models.secret import ENV
from hearth.models.times import format_time
from hearth.sql.fields import Fields, json, report
from hearth.sql.query import Row

__all__ = [
    "bound",
    "from_annotations",
    "from_app",
    "from_route",
    "read",
    "reject",
    "report",
    "to_annotations",
    "to_app",
    "to_route",
]

T = TypeVar("T")

#: Called with the columns of a row that cannot be read.
Unreadable = Callable[[str, list[str]], None]

#: Created once: that takes ten times as long as to read a map.
_CONFIG: Final = msgspec.json.Decoder(dict[str, str])
_HEADERS: Final = msgspec.json.Decoder(dict[str, list[str]])
_VALUES: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_QUOTAS: Final = msgspec.json.Decoder(Quotas)
_NAMES: Final = msgspec.json.Decoder(tuple[str, ...])
_SIGNATURE: Final = msgspec.json.Decoder(Signature)
_DELIVERY: Final = msgspec.json.Decoder(Delivery)
#: Columns that no function depends on.
_TIMES: Final = frozenset({"created_at", "updated_at"})


def reject(what: str, columns: list[str]) -> None:
    """Refuse a row if more than its times cannot be read: a function must not run with half of its configuration.

    Raises:
        StoreUnavailable: Names the columns.
    """
    if missing := [name for name in columns if name not in _TIMES]:
        raise StoreUnavailable(f"the stored {what} cannot be read: columns {', '.join(missing)}")


def read(convert: Callable[[Row, Unreadable], T], row: Row) -> T | StoreUnavailable:
    """Convert a row; return the error of one that cannot be read, for the caller who asked for this row."""
    try:
        return convert(row, reject)
    except StoreUnavailable as exc:
        return exc


def from_app(app: App) -> dict[str, Any]:
    """Return an app as a row."""
    return {
        "name": app.name,
        "config": json(app.config),
        **_times(app),
        "id": app.id,
        "secrets": json(list(app.secrets)),
        "annotations": from_annotations(app.annotations),
        "syslog_url": app.syslog_url,
        "shape": app.shape,
        "auth": app.auth,
        "quotas": json(app.quotas.values()),
    }


def to_app(row: Row, unreadable: Unreadable) -> App:
    """Return a row as an app. Columns that cannot be read are empty."""
    fields = Fields(row)
    app = App(
        name=fields.text("name"),
        config=fields.map("config", _CONFIG),
        created_at=fields.time("created_at"),
        updated_at=fields.time("updated_at"),
        id=fields.text("id"),
        secrets=fields.list("secrets", _NAMES),
        annotations=to_annotations(fields),
        syslog_url=fields.text("syslog_url"),
        shape=fields.text("shape"),
        auth=fields.text("auth"),
        quotas=fields.object("quotas", _QUOTAS) or NO_QUOTAS,
    )
    if fields.unreadable:
        unreadable(f"app {app.name}", fields.unreadable)
    return app


def from_route(route: Route) -> dict[str, Any]:
    """Return a route as a row."""
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
        "headers": json(route.headers),
        "config": json(route.config),
        **_times(route),
        "secrets": json(list(route.secrets)),
        "secrets_as": route.secrets_as,
        "auth": route.auth,
        "signature": json(route.signature),
        "concurrency": str(route.concurrency),
        "delivery": json(route.delivery.values()),
        "digest": route.digest,
        "min_instances": bound(route.instances.min_instances),
        "max_instances": bound(route.instances.max_instances),
    }


def to_route(row: Row, unreadable: Unreadable) -> Route:
    """Return a row as a route. Columns that cannot be read, or that are empty, have their defaults."""
    fields = Fields(row)
    route = Route(
        app_name=fields.text("app_name"),
        path=fields.text("path"),
        image=fields.text("image"),
        format=fields.text("format", DEFAULT),
        memory=fields.number("memory", DEFAULT_MEMORY_MIB),
        cpu_milli=fields.number("cpus", 0),
        timeout=fields.number("timeout", DEFAULT_TIMEOUT_S),
        idle_timeout=fields.number("idle_timeout", DEFAULT_IDLE_TIMEOUT_S),
        type=fields.text("type", SYNC),
        headers=fields.map("headers", _HEADERS),
        config=fields.map("config", _CONFIG),
        created_at=fields.time("created_at"),
        updated_at=fields.time("updated_at"),
        secrets=fields.list("secrets", _NAMES),
        secrets_as=fields.text("secrets_as", ENV),
        auth=fields.text("auth"),
        signature=fields.object("signature", _SIGNATURE),
        concurrency=fields.number("concurrency", 1),
        delivery=fields.object("delivery", _DELIVERY) or NO_RULES,
        digest=fields.text("digest"),
        instances=Instances(
            min_instances=fields.number("min_instances", 0), max_instances=fields.number("max_instances", 0) or None
        ),
    )
    if fields.unreadable:
        unreadable(f"route {route.path} of app {route.app_name}", fields.unreadable)
    return route


def bound(number: int | None) -> str:
    """Return the bound of a number of containers as a column; empty for none."""
    return str(number) if number else ""


def from_annotations(annotations: Annotations) -> str:
    """Return annotations as a column."""
    return json({key: msgspec.Raw(value.encode()) for key, value in annotations.items()})


def to_annotations(fields: Fields) -> Annotations:
    """Return the column with annotations."""
    return {key: compact(bytes(value).decode()) for key, value in fields.map("annotations", _VALUES).items()}


def _times(thing: App | Route) -> dict[str, str]:
    return {"created_at": format_time(thing.created_at), "updated_at": format_time(thing.updated_at)}
