"""A node that is ready to serve, whatever its type."""

from __future__ import annotations

import dataclasses

from starlette.types import ASGIApp

from hearth.agent.agent import Agent
from hearth.agent.consumer import Consumer
from hearth.server.dispatch import Dispatcher
from hearth.server.health import Readiness


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A node that is ready to serve. An API node runs no calls: it has neither agent nor consumer.

    Attributes:
        type: ``full``, ``api`` or ``runner``.
        dispatcher: Where runners wait for async calls; a runner has none.
        driver: The name of what makes its containers; ``none`` on an API node.
    """

    app: ASGIApp
    type: str
    readiness: Readiness
    driver: str = "none"
    agent: Agent | None = None
    consumer: Consumer | None = None
    dispatcher: Dispatcher | None = None

    @property
    def ready(self) -> bool:
        """Whether balancers should send it requests."""
        return not self.readiness.draining

    def retire(self) -> None:
        """Be about to stop: not ready any more, no further async call, but every request is still served."""
        self.readiness.drain()
        if self.consumer is not None:
            self.consumer.stop()

    def drain(self) -> None:
        """Take no new work; what runs runs on."""
        self.retire()
        if self.dispatcher is not None:
            self.dispatcher.stop()
        if self.agent is not None:
            self.agent.drain()

    def abort(self) -> None:
        """Break off what runs."""
        self.drain()
        if self.agent is not None:
            self.agent.abort()
