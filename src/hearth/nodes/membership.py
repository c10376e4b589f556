"""A node reports itself to the node that it belongs to, and drains if that says so."""

from __future__ import annotations

import asyncio
import heapq
import socket
from collections.abc import Callable
from typing import Final

from hearth import __version__
from hearth.access.base import SendReport
from hearth.agent.agent import Agent
from hearth.aio.background import BackgroundService
from hearth.aio.clock import Clock, pause
from hearth.models.errors import ApiError, HearthError
from hearth.models.node import MOST_FUNCTIONS, STATES, FunctionContainers, NodeReport
from hearth.models.times import format_time
from hearth.nodes.foundation import Foundation
from hearth.nodes.identity import node_id
from hearth.nodes.node import Node
from hearth.server.fleet import PERIOD_S
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics

#: Seconds until the next report to an API node that knows no reports: a newer one may have replaced it.
_UNKNOWN_S: Final = 600.0
_NO_SUCH_REQUEST: Final = frozenset({404, 405})

_log = get_logger(__name__)


class Membership:
    """The report of a node on itself.

    Args:
        node: The node.
        name: Its id.
        port: On which it listens.
    """

    def __init__(self, base: Foundation, node: Node, name: str, port: int) -> None:
        self._node = node
        self._id = name
        self._port = port
        self._host = socket.gethostname()[:255]
        self._started_at = format_time(base.clock.now())
        self._metrics = base.telemetry.metrics

    @classmethod
    async def of(cls, base: Foundation, node: Node, port: int, other_id: str) -> Membership:
        """Return that of a node; without a data folder, it has another id at each start."""
        data = base.settings.data
        is_kept = await asyncio.to_thread(data.is_dir)
        return cls(base, node, await asyncio.to_thread(node_id, data) if is_kept else other_id.lower(), port)

    def report(self) -> NodeReport:
        """Return what the node is and does now."""
        agent, node = self._node.agent, self._node
        functions = containers_of(self._metrics)
        return NodeReport(
            id=self._id,
            type=node.type,
            host=self._host,
            port=self._port,
            version=__version__,
            driver=node.driver,
            started_at=self._started_at,
            draining=not node.ready,
            memory_mib=0 if agent is None else agent.pool.resources.total.memory_mib,
            used_mib=0 if agent is None else agent.pool.resources.used.memory_mib,
            cpu_milli=0 if agent is None else agent.pool.resources.total.cpu_milli,
            running=_running(agent),
            containers=sum(one.total for one in functions),
            functions=heapq.nlargest(MOST_FUNCTIONS, functions, key=lambda one: one.total),
        )


class Reporter(BackgroundService):
    """Reports a node every few seconds, while this async context manager is entered.

    Args:
        report: What to send.
        send: Sends it.
        drain: Called once the API node says that this node is to drain.
    """

    def __init__(
        self, report: Callable[[], NodeReport], send: SendReport, drain: Callable[[], None], clock: Clock
    ) -> None:
        super().__init__(lambda exc: _log.error("the node reports itself no longer", exc_info=exc))
        self._report = report
        self._send = send
        self._drain = drain
        self._clock = clock

    async def _run(self) -> None:
        while True:
            await pause(self._clock, await self._once())

    async def _once(self) -> float:
        """Report once; return the seconds until the next time."""
        report = self._report()
        try:
            is_to_drain = await self._send(report)
        except ApiError as exc:
            if exc.code in _NO_SUCH_REQUEST:
                return _UNKNOWN_S
        except HearthError as exc:  # another request reports the outage
            _log.debug("node not reported", error=str(exc))
        else:
            if is_to_drain and not report.draining:
                _log.info("the API node asks this node to drain")
                self._drain()
                return 0.0
        return PERIOD_S


def containers_of(metrics: Metrics) -> list[FunctionContainers]:
    """Return the containers of each function that has some."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for state in STATES:
        for labels, series in metrics.gauge(f"fn_container_{state}_total").all():
            if series.value > 0:
                counts.setdefault(labels, {})[state] = int(series.value)
    return [FunctionContainers(app=app, function=name, **found) for (app, name), found in counts.items()]


def _running(agent: Agent | None) -> int:
    return 0 if agent is None else agent.stats.total.running
