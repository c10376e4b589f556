"""Create and recognise tokens.

A token is ``hearth_``, 160 random bits and a checksum, so that scanners for leaked secrets can tell it from other text.
A node keeps digests only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Iterable
from typing import Final

from hearth.models.principal import Principal

PREFIX: Final = "hearth_"
_RANDOM_BYTES: Final = 20
_CHECKSUM_LENGTH: Final = 7
_BODY: Final = re.compile(r"hearth_([a-z2-7]{32})([a-z2-7]{7})", re.ASCII)


def new_token() -> str:
    """Return a new random token."""
    body = _text(secrets.token_bytes(_RANDOM_BYTES))
    return f"{PREFIX}{body}{_checksum(body)}"


def is_token(text: str) -> bool:
    """Return whether a text has a token's form, with a checksum that fits."""
    match = _BODY.fullmatch(text)
    return match is not None and match[2] == _checksum(match[1])


class Tokens:
    """The tokens that a node knows.

    Args:
        known: Principals with their tokens; an empty token is none.
    """

    def __init__(self, known: Iterable[tuple[Principal, str]]) -> None:
        self._known = [(principal, digest(token.encode())) for principal, token in known if token]

    def has(self, principal: Principal) -> bool:
        """Return whether there is a token for a principal."""
        return any(known == principal for known, _ in self._known)

    def find(self, key: str) -> Principal | None:
        """Return the principal of the token with this digest. The time it takes does not depend on the tokens."""
        found = None
        for principal, known in self._known:
            if hmac.compare_digest(key, known):
                found = principal
        return found


def digest(token: bytes) -> str:
    """Return what a node keeps of a token: its SHA-256, as hexadecimal digits."""
    return hashlib.sha256(token).hexdigest()


def _checksum(body: str) -> str:
    return _text(zlib.crc32(body.encode()).to_bytes(4, "big"))[:_CHECKSUM_LENGTH]


def _text(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
