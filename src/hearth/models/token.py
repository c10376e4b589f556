"""A stored token: the right to use a node, as a client that is not the node's administrator has it."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from hearth.models.app import App, validate_app
from hearth.models.errors import ApiError, InvalidToken
from hearth.models.principal import TOKEN_ROLES, Principal, Role
from hearth.models.times import ZERO

MAX_NAME_LENGTH: Final = 100
MAX_APPS: Final = 100


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its value, which only its owner knows.

    Attributes:
        id: Sorts by the time of creation.
        apps: Names of the apps that it reaches, sorted; empty for all.
        digest: The SHA-256 of its value, as 64 hexadecimal digits.
        last_used_at: Cut to the hour; ``ZERO`` if it was never used.
        expires_at: ``ZERO`` if it never expires.
    """

    id: str
    name: str
    role: Role
    apps: tuple[str, ...] = ()
    digest: str
    created_at: dt.datetime
    last_used_at: dt.datetime = ZERO
    expires_at: dt.datetime = ZERO

    def has_expired(self, now: dt.datetime) -> bool:
        """Return whether its time is over."""
        return self.expires_at != ZERO and self.expires_at <= now

    @property
    def principal(self) -> Principal:
        """Return the sender of a request that shows this token."""
        return Principal(self.role, frozenset(self.apps), self.id, self.name)


def validate_token(token: Token) -> None:
    """Check a new token.

    Raises:
        InvalidToken: The name, the role, the apps or the time of expiry are not valid; the message says which.
    """
    if not token.name or len(token.name) > MAX_NAME_LENGTH or not token.name.isprintable():
        raise InvalidToken(f"name must have 1 to {MAX_NAME_LENGTH} printable characters")
    if token.role not in TOKEN_ROLES:
        raise InvalidToken(f"role must be one of {', '.join(TOKEN_ROLES)}")
    if len(token.apps) > MAX_APPS:
        raise InvalidToken(f"apps must have at most {MAX_APPS} names")
    if token.apps and token.role is Role.RUNNER:
        raise InvalidToken("a runner reaches all apps; leave apps out")
    for app in token.apps:
        try:
            validate_app(App(name=app))
        except ApiError as exc:
            raise InvalidToken(f"apps: {app!r}: {exc.message}") from exc
    if token.has_expired(token.created_at):
        raise InvalidToken("expires_at must be in the future")
