"""Tokens of an OpenID Connect issuer: whether they are valid here, and which role and apps their claims give."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

from hearth.aio.clock import Clock
from hearth.authorize.issuer import IssuerKeys
from hearth.authorize.tokens import digest
from hearth.models.principal import Principal, Role

#: Signatures with a private key. With ``none`` or HMAC everybody could sign who knows the public key.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
#: Kinds of tokens (RFC 7519, 5.1; RFC 9068, 2.1). Others, such as logout tokens, are no credentials.
_TYPES: Final = frozenset({"", "jwt", "at+jwt"})
#: Seconds by which the clocks of issuer and node may differ.
_SKEW_S: Final = 60
_MAX_BYTES: Final = 16 * 1024
#: Verified tokens that are remembered, the newest.
_MAX_VERIFIED: Final = 1000
#: Three parts in base64url, separated by dots.
_FORM: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
#: A subject as logs show it.
_SUBJECT: Final = re.compile(r"[\x21-\x7e]{1,255}")
_ALL_APPS: Final = "*"
_REALM: Final = "oidc"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OidcRules:
    """The tokens that are accepted, and what they give.

    Attributes:
        issuer: The exact ``iss`` of tokens.
        audience: One of the ``aud`` of tokens.
        role_claim: The claim that lists groups or roles; dots lead into objects.
        roles: The role for each value of that claim. The first that a token has decides.
        apps_claim: The claim that lists names of apps, or ``*``; empty: every token reaches all apps.
    """

    issuer: str
    audience: str
    role_claim: str
    roles: Mapping[str, Role]
    apps_claim: str = ""

    def principal(self, claims: Mapping[str, Any]) -> Principal | None:
        """Return the sender with these claims; ``None`` if they give no role, or no app."""
        subject = claims.get("sub")
        values = _texts(_claim(claims, self.role_claim))
        role = next((role for value, role in self.roles.items() if value in values), None)
        if role is None or not isinstance(subject, str) or _SUBJECT.fullmatch(subject) is None:
            return None
        if not self.apps_claim:
            return Principal(role, name=subject, realm=_REALM)
        apps = _texts(_claim(claims, self.apps_claim))
        if not apps:
            return None  # an empty set would mean all apps
        return Principal(role, frozenset() if _ALL_APPS in apps else apps, name=subject, realm=_REALM)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Verified:
    """The sender of a valid token.

    Attributes:
        generation: The generation of the issuer's keys that verified the signature.
        since_s: The first second of the wall clock at which the claims are known to be valid.
        until_s: The last one.
    """

    generation: int
    since_s: int
    until_s: float
    principal: Principal


class Oidc:
    """Finds the senders of tokens that an issuer has signed.

    A signature costs a node more than the call that it opens, so a token is verified once: until it expires, or the
    keys of the issuer are fetched again. What is remembered are digests of valid tokens.
    """

    def __init__(self, rules: OidcRules, keys: IssuerKeys, clock: Clock) -> None:
        self._rules = rules
        self._keys = keys
        self._clock = clock
        self._verified: dict[str, _Verified] = {}

    def find_nowait(self, key: str) -> Principal | None:
        """Return the sender of a token that was verified before, by its digest, without waiting."""
        known = self._verified.get(key)
        if known is None or not known.since_s <= self._clock.now_ms() // 1000 <= known.until_s:
            return None
        return known.principal if known.generation == self._keys.generation() else None

    async def find(self, token: bytes) -> Principal | None:
        """Verify a token. Return its sender; ``None`` if it is not valid here.

        Raises:
            IssuerUnavailable: The keys of the issuer are not known.
        """
        if len(token) > _MAX_BYTES:
            return None
        if _FORM.fullmatch(token) is None:
            return None
        from joserfc import jws, jwt
        from joserfc.errors import JoseError

        try:
            header = jws.extract_compact(token).headers()
        except (JoseError, ValueError):
            return None
        if not isinstance(header, dict):  # any JSON value may stand there
            return None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS or not isinstance(kid, str | None) or not _is_credential(header.get("typ", "")):
            return None
        key = await self._keys.find(kid, algorithm)
        if key is None:
            return None
        now_s = self._clock.now_ms() // 1000
        try:
            claims = jwt.decode(token, key, algorithms=[algorithm]).claims
            self._registry(now_s).validate(claims)
        except (JoseError, ValueError, TypeError, RecursionError):
            return None
        principal = self._rules.principal(claims)
        if principal is not None:  # others are wrong tokens, which push no valid one out of what is remembered
            self._remember(digest(token), principal, now_s, claims["exp"] + _SKEW_S)
        return principal

    def _remember(self, key: str, principal: Principal, since_s: int, until_s: float) -> None:
        generation = self._keys.generation()
        if not generation:
            return  # the keys have become too old in this moment
        self._verified.pop(key, None)
        if len(self._verified) >= _MAX_VERIFIED:
            del self._verified[next(iter(self._verified))]
        self._verified[key] = _Verified(generation=generation, since_s=since_s, until_s=until_s, principal=principal)

    def _registry(self, now_s: int) -> Any:
        from joserfc.jwt import JWTClaimsRegistry

        return JWTClaimsRegistry(
            now=now_s,
            leeway=_SKEW_S,
            iss={"essential": True, "value": self._rules.issuer},
            aud={"essential": True, "value": self._rules.audience},
            exp={"essential": True},
            sub={"essential": True},
        )


def _is_credential(kind: object) -> bool:
    return isinstance(kind, str) and kind.lower().removeprefix("application/") in _TYPES


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """Return a claim. A name is tried as it is, as those of some issuers are URLs, then as a path."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def _texts(value: object) -> frozenset[str]:
    """Return the texts of a claim: one, or a list of them."""
    if isinstance(value, str):
        return frozenset({value}) - {""}
    return frozenset(one for one in value if isinstance(one, str) and one) if isinstance(value, list) else frozenset()
