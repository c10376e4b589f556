"""The result of an async call: what a sync caller would have been answered, kept until it expires."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from typing import Final

import msgspec

#: Names and values of header fields, in order.
HeaderFields = tuple[tuple[str, str], ...]

#: Seconds for which a result is kept, and bytes of its body, unless the settings or the route say otherwise.
DEFAULT_TTL_S: Final = 86_400
DEFAULT_MAX_BYTES: Final = 1 << 20
#: No longer is a result kept: 30 days.
MAX_TTL_S: Final = 30 * 86_400
_TOKEN_BYTES: Final = 24


class CallResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a call that has ended.

    Attributes:
        status: The HTTP status.
        headers: The header fields of the function, or of the error.
        body: The body; empty for an error.
        of_route: The header fields that the route adds.
        waited_s: Seconds that the call waited for its container; negative if it never had one.
        error: The message of an error that the caller sees; empty if the function answered.
        expires_at: The time after which it is no longer shown.
    """

    status: int
    headers: HeaderFields = ()
    body: bytes = b""
    of_route: HeaderFields = ()
    waited_s: float = -1.0
    error: str = ""
    expires_at: dt.datetime


class ResultLimits(msgspec.Struct, frozen=True):
    """The limits of the results that a node keeps.

    Attributes:
        ttl_s: Seconds for which a result is kept, unless its route says otherwise.
        max_bytes: Bytes of a body; a larger one is replaced by an error that says so.
    """

    ttl_s: int = DEFAULT_TTL_S
    max_bytes: int = DEFAULT_MAX_BYTES


RESULT_LIMITS: Final = ResultLimits()


def new_result_token() -> tuple[str, str]:
    """Return a token that allows to read one result, and its digest, which is all that is stored of it."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    return token, _digest(token)


def is_result_token(token: str, digest: str) -> bool:
    """Return whether a token is the one with this digest; no token is if there is no digest."""
    return bool(digest) and hmac.compare_digest(_digest(token), digest)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
