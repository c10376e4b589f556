"""The OpenID Connect issuer of a node, as the settings name it."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from typing import Final

from hearth.aio.clock import Clock
from hearth.authorize.issuer import IssuerKeys, fetcher, is_secure_url
from hearth.authorize.oidc import Oidc, OidcRules
from hearth.host.certificates import client_context
from hearth.models.errors import StartUpError
from hearth.models.principal import Role
from hearth.settings import Settings

#: The roles that tokens of an issuer may have. Runners share a secret of their own.
_ROLES: Final = (Role.ADMIN, Role.DEPLOYER, Role.INVOKER, Role.VIEWER)


async def open_oidc(stack: AsyncExitStack, settings: Settings, clock: Clock) -> Oidc | None:
    """Return what knows the tokens of the issuer, without a request to it; ``None`` without an issuer.

    Raises:
        StartUpError: The settings do not fit together.
    """
    if not settings.oidc_issuer:
        return None
    keys = await stack.enter_async_context(await issuer_keys(settings, clock))
    return Oidc(oidc_rules(settings), keys, clock)


async def issuer_keys(settings: Settings, clock: Clock) -> IssuerKeys:
    """Return the keys of the issuer, to be entered.

    Raises:
        StartUpError: The settings do not fit together.
    """
    oidc_rules(settings)
    return IssuerKeys(settings.oidc_issuer, clock, fetcher(await asyncio.to_thread(_tls, settings)))


def oidc_rules(settings: Settings) -> OidcRules:
    """Return what tokens of the issuer must hold, and what they give.

    Raises:
        StartUpError: The settings do not fit together.
    """
    issuer = settings.oidc_issuer
    if not is_secure_url(issuer):
        raise StartUpError(f"FN_OIDC_ISSUER={issuer}: must begin with https://, or be on loopback")
    if not settings.oidc_audience:
        raise StartUpError("FN_OIDC_AUDIENCE: missing; name the audience of tokens that are meant for this node")
    return OidcRules(
        issuer=issuer,
        audience=settings.oidc_audience,
        role_claim=settings.oidc_role_claim,
        roles=_roles(settings.oidc_roles),
        apps_claim=settings.oidc_apps_claim,
    )


def _roles(text: str) -> dict[str, Role]:
    found: dict[str, Role] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        value, _, name = (part.strip() for part in pair.rpartition("="))
        if not value or name not in _ROLES:
            names = ", ".join(_ROLES)
            raise StartUpError(f"FN_OIDC_ROLES: {pair!r} is not VALUE=ROLE, with one of the roles {names}")
        found.setdefault(value, Role(name))
    if not found:
        raise StartUpError("FN_OIDC_ROLES: missing; without it tokens of the issuer give no role: GROUP=admin,...")
    return found


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.oidc_ca is None:
        return None
    try:
        return client_context(settings.oidc_ca)
    except OSError as exc:
        raise StartUpError(f"FN_OIDC_CA={settings.oidc_ca}: {exc.strerror or exc}; name a file in PEM") from exc
