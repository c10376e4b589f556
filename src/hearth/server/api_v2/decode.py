"""Request bodies and queries to the models of API v2: lenient about keys, strict about types."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from typing import Annotated, Final

import msgspec

from hearth.contracts.stdio.fields import well_formed
from hearth.models.annotations import Annotations, without_endpoints
from hearth.models.errors import InvalidJSON
from hearth.models.fn import FnPatch
from hearth.models.fn_errors import InvalidCursor
from hearth.models.patch import AppPatch
from hearth.models.times import ZERO, parse_time
from hearth.models.trigger import TriggerPatch
from hearth.server.bodies import Config, annotations_of, config_of, convert, first_value, lowered

_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
_UInt64 = Annotated[int, msgspec.Meta(ge=0)]
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
#: Sorts behind every id.
_BEHIND_ALL: Final = "~"


class _Common(msgspec.Struct):
    id: str = ""
    name: str = ""
    created_at: str | None = None
    updated_at: str | None = None


class _App(_Common):
    config: Config | None = None
    syslog_url: str | None = None
    shape: str = ""


class _Fn(_Common):
    app_id: str = ""
    image: str = ""
    memory: _UInt64 = 0
    timeout: _Int32 = 0
    idle_timeout: _Int32 = 0
    config: Config | None = None
    shape: str = ""


class _Trigger(_Common):
    app_id: str = ""
    fn_id: str = ""
    type: str = ""
    source: str = ""


class AppBody(msgspec.Struct, kw_only=True):
    """The app of a request."""

    id: str
    shape: str
    patch: AppPatch


def app_body(body: bytes) -> AppBody:
    """Return the app of a request.

    Raises:
        InvalidJSON: The body is not JSON of this shape.
    """
    given = convert(lowered(first_value(body)), _App)
    syslog_url = None if given.syslog_url is None else well_formed(given.syslog_url)
    patch = AppPatch(
        name=well_formed(given.name),
        config=config_of(given.config),
        annotations=_annotations(body),
        syslog_url=syslog_url,
    )
    return AppBody(id=given.id, shape=well_formed(given.shape), patch=patch)


def fn_patch(body: bytes) -> FnPatch:
    """Return the fn of a request.

    Raises:
        InvalidJSON: The body is not JSON of this shape.
    """
    given = convert(lowered(first_value(body)), _Fn)
    return FnPatch(
        id=given.id,
        name=well_formed(given.name),
        app_id=well_formed(given.app_id),
        image=well_formed(given.image),
        memory=given.memory,
        timeout=given.timeout,
        idle_timeout=given.idle_timeout,
        config=config_of(given.config),
        annotations=_annotations(body),
    )


def trigger_patch(body: bytes) -> TriggerPatch:
    """Return the trigger of a request.

    Raises:
        InvalidJSON: The body is not JSON of this shape.
    """
    given = convert(lowered(first_value(body)), _Trigger)
    return TriggerPatch(
        id=given.id,
        name=well_formed(given.name),
        app_id=well_formed(given.app_id),
        fn_id=well_formed(given.fn_id),
        type=well_formed(given.type),
        source=well_formed(given.source),
        annotations=_annotations(body),
        created_at=_time(given.created_at),
        updated_at=_time(given.updated_at),
    )


def cursor(text: str) -> str:
    """Return the key in a cursor; empty for none.

    Raises:
        InvalidCursor: No list has such a cursor.
    """
    if not text:
        return ""
    if _CURSOR.fullmatch(text) is None:
        raise InvalidCursor
    try:
        key = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidCursor from None
    if "\0" in key:
        raise InvalidCursor
    return key


def trigger_cursor(text: str) -> tuple[str, str]:
    """Return the name and the id in a cursor of triggers. One of Fn has the name only.

    Raises:
        InvalidCursor: No list has such a cursor.
    """
    name, has_id, trigger_id = cursor(text).partition("/")
    return name, trigger_id if has_id or not name else _BEHIND_ALL


def _annotations(body: bytes) -> Annotations | None:
    """Return the annotations of a request: clients send back what they have read, with the endpoints."""
    annotations = annotations_of(body)
    return None if annotations is None else without_endpoints(annotations)


def _time(text: str | None) -> dt.datetime:
    if text is None:
        return ZERO
    try:
        return parse_time(text)
    except ValueError:
        raise InvalidJSON from None
