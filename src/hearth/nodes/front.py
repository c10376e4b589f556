"""The checks that a request passes before it reaches the application of a node."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

from starlette.types import ASGIApp

from hearth.authorize.sessions import Sessions
from hearth.authorize.stored_tokens import StoredTokens
from hearth.drivers.base import Driver
from hearth.models.principal import AuthMode
from hearth.nodes.foundation import Foundation
from hearth.server.audit import AuditLog
from hearth.server.cors import allow_origins, parse_origins
from hearth.server.door import Door
from hearth.server.extensions import Server
from hearth.server.limit import BodyLimit
from hearth.server.middleware import Invoke
from hearth.server.peers import RefuseFunctions
from hearth.server.registry.paths import is_registry
from hearth.server.shutdown import ShutdownEndpoint
from hearth.server.traced import Traced
from hearth.server.ui.data import Data
from hearth.server.ui.gateway import Gateway
from hearth.settings import RUNNER, Settings
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)


def open_front(
    base: Foundation,
    server: Server,
    calls: ASGIApp,
    invoke: Invoke,
    api: ASGIApp,
    driver: Driver | None = None,
    tokens: StoredTokens | None = None,
    audit: AuditLog | None = None,
    dashboard: Data | None = None,
) -> tuple[ASGIApp, ShutdownEndpoint | None]:
    """Return the application of a node behind all its checks, and the endpoint that stops the node."""
    settings = base.settings
    for warning in access_warnings(settings):
        _log.warning(warning)
    access = base.access
    if tokens is not None:
        access = dataclasses.replace(access, tokens=access.tokens.with_stored(tokens))
    shutdown = ShutdownEndpoint() if base.options.shutdown_endpoint else None

    def refusing(app: ASGIApp) -> ASGIApp:
        return app if driver is None else RefuseFunctions(app, lambda: driver.function_subnets)

    def door(app: ASGIApp) -> ASGIApp:
        behind = app if shutdown is None else shutdown.before(app)
        behind = behind if dashboard is None else dashboard.before(behind)
        return refusing(
            Door(behind, access, server.endpoints, serves_runners=settings.node_type != RUNNER, audit=audit)
        )

    front = server.surround(calls, api, invoke, door)
    front = allow_origins(BodyLimit(front, _body_limit(settings)), base.access.origins)
    if dashboard is not None:
        dashboard.front = front
        front = refusing(Gateway(front, access, Sessions(base.clock)))
    return Traced(front, base.telemetry.tracing), shutdown


def access_warnings(settings: Settings) -> list[str]:
    """Return what an operator should know about the access to a node."""
    found = []
    if settings.auth is AuthMode.OFF:
        found.append("FN_AUTH=off: everybody who reaches this node controls it")
    if settings.auth is not AuthMode.REQUIRED and "*" in parse_origins(settings.api_cors):
        found.append("FN_API_CORS=*: every web page that is opened on this machine controls this node")
    return found


def _body_limit(settings: Settings) -> Callable[[str], int | None]:
    """Return the limit of a request's body by path, in bytes."""
    most = settings.max_request_size or sys.maxsize
    of_api = min(most, settings.max_api_request_size)

    def limit(path: str) -> int | None:
        if is_registry(path):  # which has a limit of its own
            return None
        if not path.startswith(("/v1/", "/v2/")):
            return settings.max_request_size
        # Runners have shown their token; they send logs, and calls whose size was checked before.
        return None if path.startswith("/v1/runner/") else of_api

    return limit
