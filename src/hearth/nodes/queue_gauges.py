"""The gauges of the queue, on every node that has one."""

from __future__ import annotations

from typing import Final

from hearth.aio.background import BackgroundService
from hearth.aio.clock import Clock, pause
from hearth.models.errors import HearthError
from hearth.queues.base import Queue
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics

#: Seconds between two looks, each of which takes less than a millisecond.
_PERIOD_S: Final = 5.0

_log = get_logger(__name__)


class QueueGauges(BackgroundService):
    """Measures the queue every few seconds, while this async context manager is entered.

    Args:
        queue: The queue.
        clock: The age is that of its wall time.
        metrics: The metrics of the node.
    """

    def __init__(self, queue: Queue, clock: Clock, metrics: Metrics) -> None:
        super().__init__(lambda exc: _log.error("the queue is no longer measured", exc_info=exc))
        self._queue = queue
        self._clock = clock
        self._length = metrics.gauge("hearth_queue_length")
        self._oldest_age = metrics.gauge("hearth_queue_oldest_age_seconds")

    async def measure(self) -> None:
        """Measure now. An age below 0 comes from a clock that was set, or from that of another node."""
        backlog = await self._queue.backlog()
        age_s = (self._clock.now() - backlog.oldest).total_seconds() if backlog.oldest else 0.0
        self._length.set(backlog.length)
        self._oldest_age.set(max(0.0, age_s))

    async def _run(self) -> None:
        while True:
            try:
                await self.measure()
            except HearthError as exc:  # the gauges keep their last values
                _log.debug("queue not measured", error=str(exc))
            await pause(self._clock, _PERIOD_S)
