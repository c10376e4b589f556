"""Fns and triggers in SQL.

A transaction that creates or removes one, or changes a trigger, locks the row of its app first: names and sources are
compared under that lock.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec
import sqlalchemy as sa

from hearth.models.app import App
from hearth.models.errors import AppsNotFound
from hearth.models.fn import Fn, FnPatch, apply_fn_patch
from hearth.models.fn_errors import (
    FnAlreadyExists,
    FnNotFound,
    TriggerAlreadyExists,
    TriggerForeignFn,
    TriggerNotFound,
    TriggerSourceTaken,
)
from hearth.models.trigger import Trigger, TriggerPatch, apply_trigger_patch
from hearth.sql.database import Database, Read, Steps, Write
from hearth.sql.query import ALL, Query, Row, number, param
from hearth.sql.schema.tables import apps, fns, triggers, versions
from hearth.stores.definitions.rows import reject, report, to_app
from hearth.stores.fns.base import FnCheck, FnFilter, FnStore, TriggerCheck, TriggerFilter
from hearth.stores.fns.rows import from_fn, from_trigger, to_fn, to_trigger
from hearth.telemetry.node import Telemetry

T = TypeVar("T")

_APP: Final = sa.select(apps).where(apps.c.id == param("key_id"))
_FN: Final = sa.select(fns).where(fns.c.id == param("key_id"))
_TRIGGER: Final = sa.select(triggers).where(triggers.c.id == param("key_id"))
_GET_APP: Final = Query(_APP)
_GET_FN: Final = Query(_FN)
_GET_TRIGGER: Final = Query(_TRIGGER)
_LOCK_APP: Final = Query(_APP.with_for_update())
_LOCK_FN: Final = Query(_FN.with_for_update())
_LOCK_TRIGGER: Final = Query(_TRIGGER.with_for_update())
_FN_NAMED: Final = Query(sa.select(fns.c.id).where(fns.c.app_id == param("app"), fns.c.name == param("name")))
_TRIGGER_NAMED: Final = Query(
    sa.select(triggers.c.id).where(
        triggers.c.app_id == param("app"), triggers.c.fn_id == param("fn"), triggers.c.name == param("name")
    )
)
_TRIGGERS_AT: Final = Query(
    sa.select(triggers)
    .where(triggers.c.app_id == param("app"), triggers.c.type == param("kind"), triggers.c.source == param("source"))
    .order_by(triggers.c.id)
)
_READY_FNS: Final = Query(sa.select(fns.c.id).where(fns.c.min_instances > "0").order_by(fns.c.id).limit(number("most")))
_INSERT_FN: Final = Query(sa.insert(fns))
_INSERT_TRIGGER: Final = Query(sa.insert(triggers))
_UPDATE_FN: Final = Query(
    sa.update(fns).where(fns.c.id == param("key_id")), [column.name for column in fns.columns if column.name != "id"]
)
_UPDATE_TRIGGER: Final = Query(
    sa.update(triggers).where(triggers.c.id == param("key_id")),
    [column.name for column in triggers.columns if column.name != "id"],
)
_DELETE_FN: Final = Query(sa.delete(fns).where(fns.c.id == param("key_id")))
_DELETE_VERSIONS_OF_FN: Final = Query(sa.delete(versions).where(versions.c.function == param("key_id")))
_DELETE_TRIGGERS_OF_FN: Final = Query(sa.delete(triggers).where(triggers.c.fn_id == param("key_id")))
_DELETE_TRIGGER: Final = Query(sa.delete(triggers).where(triggers.c.id == param("key_id")))


class SqlFns(FnStore):
    """Fns and triggers in one database."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._span = telemetry.tracing.span
        self._database = database

    async def get_app_by_id(self, app_id: str) -> App:
        """Read an app."""
        with self._span("ds_get_app"):
            return _app(await self._database.query(_GET_APP, key_id=app_id))

    # -- fns ----------------------------------------------------------------------------------------------------------

    async def get_fn(self, fn_id: str) -> Fn:
        """Read a fn."""
        with self._span("ds_get_fn"):
            return _fn(await self._database.query(_GET_FN, key_id=fn_id))

    async def get_fns(self, which: FnFilter) -> list[Fn]:
        """Read fns by name."""
        params = {"app": which.app_id, "name": which.name, "cursor": which.cursor, "most": which.per_page or ALL}
        with self._span("ds_get_fns"):
            found = await self._database.query(_fns_page(bool(which.name)), **params)
        return [to_fn(row, report) for row in found]

    async def get_ready_fns(self, most: int) -> list[str]:
        """Read the ids of fns that keep containers ready."""
        with self._span("ds_get_ready_fns"):
            found = await self._database.query(_READY_FNS, most=most)
        return [row["id"] for row in found]

    async def insert_fn(self, fn: Fn) -> Fn:
        """Store a new fn with the shape of its app."""

        def steps() -> Steps[Fn]:
            app = _app((yield _locked_app(fn.app_id)))
            if (yield Read(_FN_NAMED, {"app": fn.app_id, "name": fn.name})):
                raise FnAlreadyExists
            stored = msgspec.structs.replace(fn, shape=app.shape)
            yield Write(_INSERT_FN, [from_fn(stored)])
            return stored

        with self._span("ds_insert_fn"):
            return await self._database.transaction(steps)

    async def update_fn(self, fn_id: str, patch: FnPatch, now: dt.datetime, check: FnCheck) -> Fn:
        """Merge a patch into a fn, if the check accepts the result."""

        def steps() -> Steps[Fn]:
            fn = _fn((yield Read(_LOCK_FN, {"key_id": fn_id})))
            merged = apply_fn_patch(fn, patch, now)
            check(merged)
            if merged is not fn:
                yield Write(_UPDATE_FN, [{**from_fn(merged), "key_id": fn_id}])
            return merged

        with self._span("ds_update_fn"):
            return await self._database.transaction(steps)

    async def remove_fn(self, fn_id: str) -> None:
        """Delete a fn with its triggers, readable or not."""

        def steps() -> Steps[None]:
            found = yield Read(_GET_FN, {"key_id": fn_id})
            if found:
                yield _locked_app(found[0]["app_id"])
                found = yield Read(_LOCK_FN, {"key_id": fn_id})
            if not found:
                raise FnNotFound
            yield Write(_DELETE_TRIGGERS_OF_FN, [{"key_id": fn_id}])
            yield Write(_DELETE_VERSIONS_OF_FN, [{"key_id": fn_id}])
            yield Write(_DELETE_FN, [{"key_id": fn_id}])

        with self._span("ds_remove_fn"):
            await self._database.transaction(steps)

    # -- triggers -----------------------------------------------------------------------------------------------------

    async def get_trigger(self, trigger_id: str) -> Trigger:
        """Read a trigger."""
        with self._span("ds_get_trigger"):
            return _trigger(await self._database.query(_GET_TRIGGER, key_id=trigger_id))

    async def get_trigger_by_source(self, app_id: str, kind: str, source: str) -> Trigger:
        """Read the trigger at a source."""
        with self._span("ds_get_trigger_by_source"):
            return _trigger(await self._database.query(_TRIGGERS_AT, app=app_id, kind=kind, source=source))

    async def get_triggers(self, which: TriggerFilter) -> list[Trigger]:
        """Read triggers by name and id."""
        after_name, after_id = which.after
        params = {"app": which.app_id, "fn": which.fn_id, "name": which.name, "most": which.per_page or ALL}
        query = _triggers_page(bool(which.fn_id), bool(which.name))
        with self._span("ds_get_triggers"):
            found = await self._database.query(query, **params, after_name=after_name, after_id=after_id)
        return [to_trigger(row, report) for row in found]

    async def insert_trigger(self, trigger: Trigger) -> Trigger:
        """Store a new trigger."""

        def steps() -> Steps[Trigger]:
            _app((yield _locked_app(trigger.app_id)))
            yield from _admit(trigger)
            yield Write(_INSERT_TRIGGER, [from_trigger(trigger)])
            return trigger

        with self._span("ds_insert_trigger"):
            return await self._database.transaction(steps)

    async def update_trigger(
        self, trigger_id: str, patch: TriggerPatch, now: dt.datetime, check: TriggerCheck
    ) -> Trigger:
        """Merge a patch into a trigger, if the check accepts the result, and name and source are free."""

        def steps() -> Steps[Trigger]:
            app_id = _trigger((yield Read(_GET_TRIGGER, {"key_id": trigger_id}))).app_id
            yield _locked_app(app_id)
            trigger = _trigger((yield Read(_LOCK_TRIGGER, {"key_id": trigger_id})))
            merged = apply_trigger_patch(trigger, patch, now)
            check(merged)
            if merged is not trigger:
                yield from _admit(merged)
                yield Write(_UPDATE_TRIGGER, [{**from_trigger(merged), "key_id": trigger_id}])
            return merged

        with self._span("ds_update_trigger"):
            return await self._database.transaction(steps)

    async def remove_trigger(self, trigger_id: str) -> None:
        """Delete a trigger, readable or not."""

        def steps() -> Steps[None]:
            if not (yield Read(_LOCK_TRIGGER, {"key_id": trigger_id})):
                raise TriggerNotFound
            yield Write(_DELETE_TRIGGER, [{"key_id": trigger_id}])

        with self._span("ds_remove_trigger"):
            await self._database.transaction(steps)


def _admit(trigger: Trigger) -> Steps[None]:
    """Check a trigger against what is stored, while the row of its app is locked."""
    fn = _fn((yield Read(_GET_FN, {"key_id": trigger.fn_id})))
    if fn.app_id != trigger.app_id:
        raise TriggerForeignFn
    there = {"app": trigger.app_id, "kind": trigger.type, "source": trigger.source}
    if _others((yield Read(_TRIGGERS_AT, there)), trigger):
        raise TriggerSourceTaken
    named = {"app": trigger.app_id, "fn": trigger.fn_id, "name": trigger.name}
    if _others((yield Read(_TRIGGER_NAMED, named)), trigger):
        raise TriggerAlreadyExists


def _others(found: Sequence[Row], trigger: Trigger) -> bool:
    return any(row["id"] != trigger.id for row in found)


def _locked_app(app_id: str) -> Read:
    return Read(_LOCK_APP, {"key_id": app_id})


def _app(found: Sequence[Row]) -> App:
    return _only(found, to_app, AppsNotFound)


def _fn(found: Sequence[Row]) -> Fn:
    return _only(found, to_fn, FnNotFound)


def _trigger(found: Sequence[Row]) -> Trigger:
    return _only(found, to_trigger, TriggerNotFound)


def _only(
    found: Sequence[Row], convert: Callable[[Row, Callable[[str, list[str]], None]], T], missing: type[Exception]
) -> T:
    if not found:
        raise missing
    return convert(found[0], reject)


@functools.cache
def _fns_page(is_named: bool) -> Query:
    query = sa.select(fns).where(fns.c.app_id == param("app"), fns.c.name > param("cursor"))
    if is_named:
        query = query.where(fns.c.name == param("name"))
    return Query(query.order_by(fns.c.name).limit(number("most")))


@functools.cache
def _triggers_page(is_of_fn: bool, is_named: bool) -> Query:
    name, trigger_id = triggers.c.name, triggers.c.id
    query = sa.select(triggers).where(
        triggers.c.app_id == param("app"),
        sa.or_(
            name > param("after_name"),
            sa.and_(name == param("after_name"), trigger_id > param("after_id")),
        ),
    )
    if is_of_fn:
        query = query.where(triggers.c.fn_id == param("fn"))
    if is_named:
        query = query.where(name == param("name"))
    return Query(query.order_by(name, trigger_id).limit(number("most")))
