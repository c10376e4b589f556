"""Idempotency keys in SQL. The insert of a row, whose key is unique, decides which request is the first one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from hearth.models.errors import StoreUnavailable
from hearth.models.idempotency import HELD, LEASE_S, Claim, KeyEnd, KeyState, StoredKey, later
from hearth.models.times import format_time
from hearth.sql.database import Database, Read, Steps, Write
from hearth.sql.fields import Fields
from hearth.sql.query import Query, Row, number, param
from hearth.sql.schema.tables import calls, idempotency_keys
from hearth.stores.keys.base import KeyStore
from hearth.stores.records.rows import from_result, to_result
from hearth.telemetry.node import Telemetry

_KEYS: Final = idempotency_keys.c
_IS: Final = _KEYS.id == param("key_id")
_IS_HELD: Final = sa.and_(
    _IS, _KEYS.call_id == param("key_call"), sa.or_(*[_KEYS.state == state.value for state in sorted(HELD)])
)
_ONE: Final = Query(sa.select(idempotency_keys).where(_IS))
_ONE_LOCKED: Final = Query(sa.select(idempotency_keys).where(_IS).with_for_update())
_INSERT: Final = Query(sa.insert(idempotency_keys))
_COLUMNS: Final = tuple(column.name for column in idempotency_keys.columns if not column.primary_key)
_REPLACE: Final = Query(sa.update(idempotency_keys).where(_IS), _COLUMNS)
_RENEW: Final = Query(sa.update(idempotency_keys).where(_IS_HELD), ["held_until"])
_HOLD: Final = Query(sa.update(idempotency_keys).where(_IS), ["held_until"])
_INTERRUPT: Final = Query(sa.update(idempotency_keys).where(_IS), ["state"])
_HELD_LOCKED: Final = Query(sa.select(_KEYS.id).where(_IS_HELD).with_for_update())
_END: Final = Query(sa.update(idempotency_keys).where(_IS), ["state", "held_until", "expires_at", "head", "body"])
_DELETE: Final = Query(sa.delete(idempotency_keys).where(_IS))
_RECORDED: Final = Query(sa.select(calls.c.id).where(calls.c.id == param("id"), calls.c.app_name == param("app")))
_EXPIRED: Final = Query(
    sa.select(_KEYS.id)
    .where(_KEYS.expires_at < param("now"), _KEYS.held_until < param("now"))
    .order_by(_KEYS.expires_at, _KEYS.id)
    .limit(number("most"))
)
#: Keys whose sizes are read at a time.
SIZES_AT_ONCE: Final = 500
_SIZES: Final = (
    sa.select(_KEYS.id, (sa.func.length(_KEYS.head) + sa.func.length(_KEYS.body)).label("size"))
    .where(_KEYS.app_name == param("app"), _KEYS.id > param("cursor"))
    .order_by(_KEYS.id)
    .limit(number("most"))
    .subquery()
)
_SIZE: Final = Query(
    sa.select(
        sa.func.count().label("count"), sa.func.max(_SIZES.c.id).label("last"), sa.func.sum(_SIZES.c.size).label("size")
    )
)


class SqlKeys(KeyStore):
    """Idempotency keys in one database."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._span = telemetry.tracing.span
        self._database = database

    async def claim_key(self, claim: Claim, now: dt.datetime) -> StoredKey:
        """Insert a row; if there is one, lock it and decide what it means now."""

        def steps() -> Steps[StoredKey]:
            if not (yield Read(_ONE, {"key_id": claim.id})):
                yield Write(_INSERT, [_new(claim, now)])  # if another one has, it starts again
                return _held(claim)
            found = yield Read(_ONE_LOCKED, {"key_id": claim.id})
            if not found:  # its request had no effect, and has ended just now
                yield Write(_INSERT, [_new(claim, now)])
                return _held(claim)
            return (yield from _decide(claim, found[0], now))

        with self._span("ds_claim_key"):
            return await self._database.transaction(steps)

    async def renew_keys(self, held: Sequence[tuple[str, str]], now: dt.datetime) -> None:
        """Store how long the keys are held."""
        until = format_time(later(now, LEASE_S))
        rows = [{"key_id": key_id, "key_call": call_id, "held_until": until} for key_id, call_id in sorted(held)]

        def steps() -> Steps[None]:
            yield Write(_RENEW, rows)

        with self._span("ds_update_key"):
            await self._database.transaction(steps)

    async def end_key(self, end: KeyEnd, now: dt.datetime) -> bool:
        """Compare the call, then store the end or delete the row."""
        key = {"key_id": end.id}

        def steps() -> Steps[bool]:
            if not (yield Read(_HELD_LOCKED, {**key, "key_call": end.call_id})):
                return False
            if end.state is None:
                yield Write(_DELETE, [key])
            else:
                head, body = ("", b"") if end.result is None else from_result(end.result)
                values = {
                    "state": end.state.value,
                    "held_until": format_time(now),
                    "expires_at": format_time(later(now, end.ttl_s)),
                    "head": head,
                    "body": body,
                }
                yield Write(_END, [{**values, **key}])
            return True

        with self._span("ds_update_key"):
            return await self._database.transaction(steps)

    async def key_bytes(self, app_name: str, most: int) -> int:
        """Add up sizes in steps, so that other reads have their turn."""
        size, cursor = 0, ""
        while size < most:
            with self._span("ds_get_keys"):
                [found] = await self._database.query(_SIZE, app=app_name, cursor=cursor, most=SIZES_AT_ONCE)
            size += int(found["size"] or 0)
            if found["count"] < SIZES_AT_ONCE:
                break
            cursor = found["last"]
        return size

    async def remove_keys(self, now: dt.datetime, most: int) -> int:
        """Remove some expired keys in one transaction."""

        def steps() -> Steps[int]:
            gone = yield Read(_EXPIRED, {"now": format_time(now), "most": most})
            if gone:
                yield Write(_DELETE, [{"key_id": row["id"]} for row in gone])
            return len(gone)

        with self._span("ds_remove_keys"):
            return await self._database.transaction(steps)


def _decide(claim: Claim, row: Row, now: dt.datetime) -> Steps[StoredKey]:
    """Return what a claim of a stored key comes to."""
    stored, fields = _stored(row), Fields(row)
    is_over, key = fields.time("held_until") <= now, {"key_id": claim.id}
    if stored.state in HELD and stored.call_id == claim.call_id:  # its answer was lost
        return _held(claim)
    if is_over and fields.time("expires_at") <= now:
        yield Write(_REPLACE, [{**_new(claim, now), **key}])
        return _held(claim)
    if stored.fingerprint != claim.fingerprint or not is_over:
        return stored
    if stored.state is KeyState.ACCEPTING:
        yield Write(_HOLD, [{"held_until": format_time(later(now, LEASE_S)), **key}])
        recorded = yield Read(_RECORDED, {"id": stored.call_id, "app": claim.app_name})
        return msgspec.structs.replace(stored, is_held=True, is_accepted=bool(recorded))
    if stored.state is KeyState.RUNNING:
        yield Write(_INTERRUPT, [{"state": KeyState.INTERRUPTED.value, **key}])
        return msgspec.structs.replace(stored, state=KeyState.INTERRUPTED)
    return stored


def _new(claim: Claim, now: dt.datetime) -> dict[str, Any]:
    until = later(now, LEASE_S)
    return {
        "id": claim.id,
        "app_name": claim.app_name,
        "call_id": claim.call_id,
        "fingerprint": claim.fingerprint,
        "state": claim.state.value,
        "held_until": format_time(until),
        "expires_at": format_time(later(until, claim.ttl_s)),
        "head": "",
        "body": b"",
    }


def _held(claim: Claim) -> StoredKey:
    return StoredKey(call_id=claim.call_id, fingerprint=claim.fingerprint, state=claim.state, is_held=True)


def _stored(row: Row) -> StoredKey:
    """Return a row as a key.

    Raises:
        StoreUnavailable: It cannot be read: nobody knows whether its request has run.
    """
    fields = Fields(row)
    unreadable = StoreUnavailable(f"the stored idempotency key {fields.text('id')} cannot be read")
    try:
        state = KeyState(fields.text("state"))
    except ValueError as exc:
        raise unreadable from exc
    result = to_result(row) if state is KeyState.DONE else None
    if state is KeyState.DONE and result is None:
        raise unreadable
    return StoredKey(call_id=fields.text("call_id"), fingerprint=fields.text("fingerprint"), state=state, result=result)
