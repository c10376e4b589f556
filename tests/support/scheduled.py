"""The schedules of an API without a queue."""

from __future__ import annotations

from hearth.aio.clock import Clock, SystemClock
from hearth.models.call import Call
from hearth.models.ids import IdGenerator
from hearth.schedules.scheduler import Scheduler
from hearth.server.api_v1.schedules import Schedules
from hearth.server.scheduled_calls import ScheduledCalls
from hearth.stores.datastore import Datastore
from hearth.telemetry.node import Telemetry


class Enqueued:
    """Takes calls.

    Attributes:
        calls: In order.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def enqueue(self, call: Call) -> None:
        """Keep a call."""
        self.calls.append(call)


def schedules_of(datastore: Datastore, clock: Clock | None = None, enqueued: Enqueued | None = None) -> Schedules:
    """Return what serves the schedules of a datastore; nobody fires them."""
    clock = clock or SystemClock()
    make_call = ScheduledCalls(datastore, datastore).make
    next_id = IdGenerator(0, clock.now_ns)
    taken = enqueued or Enqueued()
    scheduler = Scheduler(datastore, datastore, taken, make_call, clock, next_id, Telemetry())
    return Schedules(datastore, clock, next_id, make_call, scheduler)
