"""The audit log in SQL."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from hearth.models.audit import AuditEvent
from hearth.models.times import format_time
from hearth.sql.database import Database, Read, Steps, Write
from hearth.sql.fields import Fields, report
from hearth.sql.old_logs import first_id
from hearth.sql.query import ALL, Query, Row, number, param
from hearth.sql.schema.tables import audit
from hearth.stores.audit.base import AuditFilter, AuditStore
from hearth.telemetry.node import Telemetry

_INSERT: Final = Query(sa.insert(audit))
_OLD: Final = Query(sa.select(audit.c.id).where(audit.c.id < param("below")).order_by(audit.c.id).limit(number("most")))
_REMOVE: Final = Query(sa.delete(audit).where(audit.c.id == param("key_id")))
_LAST: Final = "~"  # sorts behind every id


class SqlAudit(AuditStore):
    """The audit log in one database."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._span = telemetry.tracing.span
        self._database = database

    async def add_events(self, events: Sequence[AuditEvent]) -> None:
        """Store events."""

        def steps() -> Steps[None]:
            yield Write(_INSERT, [_from_event(event) for event in events])

        with self._span("ds_insert_audit"):
            await self._database.transaction(steps)

    async def get_events(self, which: AuditFilter) -> list[AuditEvent]:
        """Read events, newest first."""
        asked = {"app": which.app, "principal": which.principal}
        bounds = {name: value for name, value in asked.items() if value}
        query = _page(frozenset(bounds)) if which.apps is None else Query(_listing(bounds, which.apps))
        with self._span("ds_get_audit"):
            found = await self._database.query(
                query, **bounds, cursor=which.cursor or _LAST, most=which.per_page or ALL
            )
        return [_to_event(row) for row in found]

    async def remove_events(self, before: dt.datetime, most: int) -> int:
        """Remove some old events in one transaction."""

        def steps() -> Steps[int]:
            gone = yield Read(_OLD, {"below": first_id(before), "most": most})
            if gone:
                yield Write(_REMOVE, [{"key_id": row["id"]} for row in gone])
            return len(gone)

        with self._span("ds_remove_audit"):
            return await self._database.transaction(steps)


@functools.cache
def _page(bounds: frozenset[str]) -> Query:
    return Query(_listing(bounds))


def _listing(bounds: frozenset[str] | dict[str, str], apps: Sequence[str] | None = None) -> sa.Select[Any]:
    conditions: dict[str, sa.ColumnElement[bool]] = {
        "app": audit.c.app == param("app"),
        "principal": sa.or_(audit.c.principal == param("principal"), audit.c.token_id == param("principal")),
    }
    query = sa.select(audit).where(audit.c.id < param("cursor"), *[conditions[name] for name in sorted(bounds)])
    if apps is not None:
        query = query.where(audit.c.app.in_(list(apps)))
    return query.order_by(audit.c.id.desc()).limit(number("most"))


def _from_event(event: AuditEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "created_at": format_time(event.created_at),
        "principal": event.principal,
        "token_id": event.token_id,
        "action": event.action,
        "app": event.app,
        "resource": event.resource,
        "status": event.status,
        "address": event.address,
    }


def _to_event(row: Row) -> AuditEvent:
    """Return a row as an event. Columns that cannot be read are empty."""
    fields = Fields(row)
    event = AuditEvent(
        id=fields.text("id"),
        created_at=fields.time("created_at"),
        principal=fields.text("principal"),
        token_id=fields.text("token_id"),
        action=fields.text("action"),
        app=fields.text("app"),
        resource=fields.text("resource"),
        status=fields.number("status", 0),
        address=fields.text("address"),
    )
    if fields.unreadable:
        report(f"audit event {event.id}", fields.unreadable)
    return event
