"""An application behind the door that a node has."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp

from hearth.aio.clock import Clock, SystemClock
from hearth.authorize.attempts import WrongTokens
from hearth.authorize.authenticator import Authenticator
from hearth.authorize.stored_tokens import StoredTokens
from hearth.authorize.tokens import Tokens
from hearth.models.principal import ADMIN, RUNNER, AuthMode
from hearth.server.audit import AuditLog
from hearth.server.browsers import parse_hosts
from hearth.server.call_gates import CallGates
from hearth.server.cors import allow_origins, parse_origins
from hearth.server.door import Access, Door
from hearth.server.endpoints import Endpoints

#: Every route is open unless it says otherwise, and no token is valid.
OPEN_GATES: Final = CallGates(Authenticator(Tokens([]), WrongTokens(SystemClock())), SystemClock())


def guarded(
    app: ASGIApp,
    mode: AuthMode = AuthMode.LOOPBACK,
    *,
    admin: str = "",
    runner: str = "",
    hosts: str = "",
    cors: str = "",
    address: str = "127.0.0.1",
    clock: Clock | None = None,
    endpoints: Endpoints | None = None,
    stored: StoredTokens | None = None,
    audit: AuditLog | None = None,
) -> ASGIApp:
    """Return the application, reachable through the door only."""
    origins = parse_origins(cors)
    access = Access(
        mode=mode,
        tokens=Authenticator(Tokens([(ADMIN, admin), (RUNNER, runner)]), WrongTokens(clock or SystemClock()), stored),
        hosts=parse_hosts(hosts, mode, address),
        origins=origins,
    )
    return allow_origins(Door(app, access, endpoints, audit=audit), origins)
