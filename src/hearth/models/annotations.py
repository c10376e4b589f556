"""Annotations of apps, fns and triggers: any JSON values by key, which functions do not see."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from hearth.models.fn_errors import (
    AnnotationOfFns,
    InvalidAnnotationKey,
    InvalidAnnotationKeyLength,
    InvalidAnnotationValue,
    InvalidAnnotationValueLength,
    TooManyAnnotations,
)

#: Values by key, each as compact JSON: numbers and the order of keys stay as the client wrote them.
Annotations = dict[str, str]

#: Annotations that answers have and nobody stores: where clients call a fn, or reach a trigger.
INVOKE_ENDPOINT: Final = "fnproject.io/fn/invokeEndpoint"
HTTP_ENDPOINT: Final = "fnproject.io/trigger/httpEndpoint"
#: The annotation of a fn that says how many calls one container runs at once.
CONCURRENCY_KEY: Final = "hearth/concurrency"
#: The annotation of a fn that says what its callers must show.
AUTH_KEY: Final = "hearth/auth"

MAX_KEY_BYTES: Final = 128
MAX_VALUE_BYTES: Final = 512
MAX_KEYS: Final = 100

_KEY: Final = re.compile(r"[!-~]+", re.ASCII)
_STRING_OR_BLANKS: Final = re.compile(r'("(?:[^"\\]|\\.)*+")|[ \t\r\n]+')
#: Values that delete a key, and that no key may have.
_NONE: Final = frozenset({'""', "null"})


def compact(json: str) -> str:
    """Return valid JSON without blanks between its tokens."""
    return _STRING_OR_BLANKS.sub(r"\1", json)


def without_endpoints(annotations: Mapping[str, str]) -> Annotations:
    """Return annotations without those that answers have and nobody stores."""
    return {key: value for key, value in annotations.items() if key not in (INVOKE_ENDPOINT, HTTP_ENDPOINT)}


def merge_annotations(stored: Mapping[str, str], changes: Mapping[str, str] | None) -> Annotations:
    """Apply changes: ``""`` and ``null`` delete a key, other values set it, absent keys stay."""
    merged = dict(stored)
    for key, value in (changes or {}).items():
        if value in _NONE:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def validate_annotations(annotations: Mapping[str, str], *, of_fn: bool = False) -> None:
    """Check annotations (API specification of version 2, 3).

    Args:
        annotations: All that the object will have.
        of_fn: They are those of a fn. On an app or a trigger :data:`AUTH_KEY` would close nothing.

    Raises:
        ApiError: The matching row of the catalogue.
    """
    for key, value in annotations.items():
        if _KEY.fullmatch(key) is None:
            raise InvalidAnnotationKey
        if len(key) > MAX_KEY_BYTES:
            raise InvalidAnnotationKeyLength
        if value in _NONE:
            raise InvalidAnnotationValue
        if len(value.encode()) > MAX_VALUE_BYTES:
            raise InvalidAnnotationValueLength
    if len(annotations) > MAX_KEYS:
        raise TooManyAnnotations
    if AUTH_KEY in annotations and not of_fn:
        raise AnnotationOfFns(AUTH_KEY)
