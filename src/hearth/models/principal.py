"""The senders of requests, and the clients that a node trusts without a token."""

from __future__ import annotations

import dataclasses
import enum
from typing import Final


class AuthMode(enum.StrEnum):
    """The clients that may use a node without a token (FN_AUTH)."""

    LOOPBACK = "loopback"  # programs on this machine; the node listens on loopback only
    REQUIRED = "required"  # no client
    OFF = "off"  # every client that reaches the node


class Role(enum.StrEnum):
    """The role of a sender. A table gives it its actions (``authorize.rules``)."""

    ANONYMOUS = "anonymous"  # has no valid token
    LOCAL = "local"  # has no token, and is trusted because of the mode
    ADMIN = "admin"
    DEPLOYER = "deployer"
    INVOKER = "invoker"
    VIEWER = "viewer"
    RUNNER = "runner"


#: The roles that a token may have.
TOKEN_ROLES: Final = (Role.ADMIN, Role.DEPLOYER, Role.INVOKER, Role.VIEWER, Role.RUNNER)


@dataclasses.dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request.

    Attributes:
        role: Decides which actions it may do.
        apps: The names of the apps that it reaches; empty for all.
        token_id: The id of its stored token; empty if it has none.
        name: The name of its stored token, or its subject at an issuer.
        realm: Where the name is from: empty for a token of Hearth's own, else the kind of the issuer. A subject and a
            token may have the same name.
    """

    role: Role
    apps: frozenset[str] = frozenset()
    token_id: str = ""
    name: str = ""
    realm: str = ""

    def __str__(self) -> str:
        sender = f"{self.role}@{self.realm}" if self.realm else self.role.value
        return f"{sender}:{self.name}" if self.name else sender

    def reaches(self, app: str) -> bool:
        """Return whether an app is in its scope."""
        return not self.apps or app in self.apps


ANONYMOUS: Final = Principal(Role.ANONYMOUS)
LOCAL: Final = Principal(Role.LOCAL)
ADMIN: Final = Principal(Role.ADMIN)
RUNNER: Final = Principal(Role.RUNNER)
