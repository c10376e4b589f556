"""A trigger: the path of an app at which HTTP requests call a fn."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from hearth.models.annotations import Annotations, merge_annotations, validate_annotations
from hearth.models.app import is_word
from hearth.models.fn_errors import (
    MAX_SOURCE_LENGTH,
    TriggerInvalidName,
    TriggerInvalidSource,
    TriggerMissingAppId,
    TriggerMissingFnId,
    TriggerMissingName,
    TriggerMissingSource,
    TriggerTooLongName,
    TriggerTooLongSource,
    TriggerUnknownType,
)
from hearth.models.times import ZERO

#: The type of every trigger.
HTTP: Final = "http"

MAX_NAME_BYTES: Final = 255


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """Calls a fn for requests to ``/t/APP`` and its source, which is compared as a whole."""

    id: str
    name: str
    app_id: str
    fn_id: str
    type: str = HTTP
    source: str = "/"
    annotations: Annotations = msgspec.field(default_factory=dict)
    created_at: dt.datetime = ZERO
    updated_at: dt.datetime = ZERO


class TriggerPatch(msgspec.Struct, kw_only=True):
    """A new trigger, or changes to one. Empty values mean "leave unchanged"."""

    id: str = ""
    name: str = ""
    app_id: str = ""
    fn_id: str = ""
    type: str = ""
    source: str = ""
    annotations: Annotations | None = None
    created_at: dt.datetime = ZERO
    updated_at: dt.datetime = ZERO


def new_trigger(trigger_id: str, patch: TriggerPatch, now: dt.datetime) -> Trigger:
    """Return the trigger that a client describes, not yet validated."""
    return Trigger(
        id=trigger_id,
        name=patch.name,
        app_id=patch.app_id,
        fn_id=patch.fn_id,
        type=patch.type,
        source=patch.source,
        annotations=dict(patch.annotations or {}),
        created_at=now,
        updated_at=now,
    )


def apply_trigger_patch(trigger: Trigger, patch: TriggerPatch, now: dt.datetime) -> Trigger:
    """Return the trigger after the patch, not yet validated; ``updated_at`` moves only if something changed.

    Its app and its type stay.
    """
    merged = msgspec.structs.replace(
        trigger,
        name=patch.name or trigger.name,
        fn_id=patch.fn_id or trigger.fn_id,
        source=patch.source or trigger.source,
        annotations=merge_annotations(trigger.annotations, patch.annotations),
    )
    return trigger if merged == trigger else msgspec.structs.replace(merged, updated_at=now)


def validate_trigger(trigger: Trigger) -> None:
    """Check a whole trigger; the first failure wins (API specification of version 2, 6).

    Raises:
        ApiError: The matching row of the catalogue.
    """
    if not trigger.app_id:
        raise TriggerMissingAppId
    _validate_name(trigger.name)
    if not trigger.fn_id:
        raise TriggerMissingFnId
    if trigger.type != HTTP:
        raise TriggerUnknownType
    if not trigger.source:
        raise TriggerMissingSource
    if not trigger.source.startswith("/"):
        raise TriggerInvalidSource
    if len(trigger.source) > MAX_SOURCE_LENGTH:
        raise TriggerTooLongSource
    validate_annotations(trigger.annotations)


def _validate_name(name: str) -> None:
    if not name:
        raise TriggerMissingName
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise TriggerTooLongName
    if not is_word(name):
        raise TriggerInvalidName
