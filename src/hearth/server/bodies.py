"""The JSON of request bodies: lenient about keys, strict about types (API specification 1.1)."""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

import msgspec

from hearth.contracts.stdio.fields import well_formed
from hearth.models.annotations import Annotations, compact
from hearth.models.errors import InvalidJSON

T = TypeVar("T")

#: A configuration as clients send it; null is the empty value, as for every string.
Config = dict[str, str | None]

_ANNOTATIONS: Final = "annotations"
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def first_value(body: bytes) -> Any:
    """Return the first JSON value; what follows it is ignored.

    Raises:
        InvalidJSON: There is none.
    """
    value, _ = _first(body)
    return {} if value is None else value


def lowered(value: Any) -> dict[str, Any]:
    """Return the fields of an object with lower-case keys; a null counts as absent.

    Raises:
        InvalidJSON: The value is not an object.
    """
    if not isinstance(value, dict):
        raise InvalidJSON
    return {name.lower(): field for name, field in value.items() if field is not None}


def convert(fields: dict[str, Any], kind: type[T]) -> T:
    """Return fields as a struct.

    Raises:
        InvalidJSON: A field has another type.
    """
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError:
        raise InvalidJSON from None


def config_of(given: Config | None) -> dict[str, str] | None:
    """Return a config in which null is the empty value, as for every string."""
    return None if given is None else {well_formed(key): well_formed(value or "") for key, value in given.items()}


def annotations_of(body: bytes) -> Annotations | None:
    """Return the annotations in a body, each value as the client wrote it; ``None`` if there are none.

    Raises:
        InvalidJSON: The annotations are not an object.
    """
    _, text = _first(body)
    try:
        fields = {name.lower(): raw for name, raw in _FIELDS.decode(text).items() if bytes(raw) != b"null"}
        if (given := fields.get(_ANNOTATIONS)) is None:
            return None
        return {key: compact(bytes(value).decode()) for key, value in _FIELDS.decode(given).items()}
    except (msgspec.MsgspecError, ValueError):
        raise InvalidJSON from None


def _first(body: bytes) -> tuple[Any, str]:
    """Return the first JSON value of a body, and its text."""
    try:
        text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        raise InvalidJSON from None
    return value, text[:end]


def _not_json(literal: str) -> None:
    raise ValueError(f"{literal} is Python's, not JSON's")


_DECODER: Final = json.JSONDecoder(parse_constant=_not_json)
