"""A route: what runs when ``/r/<app>/<path>`` is called, and within which limits."""

from __future__ import annotations

import dataclasses
import datetime as dt
import posixpath
import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from hearth.models.errors import (
    DEFAULT_MAX_MEMORY_MIB,
    FoundDynamicURL,
    InvalidCPUs,
    PathMalformed,
    RoutesInvalidFormat,
    RoutesInvalidIdleTimeout,
    RoutesInvalidMemory,
    RoutesInvalidPath,
    RoutesInvalidTimeout,
    RoutesInvalidType,
    RoutesMissingAppName,
    RoutesMissingImage,
    RoutesMissingPath,
)
from hearth.models.times import ZERO

#: Header names with all their values, in order.
HeaderMap = dict[str, list[str]]

SYNC: Final = "sync"
ASYNC: Final = "async"
TYPES: Final = (SYNC, ASYNC)

DEFAULT: Final = "default"
HTTP: Final = "http"
JSON: Final = "json"
FORMATS: Final = (DEFAULT, HTTP, JSON)

DEFAULT_MEMORY_MIB: Final = 128
DEFAULT_TIMEOUT_S: Final = 30
DEFAULT_IDLE_TIMEOUT_S: Final = 30
MAX_SYNC_TIMEOUT_S: Final = 120
MAX_ASYNC_TIMEOUT_S: Final = 3600
MAX_IDLE_TIMEOUT_S: Final = 3600
MAX_CPU_MILLI: Final = 1_024_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RouteLimits:
    """The most that a route may ask for: memory in MiB, the timeout of a sync call in seconds."""

    memory_mib: int = DEFAULT_MAX_MEMORY_MIB
    sync_timeout_s: int = MAX_SYNC_TIMEOUT_S


#: Those of every node, unless code gives it others.
LIMITS: Final = RouteLimits()

_MILLI = re.compile(r"(\d+)m", re.ASCII)
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
#: No digit is given back once it was taken: a long number that ends in something else would be tried at every digit.
_DECIMAL = re.compile(r"[+-]?(\d++\.?\d*+|\.\d++)([eE][+-]?\d++)?", re.ASCII)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """What a path of an app runs. Frozen: a cached route is shared by every call that uses it.

    ``memory`` is MiB, ``timeout`` and ``idle_timeout`` are seconds, ``cpu_milli`` thousandths of a core (0: unlimited).
    """

    app_name: str
    path: str
    image: str = ""
    memory: int = DEFAULT_MEMORY_MIB
    cpu_milli: int = 0
    headers: HeaderMap = msgspec.field(default_factory=dict)
    type: str = SYNC
    format: str = DEFAULT
    timeout: int = DEFAULT_TIMEOUT_S
    idle_timeout: int = DEFAULT_IDLE_TIMEOUT_S
    config: dict[str, str] = msgspec.field(default_factory=dict)
    created_at: dt.datetime = ZERO
    updated_at: dt.datetime = ZERO


def clean_path(path: str) -> str:
    """Clean a route path like a Unix path: one leading slash, no ``//``, ``.`` or ``..``, no trailing slash."""
    cleaned = posixpath.normpath("/" + path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def parse_cpus(text: str) -> int:
    """Read a CPU amount (``"200m"``, ``"0.5"``, ``""``) as milli-CPUs; 0 means unlimited.

    Raises:
        InvalidCPUs: It is unparsable or out of range.
    """
    text = text.strip()
    if not text:
        return 0
    if match := _MILLI.fullmatch(text):
        if len(match[1].lstrip("0")) > 7:  # so that a text of thousands of digits is never converted
            raise InvalidCPUs
        milli = int(match[1])
    elif _DECIMAL.fullmatch(text):
        value = float(text)
        if not 0 <= value <= MAX_CPU_MILLI / 1000:
            raise InvalidCPUs
        milli = int(value * 1000)
    else:
        raise InvalidCPUs
    if not 0 <= milli <= MAX_CPU_MILLI:
        raise InvalidCPUs
    return milli


def format_cpus(milli: int) -> str:
    """Milli-CPUs as text: ``"1000m"``, or empty for unlimited."""
    return f"{milli}m" if milli else ""


def validate_route(route: Route, limits: RouteLimits = LIMITS) -> None:
    """Check a whole route; the first failure wins (API specification 2.2).

    Raises:
        ApiError: The row of the catalogue that fits.
    """
    if not route.app_name:
        raise RoutesMissingAppName
    validate_path(route.path)
    if not route.image:
        raise RoutesMissingImage
    if route.type not in TYPES:
        raise RoutesInvalidType
    if route.format not in FORMATS:
        raise RoutesInvalidFormat
    if not 1 <= route.timeout <= (MAX_ASYNC_TIMEOUT_S if route.type == ASYNC else limits.sync_timeout_s):
        raise RoutesInvalidTimeout
    if not 1 <= route.idle_timeout <= MAX_IDLE_TIMEOUT_S:
        raise RoutesInvalidIdleTimeout
    if not 1 <= route.memory <= limits.memory_mib:
        raise RoutesInvalidMemory


def validate_path(path: str) -> None:
    """Check a route's path.

    Raises:
        ApiError: The row of the catalogue that fits.
    """
    if not path:
        raise RoutesMissingPath
    if any(ord(character) < 0x20 or character == "\x7f" for character in path) or _BROKEN_ESCAPE.search(path):
        raise PathMalformed
    try:
        urlsplit(path)
    except ValueError:
        raise PathMalformed from None
    if ":" in path.partition("?")[0]:
        raise FoundDynamicURL
    if not path.startswith("/") or "?" in path or "#" in path:
        raise RoutesInvalidPath
