"""Request bodies to patches: lenient about keys, strict about types (API specification 1.1, 2)."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
from typing import Annotated, Any, Final, TypeVar

import msgspec

from hearth.models.errors import (
    ApiError,
    AppsMissingNew,
    InvalidFromTime,
    InvalidJSON,
    InvalidToTime,
    RoutesMissingNew,
)
from hearth.models.patch import AppPatch, RoutePatch
from hearth.models.route import parse_cpus
from hearth.models.times import EPOCH

_DECODER: Final = json.JSONDecoder()
_T = TypeVar("_T")
_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
_UInt64 = Annotated[int, msgspec.Meta(ge=0)]
_MAX_UINT64: Final = 2**64 - 1
_PAGE: Final = 30
_MAX_PAGE: Final = 100


class _App(msgspec.Struct):
    name: str = ""
    config: dict[str, str] | None = None


class _Route(msgspec.Struct):
    path: str = ""
    image: str = ""
    memory: _UInt64 = 0
    cpus: str = ""
    headers: dict[str, list[str] | None] | None = None
    type: str = ""
    format: str = ""
    timeout: _Int32 = 0
    idle_timeout: _Int32 = 0
    config: dict[str, str] | None = None


def app_patch(body: bytes) -> AppPatch:
    """The ``app`` of a request.

    Raises:
        InvalidJSON: The body is no JSON of this shape.
        AppsMissingNew: It has no app.
    """
    fields = _wrapped(body, "app", AppsMissingNew)
    app = _convert(fields, _App)
    return AppPatch(name=app.name, config=app.config)


def route_patch(body: bytes) -> RoutePatch:
    """The ``route`` of a request.

    Raises:
        InvalidJSON: The body is no JSON of this shape.
        InvalidCPUs: The amount of CPU is no amount.
        RoutesMissingNew: It has no route.
    """
    fields = _wrapped(body, "route", RoutesMissingNew)
    route = _convert(fields, _Route)
    if route.memory > _MAX_UINT64:
        raise InvalidJSON
    return RoutePatch(
        path=route.path,
        image=route.image,
        memory=route.memory,
        cpu_milli=parse_cpus(route.cpus),
        headers=route.headers,
        type=route.type,
        format=route.format,
        timeout=route.timeout,
        idle_timeout=route.idle_timeout,
        config=route.config,
    )


def per_page(text: str) -> int:
    """The size of a page: 30 unless a positive number was asked for, at most 100."""
    try:
        wanted = int(text) if len(text) < 10 else _MAX_PAGE if text.isdigit() else 0
    except ValueError:
        wanted = 0
    return min(wanted, _MAX_PAGE) if wanted > 0 else _PAGE


def cursor(text: str) -> str:
    """The key in a cursor of apps or routes; what cannot be decoded counts as the beginning."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""


def bounds(from_text: str, to_text: str) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Two times in seconds since the epoch.

    Raises:
        InvalidFromTime: The first is none.
        InvalidToTime: The second is none.
    """
    return _epoch(from_text, InvalidFromTime), _epoch(to_text, InvalidToTime)


def _epoch(text: str, error: type[ApiError]) -> dt.datetime | None:
    if not text:
        return None
    try:
        seconds = int(text) if len(text) < 20 and text.isascii() and "_" not in text else None
        if seconds is None:
            raise error
        return EPOCH + dt.timedelta(seconds=seconds)
    except ValueError:
        raise error from None
    except OverflowError:  # a whole number beyond the calendar: before or after everything
        return dt.datetime.max.replace(tzinfo=dt.UTC) if not text.startswith("-") else EPOCH


def _wrapped(body: bytes, key: str, missing: type[ApiError]) -> dict[str, Any]:
    value = _lowered(_first_value(body)).get(key)
    if value is None:
        raise missing
    return _lowered(value)


def _first_value(body: bytes) -> Any:
    """The first JSON value; what follows it is ignored."""
    try:
        text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        raise InvalidJSON from None
    if value is None:
        return {}
    return _well_formed(value) if "\\u" in text else value


def _lowered(value: Any) -> dict[str, Any]:
    """Keys without case; a null is as good as absent."""
    if not isinstance(value, dict):
        raise InvalidJSON
    return {name.lower(): field for name, field in value.items() if field is not None}


def _well_formed(value: Any) -> Any:
    """Lone surrogates, which JSON can spell but UTF-8 cannot, become U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(item) for key, item in value.items()}
    return value


def _convert(fields: dict[str, Any], kind: type[_T]) -> _T:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError:
        raise InvalidJSON from None
