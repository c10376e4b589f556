"""Check the signatures of webhooks: HMAC-SHA256 of a body, in some styles with the time at which it was signed.

A style is read from the headers first, so that a request without a possible signature costs no body.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from hearth.models.call_auth import GENERIC, GITHUB, STRIPE, Signature
from hearth.models.errors import SignatureWrong

#: Names the header of the time in the generic style, behind the name of the header of the signature.
_TIME_SUFFIX: Final = "-Timestamp"
#: Signatures in one header: a sender has several while it changes its key.
_MOST: Final = 8
_MAX_LENGTH: Final = 1024
_HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,11}", re.ASCII)

#: Returns the only value of a header; empty if there is none, or several.
_Header = Callable[[str], str]


class Claim(msgspec.Struct, frozen=True):
    """A signature that a request shows, not yet checked.

    Attributes:
        digests: In lower-case hexadecimal digits; one of them must fit.
        prefix: Stands before the body in what is signed.
    """

    digests: Sequence[str]
    prefix: bytes

    def check(self, key: bytes, body: bytes) -> None:
        """Check the signature. The time it takes does not depend on the digests.

        Raises:
            SignatureWrong: None of the digests is that of this body with this key.
        """
        mac = hmac.new(key, self.prefix, hashlib.sha256)
        mac.update(body)
        expected = mac.hexdigest()
        if not any(hmac.compare_digest(expected, digest) for digest in self.digests):
            raise SignatureWrong


def read_claim(rule: Signature, headers: Mapping[str, Sequence[str]], now_s: float) -> Claim:
    """Return the signature that the headers of a request show, with canonical names.

    Raises:
        SignatureWrong: They show none of this style, or its time is too far from the node's.
    """

    def header(name: str) -> str:
        values = headers.get(name, ())
        return values[0].strip() if len(values) == 1 and len(values[0]) <= _MAX_LENGTH else ""

    time, digests = _READERS[rule.style](header, "-".join(part.capitalize() for part in rule.header_name.split("-")))
    if not digests or len(digests) > _MOST or not all(map(_HEX.fullmatch, digests)):
        raise SignatureWrong
    if time is None:
        return Claim(digests, b"")
    if _SECONDS.fullmatch(time) is None or abs(now_s - int(time)) > rule.tolerance:
        raise SignatureWrong
    return Claim(digests, time.encode() + b".")


def _github(header: _Header, name: str) -> tuple[None, list[str]]:
    """``sha256=HEX`` of the body. It has no time, so a request can be sent again by who has seen it."""
    kind, sign, digest = header(name).partition("=")
    return None, [digest.lower()] if sign and kind == "sha256" else []


def _stripe(header: _Header, name: str) -> tuple[str, list[str]]:
    """``t=SECONDS,v1=HEX``; the time and the body are signed, with a dot between them."""
    times, digests = [], []
    for part in header(name).split(","):
        key, _, value = part.strip().partition("=")
        if key == "t":
            times.append(value)
        elif key == "v1":
            digests.append(value.lower())
    return (times[0], digests) if len(times) == 1 else ("", [])


def _generic(header: _Header, name: str) -> tuple[str, list[str]]:
    """``HEX`` or ``sha256=HEX`` of time, dot and body; the time is in a header of its own."""
    return header(name + _TIME_SUFFIX), [header(name).removeprefix("sha256=").lower()]


_READERS: Final[dict[str, Callable[[_Header, str], tuple[str | None, list[str]]]]] = {
    GITHUB: _github,
    STRIPE: _stripe,
    GENERIC: _generic,
}
