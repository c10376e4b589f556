"""Request bodies to patches: lenient about keys, strict about types (API specification 1.1, 2)."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
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
from hearth.models.times import EPOCH, ZERO

_T = TypeVar("_T")
_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
_UInt64 = Annotated[int, msgspec.Meta(ge=0)]
_MAX_UINT64: Final = 2**64 - 1
_PAGE: Final = 30
_MAX_PAGE: Final = 100
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]*")
#: Characters of a number that is looked at: a sign and 19 digits; more are beyond every bound.
_MAX_CHARACTERS: Final = 20


_Config = dict[str, str | None]


class _App(msgspec.Struct):
    name: str = ""
    config: _Config | None = None


class _Route(msgspec.Struct):
    path: str = ""
    image: str = ""
    memory: _UInt64 = 0
    cpus: str = ""
    headers: dict[str, list[str | None] | None] | None = None
    type: str = ""
    format: str = ""
    timeout: _Int32 = 0
    idle_timeout: _Int32 = 0
    config: _Config | None = None


def app_patch(body: bytes) -> AppPatch:
    """The ``app`` of a request.

    Raises:
        InvalidJSON: The body is no JSON of this shape.
        AppsMissingNew: It has no app.
    """
    fields = _wrapped(body, "app", AppsMissingNew)
    app = _convert(fields, _App)
    return AppPatch(name=app.name, config=_config(app.config))


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
        headers=_headers(route.headers),
        type=route.type,
        format=route.format,
        timeout=route.timeout,
        idle_timeout=route.idle_timeout,
        config=_config(route.config),
    )


def per_page(text: str) -> int:
    """The size of a page: 30 unless a positive number was asked for, at most 100."""
    if not _INTEGER.fullmatch(text):
        return _PAGE
    if len(text) > _MAX_CHARACTERS:
        return _PAGE if text.startswith("-") else _MAX_PAGE
    wanted = int(text)
    return min(wanted, _MAX_PAGE) if wanted > 0 else _PAGE


def cursor(text: str) -> str:
    """The key in a cursor of apps or routes; of a broken one, what could be decoded: mostly nothing, the beginning."""
    match = _CURSOR.match(text)
    sound = match[0] if match else ""
    if len(sound) % 4 == 1:  # six bits are no byte
        sound = sound[:-1]
    return base64.urlsafe_b64decode(sound + "=" * (-len(sound) % 4)).decode("utf-8", "ignore")


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
    if not _INTEGER.fullmatch(text) or len(text) > _MAX_CHARACTERS:
        raise error
    try:
        return EPOCH + dt.timedelta(seconds=int(text))
    except OverflowError:  # a whole number beyond the calendar: before or after everything
        return ZERO if text.startswith("-") else dt.datetime.max.replace(tzinfo=dt.UTC)


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


def _not_json(literal: str) -> None:
    raise ValueError(f"{literal} is Python's, not JSON's")


_DECODER: Final = json.JSONDecoder(parse_constant=_not_json)


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


def _config(given: _Config | None) -> dict[str, str] | None:
    """A null is the empty value, as it is for every string."""
    return None if given is None else {key: value or "" for key, value in given.items()}


def _headers(given: dict[str, list[str | None] | None] | None) -> dict[str, list[str] | None] | None:
    if given is None:
        return None
    return {name: None if values is None else [value or "" for value in values] for name, values in given.items()}


def _convert(fields: dict[str, Any], kind: type[_T]) -> _T:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError:
        raise InvalidJSON from None
