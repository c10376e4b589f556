"""The proof that a route asks of its callers: none, a token, or a signature."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from hearth.models.errors import RoutesInvalidSignature
from hearth.models.secret import is_secret_name

OPEN: Final = "open"
TOKEN: Final = "token"  # noqa: S105  # a word, no password
SIGNED: Final = "signed"
#: The values that a route may have. A signature needs a key, which a route names, so apps and nodes choose of fewer.
CALL_AUTHS: Final = (OPEN, TOKEN, SIGNED)
DEFAULT_CALL_AUTHS: Final = (OPEN, TOKEN)
#: In a change: back to the default of the app, or of the node.
INHERITED: Final = "default"

#: Where a signature and its time stand, and which bytes are signed.
GITHUB: Final = "github"
STRIPE: Final = "stripe"
GENERIC: Final = "generic"
#: Styles with the header that has the signature unless the route names another.
STYLES: Final = {GITHUB: "X-Hub-Signature-256", STRIPE: "Stripe-Signature", GENERIC: "X-Signature"}

DEFAULT_TOLERANCE_S: Final = 300
MAX_TOLERANCE_S: Final = 86400
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


class Signature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The signature that a route asks for.

    Attributes:
        style: One of :data:`STYLES`.
        secret: The name of the secret of the app that is the key.
        header: The header that has the signature; empty for that of the style.
        tolerance: Seconds by which the time of a signature may differ from the node's, where the style has a time.
    """

    style: str
    secret: str
    header: str = ""
    tolerance: int = DEFAULT_TOLERANCE_S

    @property
    def header_name(self) -> str:
        """Return the header that has the signature."""
        return self.header or STYLES[self.style]


def validate_signature(signature: Signature) -> None:
    """Check what a route says about signatures.

    Raises:
        RoutesInvalidSignature: It names what does not exist.
    """
    if signature.style not in STYLES:
        raise RoutesInvalidSignature(f"style must be one of {', '.join(STYLES)}")
    if not is_secret_name(signature.secret):
        raise RoutesInvalidSignature("secret must be the name of a secret of the app, which is the key")
    if signature.header and _HEADER.fullmatch(signature.header) is None:
        raise RoutesInvalidSignature("header must be at most 64 letters, digits and -")
    if not 1 <= signature.tolerance <= MAX_TOLERANCE_S:
        raise RoutesInvalidSignature(f"tolerance must be from 1 to {MAX_TOLERANCE_S} seconds")
