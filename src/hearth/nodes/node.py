"""A node that is ready to serve, whatever its type."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp

from hearth.agent.agent import Agent
from hearth.async_calls.consumer import Consumer
from hearth.async_calls.dispatcher import Dispatcher
from hearth.nodes.dashboard import Dashboard
from hearth.schedules.scheduler import Scheduler
from hearth.server.health import Readiness
from hearth.server.http.shared import Handler
from hearth.server.shutdown import ShutdownEndpoint
from hearth.telemetry.node import Telemetry


def _nothing() -> None:
    """Do nothing: no request waits."""


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A node that is ready to serve. An API node runs no calls: it has neither agent nor consumer.

    Attributes:
        type: ``full``, ``api`` or ``runner``.
        telemetry: The metrics and spans of this node alone.
        dispatcher: Hands async calls to runners; a runner has none.
        scheduler: Makes the calls of schedules; a runner has none.
        driver: The name of the driver; ``none`` on an API node.
        dashboard: The dashboard; ``None`` if the node serves none.
        shutdown: The endpoint that stops the node; ``None`` unless code asked for it.
        end_waits: Ends the waits of requests that would keep the node from stopping.
        changed: Takes note of a changed route, or of an app of which anything may have changed.
        forget_token: Forgets a token that was revoked, by its id.
        calls: Answers function calls without ASGI; ``None`` if the application answers them.
    """

    app: ASGIApp
    type: str
    readiness: Readiness
    telemetry: Telemetry
    driver: str = "none"
    agent: Agent | None = None
    consumer: Consumer | None = None
    dispatcher: Dispatcher | None = None
    scheduler: Scheduler | None = None
    shutdown: ShutdownEndpoint | None = None
    dashboard: Dashboard | None = None
    calls: Handler | None = None
    end_waits: Callable[[], None] = _nothing
    changed: Callable[[str, str | None], Awaitable[None]] | None = None
    forget_token: Callable[[str], None] | None = None

    @property
    def ready(self) -> bool:
        """Return whether balancers should send requests to this node."""
        return not self.readiness.draining

    def retire(self) -> None:
        """Prepare to stop: not ready, no further async or scheduled call, no container started in advance.

        Every request is still served.
        """
        self.readiness.drain()
        if self.scheduler is not None:
            self.scheduler.stop()
        if self.consumer is not None:
            self.consumer.stop()
        if self.agent is not None:
            self.agent.pool.minima.stop()

    def drain(self) -> None:
        """Refuse new work; running calls continue."""
        self.retire()
        if self.dashboard is not None:
            self.dashboard.recent.stop()
        if self.dispatcher is not None:
            self.dispatcher.stop()
        self.end_waits()
        if self.agent is not None:
            self.agent.drain()

    def abort(self) -> None:
        """Abort running calls."""
        self.drain()
        if self.agent is not None:
            self.agent.abort()
