"""What is promised of async calls, with one guard after the other taken out: each is missed by the test that names it.

The promises: a 202 only for what is kept; exactly one end for each accepted call; only the holder of the current lease
runs, ends or settles; a lease outlives its work; a call that can never run ends as an error; what was accepted is
queued, running or ended at every look.
"""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from tests.conformance import test_queues as queues
from tests.support.async_world import AsyncWorld, away, call
from tests.support.clock import FakeClock
from tests.support.mutants import mutant
from tests.support.queue_time import BoltAtHand, QueueAtHand, queue_at_hand
from tests.unit import test_accept as accept
from tests.unit import test_consumer as consumer

from hearth.access import local
from hearth.access.local import LocalAccess
from hearth.agent import consumer as agent_consumer
from hearth.agent import settler
from hearth.agent.consumer import Consumer
from hearth.agent.settler import Settler
from hearth.models.call import ERROR, FINAL, QUEUED, RUNNING, SUCCESS
from hearth.models.errors import CallNotFound
from hearth.queues import redis, sqlite
from hearth.queues.open import open_queue
from hearth.queues.sqlite import SqliteQueue

#: Seconds for which a scenario over a mutant waits for what will not come.
PATIENCE_S = 1.0

Scenario = Callable[[AsyncWorld], Awaitable[None]]


@pytest.fixture
async def world() -> AsyncIterator[AsyncWorld]:
    clock = FakeClock()
    queue = await open_queue("memory://", clock, visibility_s=consumer.VISIBILITY_S)
    world = AsyncWorld(queue, clock)
    yield world
    for hold in world.faults.holds.values():
        hold.set()  # a scenario that failed lets nobody go
    await world.access.close()
    await queue.close()


async def test_what_was_accepted_is_queued_running_or_ended_at_every_step(world: AsyncWorld) -> None:
    """At every step that may take time. Some fail: their calls come back, and none is lost or ends twice."""
    accepted: list[str] = []

    def look() -> None:
        assert {world.store.status(one) for one in accepted} <= {QUEUED, RUNNING, *FINAL}
        for one in accepted:
            past = world.store.history[one]
            assert [status for status in past if status in FINAL] == past[2:], past

    async def accept_more(first: int) -> None:
        for number in range(first, 20, 2):
            await world.accept(f"{number}")
            accepted.append(f"{number}")

    world.faults.look = look
    world.faults.once = {step: away() for step in ("add_calls", "submit", "start_calls", "put_calls", "settle")}
    async with world.node(max_waiting=3), world.node(max_waiting=3):
        await asyncio.gather(accept_more(0), accept_more(1))
        await world.ended(*accepted, step_s=0.05)
    look()
    assert len(accepted) == 20
    assert await world.is_empty()


async def test_a_call_that_another_node_runs_is_not_failed_here(world: AsyncWorld) -> None:
    """Guard: a failure, too, is recorded only after the compare and swap of the start."""
    await world.accept("a")
    await world.store.start_calls([msgspec.structs.replace(call("a"), status=RUNNING)])
    async with world.node(quiet_s=1000) as agent:
        agent.too_large = {"a"}
        await world.until(lambda: world.faults.reached["release"] > 0)
    assert world.store.history["a"] == [QUEUED, RUNNING]


async def test_a_message_that_nobody_can_read_ends_its_call(world: AsyncWorld) -> None:
    """Guard: the look at what the queue says of the message."""
    await world.accept("a", "b")
    world.faults.garbled["a"] = "an encoding of the future"
    async with world.node():
        await world.ended("a", "b")
    assert (world.store.status("a"), world.executed) == (ERROR, ["b"])
    assert "an encoding of the future" in world.store.calls["a"].error
    assert await world.is_empty()


async def test_a_node_that_dies_before_it_settled_runs_no_ended_call_again(tmp_path: Path) -> None:
    """Its file is taken as a crash leaves it. Guard: the compare and swap of the start."""
    place = BoltAtHand(FakeClock(), tmp_path)
    queue = await place.open()
    world = AsyncWorld(queue, place.clock)
    await world.accept("a", "b")
    world.faults.holds["settle"] = asyncio.Event()
    async with world.node():
        await world.until(lambda: world.faults.arrived["settle"] > 0)
        await world.ended("a", "b")
        left = place.as_a_crash_leaves_it(tmp_path / "left")
        world.faults.holds["settle"].set()
    await world.access.close()
    await queue.close()

    again = await left.open()
    world.follow(again)
    async with world.node():
        place.clock.advance(again.visibility_s + 1)
        await world.until(lambda: world.faults.reached["settled"] == 4)
    assert sorted(world.executed) == ["a", "b"]
    assert world.store.history == {one: [QUEUED, RUNNING, SUCCESS] for one in "ab"}
    assert await world.is_empty()
    await again.close()


async def test_what_was_pushed_outlives_a_crash(tmp_path: Path) -> None:
    """Guard: the commit before the word that it is kept."""
    place = BoltAtHand(FakeClock(), tmp_path)
    async with queues.opened(place) as queue:
        await queue.push([queues.call("a"), queues.call("b")])
        left = place.as_a_crash_leaves_it(tmp_path / "left")
    async with queues.opened(left) as queue:
        assert await queues.names(queue) == ["a", "b"]


# -- without the guard ----------------------------------------------------------------------------------------------


def take_out(patch: pytest.MonkeyPatch, module: types.ModuleType, kind: type, guard: str, instead: str) -> None:
    """Have a class work as if one of its guards were not there."""
    changed = getattr(mutant(module, guard, instead), kind.__name__)
    for name, member in vars(changed).items():
        if inspect.isfunction(member):
            patch.setattr(kind, name, member)


CONSUMER = (agent_consumer, Consumer)
ACCESS = (local, LocalAccess)
_RENEWED = "for call_id, run in self._runs.items()}\n        if not runs"
_TAKEN_OVER = "await self._take_over(call, run)\n        return await self._agent.record_failure"
_PUSHED = 'with span("mq_push"):\n            await self._queue.push(calls)'
_SWAPPED = "if found:\n            raise AlreadyStarted(found)"

GUARDS: dict[str, tuple[tuple[types.ModuleType, type], str, str, Scenario]] = {
    "the client is told although the queue did not take the call": (
        ACCESS,
        _PUSHED,
        "pass",
        consumer.test_an_accepted_call_is_seen_at_each_step_and_its_message_is_gone_after_its_end,
    ),
    "the record is made before the message": (
        ACCESS,
        f"{_PUSHED}\n        return [await self._recorded(calls)] * len(calls)",
        "recorded = await self._recorded(calls)\n        await self._queue.push(calls)\n"
        "        return [recorded] * len(calls)",
        accept.test_the_message_is_kept_before_the_record_is,
    ),
    "the client is told although there is no record": (
        ACCESS,
        "return [await self._recorded(calls)] * len(calls)",
        "return [await self._recorded(calls) or True] * len(calls)",
        test_what_was_accepted_is_queued_running_or_ended_at_every_step,
    ),
    "a call that had ended is run again": (
        ACCESS,
        _SWAPPED,
        "pass",
        consumer.test_a_call_that_is_pushed_again_after_its_end_runs_once,
    ),
    "a call that another runs is run": (
        ACCESS,
        _SWAPPED,
        "pass",
        consumer.test_a_call_whose_node_died_while_it_ran_is_told_not_run_again,
    ),
    "a message is forgotten before its call's end is recorded": (
        CONSUMER,
        "return active.stored or await self._stored_at_last(active)",
        "return True",
        consumer.test_an_end_that_could_not_be_stored_is_stored_when_the_store_is_back,
    ),
    "a call that was running when its node died is not told": (
        CONSUMER,
        "await self._access.interrupted(call)",
        "pass",
        consumer.test_a_call_whose_node_died_while_it_ran_is_told_not_run_again,
    ),
    "a call is started under a lease that has ended": (
        CONSUMER,
        "if self._clock.monotonic() >= run.until:",
        "if False:",
        consumer.test_a_call_is_not_started_under_a_lease_that_has_ended,
    ),
    "who lost its lease ends what another runs": (
        CONSUMER,
        "if await self._access.renew([run.lease]) != [True]:",
        "if False:",
        consumer.test_who_lost_its_lease_does_not_end_what_another_runs,
    ),
    "a node that was away tells of calls that others ran": (
        CONSUMER,
        "if self._clock.monotonic() < self._quiet_until:",
        "if False:",
        consumer.test_a_node_that_was_away_first_hears_how_calls_ended,
    ),
    "a running call is failed": (
        CONSUMER,
        _TAKEN_OVER,
        "return await self._agent.record_failure",
        test_a_call_that_another_node_runs_is_not_failed_here,
    ),
    "the leases of running calls are not renewed": (
        CONSUMER,
        _RENEWED,
        _RENEWED.replace("}", " if run.waiting}"),
        consumer.test_a_lease_outlives_the_work_it_covers,
    ),
    "the leases of waiting calls are not renewed": (
        CONSUMER,
        _RENEWED,
        _RENEWED.replace("}", " if not run.waiting}"),
        consumer.test_a_lease_outlives_the_wait_for_a_container,
    ),
    "a renewed lease is thought to end as before": (
        CONSUMER,
        "run.until = until",
        "pass",
        consumer.test_a_lease_outlives_the_wait_for_a_container,
    ),
    "a call that is too large for the node waits for ever": (
        CONSUMER,
        "self._agent.check_capacity(function)",
        "pass",
        consumer.test_a_call_too_large_for_the_node_ends,
    ),
    "a message that nobody can read is run": (
        CONSUMER,
        "raise InvalidMessage(reserved.fault)",
        "pass",
        test_a_message_that_nobody_can_read_ends_its_call,
    ),
    "a message that was not settled is forgotten here": (
        (settler, Settler),
        "return False",
        "break",
        consumer.test_a_message_is_settled_when_the_queue_is_back_and_does_not_come_back,
    ),
}


@pytest.mark.parametrize("removed", GUARDS)
async def test_a_removed_guard_of_the_agent_is_missed(
    removed: str, world: AsyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, guard, instead, scenario = GUARDS[removed]
    world.patience_s = PATIENCE_S
    with monkeypatch.context() as patch:
        take_out(patch, *owner, guard, instead)
        world.follow(world.queue)  # what the world was made with has its guards
        with pytest.raises((AssertionError, TimeoutError, CallNotFound, BaseExceptionGroup)):
            await scenario(world)


async def _pushed_outlives_a_crash(place: QueueAtHand) -> None:
    assert isinstance(place, BoltAtHand)
    await test_what_was_pushed_outlives_a_crash(place.file.parent.parent)


async def _given_back_is_not_held(place: QueueAtHand) -> None:
    async with queues.opened(place) as queue:
        await queues.test_what_is_given_back_can_be_had_at_once_or_later(queue, place)


async def _earlier_lease_is_worthless(place: QueueAtHand) -> None:
    async with queues.opened(place) as queue:
        await queue.push([queues.call("a")])
        (earlier,) = await queue.reserve(1)
        await place.advance(queue.visibility_s + 1)
        (current,) = await queue.reserve(1)
        assert await queue.renew([earlier.lease]) == [False]
        assert await queue.settle([earlier.lease]) == [False]
        assert await queue.settle([current.lease]) == [True]


async def _renewed_lasts(place: QueueAtHand) -> None:
    async with queues.opened(place) as queue:
        await queues.test_a_renewed_lease_lasts(queue, place)


async def _pushed_again_is_one(place: QueueAtHand) -> None:
    async with queues.opened(place) as queue:
        await queues.test_a_call_that_is_pushed_again_has_one_message(queue)


GUARDS_OF_THE_QUEUE: dict[str, tuple[str, str, Callable[[QueueAtHand], Awaitable[None]]]] = {
    "an accepted call is not committed": (
        "with self._db:\n            self._db.executemany(_INSERT, rows)",
        "self._db.executemany(_INSERT, rows)",
        _pushed_outlives_a_crash,
    ),
    "a later reservation has the same lease": (
        'suffix = f".{self._run}.{next(self._numbers)}"',
        'suffix = ".1"',
        _earlier_lease_is_worthless,
    ),
    "a lease outlives its message's return": (
        "SET ready = ?, lease = NULL, visible_ms",
        "SET ready = ?, visible_ms",
        _given_back_is_not_held,
    ),
    "a renewal is not kept": (
        "self._leases.update({lease: until for lease, known in zip(leases, found, strict=True) if known})",
        "pass",
        _renewed_lasts,
    ),
    "a call has two messages": (
        "encode_call(call), call.id) for call in calls",
        "encode_call(call), None) for call in calls",
        _pushed_again_is_one,
    ),
}


@pytest.mark.parametrize("removed", GUARDS_OF_THE_QUEUE)
async def test_a_removed_guard_of_the_queue_is_missed(
    removed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, instead, scenario = GUARDS_OF_THE_QUEUE[removed]
    with monkeypatch.context() as patch:
        take_out(patch, sqlite, SqliteQueue, guard, instead)
        with pytest.raises(AssertionError):
            await scenario(BoltAtHand(FakeClock(), tmp_path))


GUARDS_OF_REDIS: dict[str, tuple[str, str, Callable[[QueueAtHand], Awaitable[None]]]] = {
    "an earlier lease is taken for the current one": (
        ' and redis.call("HGET", deliveries, name) == delivery then',
        " then",
        _earlier_lease_is_worthless,
    ),
    "what was given back is held": (
        'redis.call("ZSCORE", leased, name) and ',
        "",
        _given_back_is_not_held,
    ),
    "a renewal is not kept": (
        'redis.call("ZADD", leased, until_ms, name)',
        "",
        _renewed_lasts,
    ),
    "a call has two messages": (
        'redis.call("HEXISTS", names, id) == 0',
        "true",
        _pushed_again_is_one,
    ),
}


@pytest.mark.parametrize("removed", GUARDS_OF_REDIS)
async def test_a_removed_guard_of_the_queue_in_redis_is_missed(
    removed: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, instead, scenario = GUARDS_OF_REDIS[removed]
    script = redis._SCRIPT.read_text()
    assert script.count(guard) == 1
    changed = tmp_path / "mutant.lua"
    changed.write_text(script.replace(guard, instead))
    place = queue_at_hand("redis", request, tmp_path)
    await scenario(place)
    with monkeypatch.context() as patch:
        patch.setattr(redis, "_SCRIPT", changed)
        with pytest.raises(AssertionError):
            await scenario(queue_at_hand("redis", request, tmp_path))
