"""Fns and triggers as rows, and back. Maps are JSON text; what Fn left NULL reads as empty."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hearth.models.fn import DEFAULT_IDLE_TIMEOUT_S, DEFAULT_TIMEOUT_S, Fn
from hearth.models.function import DEFAULT_MEMORY_MIB
from hearth.models.times import format_time
from hearth.models.trigger import HTTP, Trigger
from hearth.sql.fields import Fields, json
from hearth.sql.query import Row
from hearth.stores.definitions.rows import Unreadable, bound, from_annotations, to_annotations

_CONFIG: Final = msgspec.json.Decoder(dict[str, str])


def from_fn(fn: Fn) -> dict[str, Any]:
    """Return a fn as a row."""
    return {
        "id": fn.id,
        "name": fn.name,
        "app_id": fn.app_id,
        "image": fn.image,
        "memory": fn.memory,
        "timeout": fn.timeout,
        "idle_timeout": fn.idle_timeout,
        "config": json(fn.config),
        "annotations": from_annotations(fn.annotations),
        "created_at": format_time(fn.created_at),
        "updated_at": format_time(fn.updated_at),
        "shape": fn.shape,
        "digest": fn.digest,
        "min_instances": bound(fn.instances.min_instances),
    }


def to_fn(row: Row, unreadable: Unreadable) -> Fn:
    """Return a row as a fn. Columns that cannot be read, or that are empty, have their defaults."""
    fields = Fields(row)
    fn = Fn(
        id=fields.text("id"),
        name=fields.text("name"),
        app_id=fields.text("app_id"),
        image=fields.text("image"),
        memory=fields.number("memory", DEFAULT_MEMORY_MIB),
        timeout=fields.number("timeout", DEFAULT_TIMEOUT_S),
        idle_timeout=fields.number("idle_timeout", DEFAULT_IDLE_TIMEOUT_S),
        config=fields.map("config", _CONFIG),
        annotations=to_annotations(fields),
        shape=fields.text("shape"),
        digest=fields.text("digest"),
        created_at=fields.time("created_at"),
        updated_at=fields.time("updated_at"),
    )
    if fields.unreadable:
        unreadable(f"fn {fn.id}", fields.unreadable)
    return fn


def from_trigger(trigger: Trigger) -> dict[str, Any]:
    """Return a trigger as a row."""
    return {
        "id": trigger.id,
        "name": trigger.name,
        "app_id": trigger.app_id,
        "fn_id": trigger.fn_id,
        "created_at": format_time(trigger.created_at),
        "updated_at": format_time(trigger.updated_at),
        "type": trigger.type,
        "source": trigger.source,
        "annotations": from_annotations(trigger.annotations),
    }


def to_trigger(row: Row, unreadable: Unreadable) -> Trigger:
    """Return a row as a trigger. Columns that cannot be read, or that are empty, have their defaults."""
    fields = Fields(row)
    trigger = Trigger(
        id=fields.text("id"),
        name=fields.text("name"),
        app_id=fields.text("app_id"),
        fn_id=fields.text("fn_id"),
        type=fields.text("type", HTTP),
        source=fields.text("source", "/"),
        annotations=to_annotations(fields),
        created_at=fields.time("created_at"),
        updated_at=fields.time("updated_at"),
    )
    if fields.unreadable:
        unreadable(f"trigger {trigger.id}", fields.unreadable)
    return trigger
