"""What schedules cost while few of them are due: the CPU of a node's loop, with and without schedules.

``python -m bench.schedules [--schedules 10000] [--seconds 65] [--rounds 3]``. The schedules fire each night, at minutes
of their own; so in a window of seconds some fire, as on a node with so many.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import random
import statistics
import time

from tests.support.databases import folder

from hearth.access.local import LocalAcceptedCalls
from hearth.aio.clock import SystemClock, pause
from hearth.models.app import App
from hearth.models.errors import MAX_SCHEDULES
from hearth.models.ids import IdGenerator
from hearth.models.route import Route
from hearth.models.schedule import Definition, Schedule, schedule_of
from hearth.models.timing import Timing
from hearth.queues.open import open_queue
from hearth.schedules.scheduler import Scheduler
from hearth.server.scheduled_calls import ScheduledCalls
from hearth.stores.datastore import Datastore
from hearth.stores.sql import open_datastore
from hearth.telemetry.node import Telemetry

CLOCK = SystemClock()
LIMIT_PERCENT = 1.0


async def fill(store: Datastore, count: int) -> None:
    """Store schedules of as many apps as they need."""
    chance = random.Random(1)
    now = dt.datetime.now(dt.UTC)
    for number in range(count):
        app = f"a{number // MAX_SCHEDULES}"
        if number % MAX_SCHEDULES == 0:
            await store.insert_app(App(name=app, id=app))
            await store.insert_route(Route(app_name=app, path="/f", image="f:1"))
        timing = Timing(cron=f"{chance.randrange(60)} {chance.randrange(24)} * * *", timezone="Europe/Berlin")
        await put(store, app, f"s{number}", Definition(function="/f", timing=timing, payload="x" * 200), now)


async def put(store: Datastore, app: str, name: str, rule: Definition, now: dt.datetime) -> Schedule:
    """Store a schedule."""
    return await store.put_schedule(
        app, name, lambda app_id, stored: schedule_of(rule, app, app_id, name, stored, name, now)
    )


async def measure(count: int, seconds: float) -> tuple[float, int]:
    """Return the percents of a core that a scheduler takes, and how many calls it has made."""
    with folder() as place:
        store, queue = await open_datastore(f"sqlite3://{place}/fn.db"), await open_queue(f"bolt://{place}/mq", CLOCK)
        accepted, telemetry = LocalAcceptedCalls(queue, store, CLOCK), Telemetry()
        await fill(store, count)
        make_call, next_id = ScheduledCalls(store, store).make, IdGenerator(1, CLOCK.now_ns)
        async with Scheduler(store, store, accepted, make_call, CLOCK, next_id, telemetry):
            await pause(CLOCK, 1.0)
            began, cpu = time.monotonic(), time.process_time()
            await pause(CLOCK, seconds)
            used = 100 * (time.process_time() - cpu) / (time.monotonic() - began)
        made = sum(series.value for _, series in telemetry.metrics.counter("hearth_schedule_calls").all())
        await accepted.close()
        await queue.close()
        await store.close()
        return used, int(made)


def main() -> None:
    """Print the median of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=65.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for count in (0, given.schedules):
        found = [asyncio.run(measure(count, given.seconds)) for _ in range(given.rounds)]
        median = statistics.median(percent for percent, _ in found)
        calls = sum(made for _, made in found)
        print(f"{count} schedules: {median:.3f} % of a core (limit {LIMIT_PERCENT:g} %), {calls} calls made")


if __name__ == "__main__":
    main()
