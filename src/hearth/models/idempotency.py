"""Idempotency keys: a request that is repeated with its key does not run its function again. Pure functions."""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from hearth.models.call_result import MAX_TTL_S, CallResult
from hearth.models.errors import IdempotencyKeyInvalid
from hearth.models.function import FunctionRef

#: Seconds for which the answer to a request is kept, unless its function says otherwise.
DEFAULT_KEY_TTL_S: Final = 86_400
MAX_KEY_LENGTH: Final = 255
#: Begins the keys that the platform sets itself.
RESERVED: Final = "hearth/"
#: Seconds after which a request whose node has not renewed its claim is over, and seconds between two renewals.
LEASE_S: Final = 15.0
RENEWAL_S: Final = 5.0
_SECOND: Final = dt.timedelta(seconds=1)


class KeyState(enum.StrEnum):
    """The progress of the first request with a key."""

    RUNNING = "running"  # its function runs, or waits to
    ACCEPTING = "accepting"  # it is being put into the queue
    DONE = "done"  # its answer is stored
    TOO_LARGE = "too_large"  # its answer was sent, and is larger than what is kept
    INTERRUPTED = "interrupted"  # its node died or was stopped; the function may have run in part


#: The states in which a node holds the key.
HELD: Final = frozenset({KeyState.RUNNING, KeyState.ACCEPTING})


Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[^\0]+\Z")]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_S)]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The claim of a request to be the first one with its key.

    Attributes:
        id: A digest of the function and the key.
        call_id: The call that the request becomes. It also tells claims of one key apart.
        fingerprint: A digest of the request.
        is_sync: Its caller waits for the function.
        ttl_s: Seconds for which the answer is kept.
    """

    id: Digest
    app_name: Name
    call_id: Name
    fingerprint: Digest
    is_sync: bool
    ttl_s: Seconds

    @property
    def state(self) -> KeyState:
        """Return the state of the key while this claim holds it."""
        return KeyState.RUNNING if self.is_sync else KeyState.ACCEPTING


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key after a claim of it.

    Attributes:
        call_id: The call of the first request; for a claim that holds the key, the call to make.
        is_held: The claim holds the key: its request is the first one.
        is_accepted: An earlier claim for the same request has put the call into the queue.
        result: The answer, if it is stored.
    """

    call_id: str
    fingerprint: str
    state: KeyState
    is_held: bool = False
    is_accepted: bool = False
    result: CallResult | None = None


class KeyEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the request that holds a key.

    Attributes:
        state: The state of the key; ``None`` if the request had no effect, so that a repetition is a first request.
            ``ACCEPTING``: nobody can tell whether the call is in the queue.
        result: Its answer, if that is kept.
    """

    id: str
    call_id: str
    ttl_s: int
    state: KeyState | None = None
    result: CallResult | None = None


def checked_key(values: Sequence[str]) -> str:
    """Return the key of a request.

    Args:
        values: The values of its header.

    Raises:
        IdempotencyKeyInvalid: The key has the wrong form, or begins with the reserved prefix.
    """
    key = values[0] if len(values) == 1 else ""
    if not 1 <= len(key) <= MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()):
        raise IdempotencyKeyInvalid(f"it must be 1 to {MAX_KEY_LENGTH} printable ASCII characters")
    if key.startswith(RESERVED):
        raise IdempotencyKeyInvalid(f"keys that begin with {RESERVED!r} are reserved")
    return key


def key_id(ref: FunctionRef, key: str) -> str:
    """Return what identifies a key of a function."""
    return _digest(ref.app.encode(), ref.id.encode(), key.encode())


def fingerprint(method: str, body: bytes, *, is_sync: bool) -> str:
    """Return what tells one request of a function from another."""
    return _digest(b"sync" if is_sync else b"async", method.encode(), body)


def later(now: dt.datetime, seconds: float) -> dt.datetime:
    """Return the time some seconds from now."""
    return now + seconds * _SECOND


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
