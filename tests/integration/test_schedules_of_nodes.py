"""Schedulers of several nodes over one database, in virtual time: each firing is exactly one call."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.support.clock import FakeClock
from tests.support.dying import Dying

from hearth.access.base import AlreadyStarted, EndedCall
from hearth.access.local import LocalAcceptedCalls, LocalCallRecords
from hearth.models.app import App
from hearth.models.call import SUCCESS, Call
from hearth.models.errors import StoreUnavailable
from hearth.models.ids import IdGenerator
from hearth.models.route import Route
from hearth.models.schedule import ALL, ONCE, SKIP, Definition, schedule_of
from hearth.models.times import parse_time
from hearth.models.timing import Timing
from hearth.queues.open import open_queue
from hearth.schedules.scheduler import LOOK_S, TAKE_OVER_S, Scheduler
from hearth.server.scheduled_calls import ScheduledCalls
from hearth.stores.datastore import Datastore
from hearth.stores.sql import open_datastore
from hearth.telemetry.node import Telemetry

#: Clocks in Berlin skip an hour on 29 March 2026.
WEEK = dt.datetime(2026, 3, 26, tzinfo=dt.UTC)
BERLIN = "Europe/Berlin"
SECOND = dt.timedelta(seconds=1)


class World:
    """A database, a queue, and a consumer that runs what comes out of the queue."""

    def __init__(self, store: Datastore, accepted: LocalAcceptedCalls, queue: Any, clock: FakeClock) -> None:
        self.store, self.accepted, self.queue, self.clock = store, accepted, queue, clock
        self.records = LocalCallRecords(store, None)
        self.next_id = IdGenerator(1, clock.now_ns)
        self.ran: list[Call] = []
        self.telemetry = Telemetry()

    def node(self, dies: Callable[[str], bool] = lambda step: False) -> Scheduler:
        """Return the scheduler of a node that has just started."""
        return Scheduler(
            Dying(self.store, dies),  # type: ignore[arg-type] # it passes on whatever is asked for
            self.store,
            Dying(self.accepted, dies),  # type: ignore[arg-type] # likewise
            ScheduledCalls(self.store, self.store).make,
            self.clock,
            self.next_id,
            self.telemetry,
        )

    async def put(self, name: str, timing: Timing, **rule: Any) -> None:
        definition = Definition(function="/f", timing=timing, **rule)
        now = self.clock.now()
        await self.store.put_schedule(
            "a", name, lambda app_id, stored: schedule_of(definition, "a", app_id, name, stored, f"id-{name}", now)
        )

    async def consume(self, *, ends: bool = True) -> None:
        """Run every call in the queue that was not started before."""
        while reserved := await self.queue.reserve(100, ()):
            for one in reserved:
                call = one.call
                with contextlib.suppress(AlreadyStarted):
                    await self.records.start(call)
                    self.ran.append(call)
                    if ends:
                        call.status = SUCCESS
                        await self.records.finish_many([EndedCall(call, b"")])
            await self.queue.acknowledge([one.lease for one in reserved])

    def due(self, name: str) -> Counter[dt.datetime]:
        """Count the calls of a schedule that ran, by their firing times."""
        mine = [call for call in self.ran if call.headers["Fn-Schedule"] == [name]]
        assert all(call.origin == f"schedule {name}" for call in mine)
        return Counter(parse_time(call.headers["Fn-Schedule-Time"][0]) for call in mine)


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    clock = FakeClock()
    clock.set_wall((WEEK - clock.now()).total_seconds())
    store, queue = await open_datastore(database), await open_queue("memory://", clock)
    accepted = LocalAcceptedCalls(queue, store, clock)
    await store.insert_app(App(name="a", id="A"))
    await store.insert_route(Route(app_name="a", path="/f", image="f:1"))
    yield World(store, accepted, queue, clock)
    await accepted.close()
    await queue.close()
    await store.close()


async def look(*nodes: Scheduler) -> list[float | BaseException]:
    """Let some nodes look at the same time."""
    return await asyncio.gather(*[node.look() for node in nodes], return_exceptions=True)


async def test_a_week_over_a_change_of_clocks_on_two_nodes_that_die(world: World, database: str) -> None:
    days = 7 if database.startswith("sqlite") else 2
    world.clock.set_wall(0 if days == 7 else 2 * 86_400)
    begin, end = world.clock.now(), world.clock.now() + dt.timedelta(days=days)
    timings = {
        "hourly": Timing(cron="0 * * * *", timezone=BERLIN),
        "nightly": Timing(cron="30 2 * * *", timezone=BERLIN),
        "often": Timing(every="43m"),
        "once": Timing(at=f"{begin + dt.timedelta(hours=30):%Y-%m-%dT%H:%M:%SZ}"),
    }
    for name, timing in timings.items():
        await world.put(name, timing, if_missed=ALL)
    chance = random.Random(1)
    deaths: Counter[str] = Counter()

    def dies(step: str) -> bool:
        is_write = step.split()[1] in ("claim_firings", "enqueue", "settle_firings", "take_over")
        if is_write and chance.random() < 0.08:
            deaths[step] += 1
            return True
        return False

    nodes = [world.node(dies), world.node(dies)]
    while world.clock.now() < end:
        found = await look(*nodes)
        for number, outcome in enumerate(found):
            if isinstance(outcome, BaseException):
                assert "Killed" in repr(outcome), repr(outcome)
                nodes[number] = world.node(dies)
        await world.consume()
        earliest = await world.store.next_due()
        assert earliest is not None
        wait_s = (min(earliest, end) - world.clock.now()).total_seconds()
        world.clock.advance(max(1.0, min(wait_s, chance.choice([5.0, TAKE_OVER_S, 1800.0]))))
    survivor = world.node()
    for _ in range(3):
        world.clock.advance(TAKE_OVER_S + 1)
        await look(survivor)
        await world.consume()
    assert len(deaths) >= (8 if days == 7 else 1), deaths  # at nearly every step
    assert not await world.store.stale_firings(world.clock.now(), 9)
    for name, timing in timings.items():
        expected = timing.newest(begin + SECOND, world.clock.now(), begin, 10_000)
        assert world.due(name) == Counter(expected), name


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "step",
    [
        *("before claim_firings", "after claim_firings", "before enqueue", "after enqueue"),
        *("before settle_firings", "after settle_firings"),
    ],
)
async def test_a_node_that_dies_at_any_step_makes_one_call_of_a_firing(world: World, step: str) -> None:
    await world.put("s", Timing(at="2026-03-26T01:00:00Z"), if_missed=ONCE)
    world.clock.advance(3600)
    assert "Killed" in repr(await look(world.node(lambda reached: reached == step)))
    world.clock.advance(TAKE_OVER_S + 1)
    await look(world.node(), world.node())
    await world.consume()
    assert world.due("s") == Counter({WEEK + dt.timedelta(hours=1): 1})


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_each_time_that_a_jumping_clock_shows_is_one_call_however_often_it_shows(world: World) -> None:
    await world.put("s", Timing(every="10m"), if_missed=ONCE)
    node = world.node()
    shown = set()
    for jump_s in (0, 5 * 3600, -5 * 3600, -3600, 30 * 86_400, -30 * 86_400 + 3600):
        world.clock.set_wall(jump_s)
        for _ in range(13):
            world.clock.advance(300)
            assert await node.look() <= LOOK_S
            await world.consume()
            if world.clock.now().minute % 10 == 0:
                shown.add(world.clock.now())
    assert len(shown) >= 25
    assert world.due("s") == Counter(shown | set(world.due("s")))
    assert len(set(world.due("s")) - shown) <= 2  # each jump forward made up for what it skipped by one call


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_node_that_starts_after_its_clock_was_corrected_fires_again(world: World) -> None:
    await world.put("s", Timing(every="10m"))
    world.clock.set_wall(400 * 86_400)
    await look(world.node())
    world.clock.set_wall(-400 * 86_400)
    node = world.node()
    await look(node)
    world.clock.advance(600)
    await look(node)
    await world.consume()
    assert world.due("s")[WEEK + dt.timedelta(minutes=10)] == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_no_call_overlaps_the_last_one_if_that_is_to_be_skipped(world: World) -> None:
    await world.put("s", Timing(every="10m"), overlap=SKIP)
    await world.put("t", Timing(every="10m"))
    node = world.node()
    for ends in (False, False, True):
        world.clock.advance(600)
        await look(node)
        await world.consume(ends=ends)
    assert [len(world.due(name)) for name in "st"] == [1, 3]
    first = world.ran[0]
    first.status = SUCCESS
    await world.records.finish_many([EndedCall(first, b"")])
    world.clock.advance(600)
    await look(node)
    await world.consume()
    assert sorted(world.due("s")) == [WEEK + dt.timedelta(minutes=10), WEEK + dt.timedelta(minutes=40)]
    skipped = world.telemetry.metrics.counter("hearth_schedule_skipped").series("a").value
    assert skipped == 2


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_queue_that_fails_delays_a_call_and_a_function_that_is_gone_ends_it(world: World) -> None:
    await world.put("s", Timing(at="2026-03-26T01:00:00Z"))
    world.clock.advance(3600)

    class NoQueue:
        async def enqueue(self, call: Call) -> None:
            raise StoreUnavailable("the queue is away")

    make_call = ScheduledCalls(world.store, world.store).make
    broken = Scheduler(world.store, world.store, NoQueue(), make_call, world.clock, world.next_id, world.telemetry)
    await look(broken)
    assert not world.ran
    world.clock.advance(TAKE_OVER_S + 1)
    await look(world.node())
    await world.consume()
    assert len(world.due("s")) == 1
    await world.put("t", Timing(every="10m"))
    await world.store.remove_route("a", "/f")
    world.clock.advance(600)
    await look(world.node())
    assert not await world.store.stale_firings(world.clock.now() + SECOND, 9)  # nobody tries it again
    assert world.telemetry.metrics.counter("hearth_schedule_failed").series("a").value == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_running_scheduler_wakes_for_a_firing_and_for_a_change_and_stops(world: World) -> None:
    async with world.node() as node:
        await world.put("s", Timing(every="3s"))
        node.wake()
        while not world.ran:
            await asyncio.to_thread(lambda: None)  # what the database does lets time pass, and nothing else does
            if world.clock.pending:
                world.clock.advance(1)
            await world.consume()
        node.stop()
    await world.consume()  # it may have begun the next firing
    ran = len(world.ran)
    world.clock.advance(60)
    assert await node.look() <= LOOK_S
    await world.consume()
    assert len(world.ran) == ran
