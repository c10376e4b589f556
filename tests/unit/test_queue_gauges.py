"""The gauges of the queue follow what waits."""

from __future__ import annotations

import datetime as dt

import msgspec
from tests.support.async_world import call
from tests.support.clock import FakeClock
from tests.support.scrape import Watch

from hearth.nodes.queue_gauges import QueueGauges
from hearth.queues.open import open_queue
from hearth.telemetry.metrics import Metrics


async def test_the_gauges_are_the_number_of_waiting_calls_and_the_age_of_the_oldest() -> None:
    clock, metrics = FakeClock(), Metrics()
    watch = Watch(metrics)
    queue = await open_queue("memory://", clock)
    gauges = QueueGauges(queue, clock, metrics)

    async def shown() -> tuple[float, float]:
        await gauges.measure()
        return watch("hearth_queue_length"), watch("hearth_queue_oldest_age_seconds")

    later = clock.now() + dt.timedelta(hours=1)
    await queue.push([msgspec.structs.replace(call("a"), created_at=clock.now())])
    clock.advance(90)
    assert await shown() == (1, 90)
    (taken,) = await queue.reserve(1)
    await queue.acknowledge([taken.lease])
    assert await shown() == (0, 0)
    await queue.push([msgspec.structs.replace(call("b"), created_at=later)])
    assert await shown() == (1, 0), "the clock of the node that accepted it is ahead"
    await queue.close()
