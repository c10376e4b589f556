"""The parts that only code can give a node; everything else is in :class:`~hearth.settings.Settings`."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence

from hearth.access.base import StoredWorld
from hearth.agent.agent import Agent
from hearth.agent.lending import WHOLE, Lender, Part
from hearth.drivers.base import Driver
from hearth.models.route import LIMITS, RouteLimits
from hearth.queues.base import Queue
from hearth.server.extensions import Extension
from hearth.stores.datastore import Datastore
from hearth.stores.logs.base import LogStore
from hearth.telemetry.node import Telemetry


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Ready-made parts of a node, and its extensions. The code that made a part closes it.

    Attributes:
        datastore: Used instead of the database of ``FN_DB_URL``.
        queue: Used instead of the queue of ``FN_MQ_URL``.
        logs: Used instead of the log store of ``FN_LOGSTORE_URL``.
        access: Used by a runner instead of the API node of ``FN_RUNNER_API_URL``.
        agent: A running agent; needs its ``driver``, too.
        driver: An open driver, used instead of that of ``FN_DRIVER``.
        extensions: Added in this order, before those of ``FN_EXTENSIONS``.
        shutdown_endpoint: Whether ``GET /shutdown`` stops the node.
        limits: The limits of routes.
        telemetry: The metrics and spans of the node; give the same to ready-made parts. Default: those of the agent.
        lender: Lends memory and CPU to the agent, which shares them with other workers of the node.
        part: That of this worker in the containers that functions keep ready, and may have.
        changed: Awaited after each change of an app, or of its route, before its answer.
        revoked: Awaited with the id of each token that was revoked, before the answer.
    """

    datastore: Datastore | None = None
    queue: Queue | None = None
    logs: LogStore | None = None
    access: StoredWorld | None = None
    agent: Agent | None = None
    driver: Driver | None = None
    extensions: Sequence[Extension | str] = ()
    shutdown_endpoint: bool = False
    limits: RouteLimits = LIMITS
    telemetry: Telemetry | None = None
    lender: Lender | None = None
    part: Part = WHOLE
    changed: Callable[[str, str | None], Awaitable[None]] | None = None
    revoked: Callable[[str], Awaitable[None]] | None = None

    @property
    def ready_telemetry(self) -> Telemetry | None:
        """The telemetry that the ready-made parts use."""
        return self.telemetry or (self.agent.telemetry if self.agent is not None else None)
