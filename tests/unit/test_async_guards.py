"""Promises of async calls. ``make mutants`` takes their guards out one by one.

The promises: a 202 only for what is kept; exactly one end for each accepted call; only the holder of the current lease
runs, ends or acknowledges; a lease outlives its work; a call that can never run ends as an error; what was accepted is
queued, running or ended at every look.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.conformance import test_queues as queues
from tests.support.async_world import AsyncWorld, away, call
from tests.support.clock import FakeClock
from tests.support.queue_time import BoltAtHand
from tests.unit import test_consumer as consumer

from hearth.access.base import EndedCall
from hearth.models.call import ERROR, FINAL, QUEUED, RUNNING, SUCCESS, Call
from hearth.models.retry import NONE, RetryPolicy
from hearth.queues.open import open_queue


@pytest.fixture
async def world() -> AsyncIterator[AsyncWorld]:
    clock = FakeClock()
    queue = await open_queue("memory://", clock, visibility_s=consumer.VISIBILITY_S)
    world = AsyncWorld(queue, clock)
    yield world
    for hold in world.faults.holds.values():
        hold.set()  # a scenario that failed lets nobody go
    await world.close()
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
    world.faults.once = {step: away() for step in ("add_calls", "submit", "start_calls", "put_calls", "acknowledge")}
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
    async with world.node(quiet_s=1000, max_misfits=1) as agent:
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


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_message_that_does_not_name_its_call_is_kept_with_it(tmp_path: Path, recorded: bool) -> None:
    place = BoltAtHand(FakeClock(), tmp_path)
    queue = await place.open()
    world = AsyncWorld(queue, place.clock)
    await world.accept("a", "b")
    if not recorded:
        world.store.calls.clear()
    await world.close()
    await queue.close()
    place.garble(b"\xff{")
    again = await place.open()
    world.follow(again)
    async with world.node():
        await world.ended("a", "b")
    stored = world.store.calls["a"]
    assert (stored.status, stored.path, stored.dead) == (ERROR, "/p" if recorded else "?", True)
    assert (world.store.payloads, world.executed) == ({"a": b"\xff{"}, ["b"])
    assert await world.is_empty()
    await world.close()
    await again.close()


async def test_a_node_that_dies_before_it_acknowledged_runs_no_ended_call_again(tmp_path: Path) -> None:
    """Its file is taken as a crash leaves it. Guard: the compare and swap of the start."""
    place = BoltAtHand(FakeClock(), tmp_path)
    queue = await place.open()
    world = AsyncWorld(queue, place.clock)
    await world.accept("a", "b")
    world.faults.holds["acknowledge"] = asyncio.Event()
    async with world.node():
        await world.until(lambda: world.faults.arrived["acknowledge"] > 0)
        await world.ended("a", "b")
        left = place.as_a_crash_leaves_it(tmp_path / "left")
        world.faults.holds["acknowledge"].set()
    await world.close()
    await queue.close()

    again = await left.open()
    world.follow(again)
    async with world.node():
        place.clock.advance(again.visibility_s + 1)
        await world.until(lambda: world.faults.reached["acknowledged"] == 4)
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


# -- retries ----------------------------------------------------------------------------------------------------------

POLICY = RetryPolicy(attempts=3, backoff_s=1, jitter=NONE)
STEPS = ("retry", "retry answered", "retry_calls", "start_calls", "start_calls stored", "put_calls", "acknowledge")


def retried(call_id: str, policy: RetryPolicy = POLICY) -> Call:
    return msgspec.structs.replace(call(call_id), retry=policy, attempt=1)


@pytest.mark.parametrize("broken", [*STEPS, ""])
async def test_attempts_are_numbered_and_end_once_whatever_step_fails(world: AsyncWorld, broken: str) -> None:
    """Guards: the message is replaced before the record; a start and an end compare attempts."""
    if broken:
        world.faults.once = {broken: away()}
    async with world.node(max_waiting=3) as one, world.node(max_waiting=3) as other:
        for agent in (one, other):
            agent.failing = {"recovers": (1, 2), "never": (1, 2, 3)}
        for call_id in ("fine", "recovers", "never"):
            await world.accepted.enqueue(retried(call_id))
        await world.ended("fine", "recovers", "never", step_s=0.05)
    ends = {one.id: (one.status, one.attempt, len(one.attempts)) for one in world.store.calls.values()}
    expected = {"fine": (SUCCESS, 1, 0), "recovers": (SUCCESS, 3, 2), "never": (ERROR, 3, 2)}
    lost = [name for name in expected if ends[name] != expected[name]]
    # a start that was stored without an answer is a call that may have run: without "interrupted" it ends
    assert len(lost) <= (broken == "start_calls stored"), ends
    assert all(ends[name][0] == ERROR for name in lost), ends
    if not lost:
        assert sorted(world.executed) == sorted(["fine", *["recovers"] * 3, *["never"] * 3])
    for past in world.store.history.values():
        assert [status for status in past if status in FINAL] == past[-1:], past
    assert await world.is_empty()


async def test_the_next_attempt_may_come_back_before_the_last_one_has_left(world: AsyncWorld) -> None:
    """Guard: the attempt of a call that comes back to its node. Its message is there before the answer is."""
    world.faults.holds["retry_calls"] = asyncio.Event()  # after the message, before the answer
    async with world.node() as agent:
        agent.failing = {"a": (1,)}
        await world.accepted.enqueue(retried("a", msgspec.structs.replace(POLICY, backoff_s=0)))
        await world.until(lambda: world.executed == ["a", "a"])
        world.faults.holds.pop("retry_calls").set()
        await world.ended("a")
    assert (world.store.status("a"), world.store.calls["a"].attempt) == (SUCCESS, 2)
    assert await world.is_empty()


async def test_a_call_waits_for_its_next_attempt_in_the_queue_and_nowhere_else(world: AsyncWorld) -> None:
    async with world.node() as agent:
        agent.failing = {"a": (1,)}
        await world.accepted.enqueue(retried("a", msgspec.structs.replace(POLICY, backoff_s=100)))
        await world.until(lambda: world.store.calls["a"].attempt == 2)
        assert (world.store.status("a"), agent.running, agent.waiting) == (QUEUED, set(), set())
        assert "calls=0" in repr(agent.consumer)
        world.clock.advance(90)
        assert await world.queue.reserve(1) == []
    async with world.node():
        world.clock.advance(11)
        await world.ended("a", step_s=0.05)
    assert world.executed == ["a", "a"]


async def test_the_deliveries_of_an_attempt_do_not_delay_the_next_one(world: AsyncWorld) -> None:
    """Each attempt is given back once. Guard: the deliveries that count are those of the present attempt."""
    policy = msgspec.structs.replace(POLICY, attempts=8, backoff_s=0)
    refused: set[int] = set()
    async with world.node() as agent:
        agent.failing = {"a": tuple(range(1, 8))}

        def look() -> None:
            if len(agent.attempts) not in refused:
                refused.add(len(agent.attempts))
                world.faults.once["start_calls"] = away()

        world.faults.look = look
        began = world.clock.monotonic()
        await world.accepted.enqueue(retried("a", policy))
        await world.ended("a", step_s=0.1)
    assert world.store.calls["a"].attempt == 8
    assert 8 <= world.clock.monotonic() - began < 16
    assert await world.is_empty()


async def test_a_call_that_started_in_time_may_be_tried_again_after_its_expiry(world: AsyncWorld) -> None:
    """Guard: only the first attempt of a call expires."""
    expiring = msgspec.structs.replace(
        retried("a", msgspec.structs.replace(POLICY, backoff_s=5)),
        expires_at=world.clock.now() + dt.timedelta(seconds=1),
    )
    async with world.node() as agent:
        agent.failing = {"a": (1,)}
        await world.accepted.enqueue(expiring)
        await world.ended("a", step_s=0.05)
    assert world.clock.now() > expiring.expires_at
    assert (world.store.status("a"), world.store.calls["a"].attempt) == (SUCCESS, 2)
    assert world.executed == ["a", "a"]


@pytest.mark.parametrize("names_it", [True, False])
async def test_an_interrupted_attempt_is_followed_by_another_only_if_the_policy_names_that(
    world: AsyncWorld, names_it: bool
) -> None:
    """Guard: ``interrupted`` is in no policy by itself."""
    policy = msgspec.structs.replace(POLICY, on=("interrupted",) if names_it else POLICY.on)
    await world.accepted.enqueue(retried("a", policy))
    (reserved,) = await world.queue.reserve(1)  # its node starts it, and dies
    await world.records.start(msgspec.structs.replace(reserved.call, status=RUNNING))
    world.clock.advance(consumer.VISIBILITY_S * 2)
    async with world.node():
        await world.ended("a", step_s=0.05)
    stored = world.store.calls["a"]
    assert (stored.status, stored.attempt) == ((SUCCESS, 2) if names_it else (ERROR, 1))
    assert world.executed == (["a"] if names_it else [])


async def test_the_end_of_an_attempt_that_is_over_changes_nothing(world: AsyncWorld) -> None:
    """Guard: an end compares attempts. Its node was cut off, and another one has started the next attempt."""
    await world.accepted.enqueue(retried("a", msgspec.structs.replace(POLICY, on=("interrupted",))))
    (reserved,) = await world.queue.reserve(1)
    await world.records.start(msgspec.structs.replace(reserved.call, status=RUNNING))
    world.clock.advance(consumer.VISIBILITY_S * 2)
    async with world.node() as agent:
        agent.finish.clear()
        await world.until(lambda: "a" in agent.running, step_s=0.05)
        late = msgspec.structs.replace(reserved.call, status=SUCCESS, completed_at=world.clock.now())
        await world.records.finish_many([EndedCall(late, b"")])
        assert (world.store.status("a"), world.store.calls["a"].attempt) == (RUNNING, 2)
        agent.finish.set()
        await world.ended("a", step_s=0.05)
    assert world.store.calls["a"].attempt == 2
