"""A route: the function that ``/r/<app>/<path>`` calls, and its limits."""

from __future__ import annotations

import dataclasses
import datetime as dt
import posixpath
import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from hearth.models.call import HeaderMap
from hearth.models.call_auth import CALL_AUTHS, SIGNED, Signature, validate_signature
from hearth.models.delivery import NO_RULES, Delivery
from hearth.models.errors import (
    DEFAULT_MAX_MEMORY_MIB,
    FoundDynamicURL,
    InvalidCPUs,
    PathMalformed,
    RoutesInvalidAuth,
    RoutesInvalidConcurrency,
    RoutesInvalidFormat,
    RoutesInvalidIdleTimeout,
    RoutesInvalidMemory,
    RoutesInvalidPath,
    RoutesInvalidSecretsAs,
    RoutesInvalidSignature,
    RoutesInvalidTimeout,
    RoutesInvalidType,
    RoutesMissingAppName,
    RoutesMissingImage,
    RoutesMissingPath,
)
from hearth.models.function import (
    ASYNC,
    DEFAULT,
    DEFAULT_MEMORY_MIB,
    HTTP,
    HTTP_STREAM,
    JSON,
    MAX_CONCURRENCY,
    SYNC,
)
from hearth.models.instances import ANY_NUMBER, Instances, check_instances
from hearth.models.secret import ENV, WAYS, validate_secret_names
from hearth.models.times import ZERO

TYPES: Final = (SYNC, ASYNC)
FORMATS: Final = (DEFAULT, HTTP, JSON, HTTP_STREAM)

DEFAULT_TIMEOUT_S: Final = 30
DEFAULT_IDLE_TIMEOUT_S: Final = 30
MAX_SYNC_TIMEOUT_S: Final = 120
MAX_ASYNC_TIMEOUT_S: Final = 3600
MAX_IDLE_TIMEOUT_S: Final = 3600
MAX_CPU_MILLI: Final = 1_024_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RouteLimits:
    """The most that a route may ask for.

    Attributes:
        memory_mib: Memory in MiB.
        sync_timeout_s: The timeout of a sync call in seconds.
        no_cpus: The reason why routes cannot limit their CPU; empty if they can.
    """

    memory_mib: int = DEFAULT_MAX_MEMORY_MIB
    sync_timeout_s: int = MAX_SYNC_TIMEOUT_S
    no_cpus: str = ""


#: The limits of a node that is not configured otherwise.
LIMITS: Final = RouteLimits()

_MILLI = re.compile(r"(\d+)m", re.ASCII)
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
#: Possessive quantifiers: otherwise a long number that ends in something else is tried again at every digit.
_DECIMAL = re.compile(r"[+-]?(\d++\.?\d*+|\.\d++)([eE][+-]?\d++)?", re.ASCII)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The function at a path of an app. Frozen: a cached route is shared by every call that uses it.

    ``memory`` is MiB, ``timeout`` and ``idle_timeout`` are seconds, ``cpu_milli`` thousandths of a core (0: unlimited).
    ``secrets`` are the names of the secrets that it gets besides those of its app; ``secrets_as`` says how. ``auth`` is
    the proof that it asks of callers (empty: as its app says); ``signature`` says which one if that is a signature.
    ``concurrency`` is how many calls one container runs at once.
    ``instances`` are the bounds of the number of its containers, ``delivery`` the rules for its async calls.
    ``digest`` is what ``image`` stands for; empty as long as nobody knows it.
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
    secrets: tuple[str, ...] = ()
    secrets_as: str = ENV
    auth: str = ""
    signature: Signature | None = None
    concurrency: int = 1
    instances: Instances = ANY_NUMBER
    delivery: Delivery = NO_RULES
    digest: str = ""


def clean_path(path: str) -> str:
    """Clean a route path like a Unix path: one leading slash, no ``//``, ``.`` or ``..``, no trailing slash."""
    cleaned = posixpath.normpath("/" + path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def parse_cpus(text: str) -> int:
    """Read a CPU amount (``"200m"``, ``"0.5"``, ``""``) as milli-CPUs; 0 means unlimited.

    Raises:
        InvalidCPUs: The text is not an amount, or out of range.
    """
    text = text.strip()
    if not text:
        return 0
    if match := _MILLI.fullmatch(text):
        if len(match[1].lstrip("0")) > 7:  # never convert thousands of digits
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
    """Return milli-CPUs as text: ``"1000m"``, or empty for unlimited."""
    return f"{milli}m" if milli else ""


def validate_route(route: Route, limits: RouteLimits = LIMITS) -> None:
    """Check a whole route; the first failure wins (API specification 2.2).

    Raises:
        ApiError: The matching row of the catalogue.
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
    if not 1 <= route.concurrency <= MAX_CONCURRENCY:
        raise RoutesInvalidConcurrency(f"it must be an integer from 1 to {MAX_CONCURRENCY}")
    if route.concurrency > 1 and route.format != HTTP_STREAM:
        raise RoutesInvalidConcurrency(f"above 1 it needs the format http-stream, not {route.format}")
    check_instances(route.instances, route.format)
    validate_secret_names(route.secrets)
    if route.secrets_as not in WAYS:
        raise RoutesInvalidSecretsAs
    if route.auth and route.auth not in CALL_AUTHS:
        raise RoutesInvalidAuth
    if route.signature is not None:
        validate_signature(route.signature)
    elif route.auth == SIGNED:
        raise RoutesInvalidSignature("auth signed needs a signature with its style and its secret")


def validate_path(path: str) -> None:
    """Check a route's path.

    Raises:
        ApiError: The matching row of the catalogue.
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
