"""Find the principal of a request by the token that it shows."""

from __future__ import annotations

import base64
import binascii

from hearth.authorize.attempts import WrongTokens
from hearth.authorize.oidc import Oidc
from hearth.authorize.stored_tokens import StoredTokens
from hearth.authorize.tokens import Tokens, digest
from hearth.models.principal import RUNNER, Principal


class Authenticator:
    """All tokens that a node accepts.

    Args:
        known: The tokens of the node itself: those of its settings and of its data folder.
        wrong: Counts wrong tokens.
        stored: The tokens that administrators have created; without it, there are none.
        oidc: Knows the tokens of an OpenID Connect issuer, if there is one.
    """

    def __init__(
        self, known: Tokens, wrong: WrongTokens, stored: StoredTokens | None = None, oidc: Oidc | None = None
    ) -> None:
        self._known = known
        self._wrong = wrong
        self._stored = stored
        self._oidc = oidc

    def with_stored(self, stored: StoredTokens) -> Authenticator:
        """Return one that also accepts stored tokens."""
        return Authenticator(self._known, self._wrong, stored, self._oidc)

    @property
    def has_runner_token(self) -> bool:
        """Return whether the settings have a token for runners."""
        return self._known.has(RUNNER)

    async def find(self, token: bytes) -> Principal | None:
        """Return the principal of a token; ``None`` for a wrong one.

        Raises:
            TokensUnavailable: The database that stores tokens does not answer.
            IssuerUnavailable: The keys of the issuer are not known.
        """
        key, stored, oidc = digest(token), self._stored, self._oidc
        if stored is not None and (found := stored.find_nowait(key)) is not None:
            return found
        if oidc is not None and (found := oidc.find_nowait(key)) is not None:
            return found
        if (found := self._known.find(key)) is not None:
            return found
        if stored is not None and (found := await stored.find(token)) is not None:
            return found
        return None if oidc is None else await oidc.find(token)

    def note_wrong(self, address: str) -> None:
        """Count a wrong token.

        Raises:
            TooManyWrongTokens: There were too many from this address.
        """
        self._wrong.note(address)


def bearer(authorization: str) -> bytes:
    """Return the token of an Authorization header; empty if it shows none."""
    kind, _, token = authorization.partition(" ")
    return token.strip(" ").encode("latin-1") if kind.lower() == "bearer" else b""


def password(authorization: str) -> bytes:
    """Return the password of an Authorization header, of any user; empty if it shows none."""
    kind, _, encoded = authorization.partition(" ")
    if kind.lower() != "basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(" "), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
