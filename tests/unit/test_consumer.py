"""The consumer: what it takes, when, and what it does when a step fails. Each invariant names the guard it watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.support.async_world import AsyncWorld, Faults, StubAgent, away, call
from tests.support.clock import FakeClock

from hearth.models.call import ERROR, QUEUED, RUNNING, SUCCESS
from hearth.models.errors import InternalError
from hearth.queues.open import open_queue
from hearth.telemetry import metrics

VISIBILITY_S = 2.0


@pytest.fixture
async def world() -> AsyncIterator[AsyncWorld]:
    clock = FakeClock()
    queue = await open_queue("memory://", clock, visibility_s=VISIBILITY_S)
    world = AsyncWorld(queue, clock)
    yield world
    await world.access.close()
    await queue.close()


async def test_an_accepted_call_is_seen_at_each_step_and_its_message_is_gone_after_its_end(world: AsyncWorld) -> None:
    await world.accept("a")
    assert world.store.status("a") == QUEUED
    async with world.node():
        await world.ended("a")
    assert world.store.history["a"] == [QUEUED, RUNNING, SUCCESS]
    assert world.executed == ["a"]
    assert await world.is_empty()


# -- what it takes, and when ----------------------------------------------------------------------------------------


async def test_nothing_is_taken_without_room_for_async_calls(world: AsyncWorld) -> None:
    """Guard: the look at ``has_async_room`` before each dequeue."""
    async with world.node() as agent:
        agent.room = False
        await world.accept("a")
        await world.until(lambda: world.faults.reached["has_async_room"] > 0)
        (reserved,) = await world.queue.reserve(1)  # it can still be had by another node
        await world.queue.release(reserved.lease)
        agent.room = True
        agent.on_room()
        await world.ended("a")


async def test_no_more_calls_wait_here_than_may(world: AsyncWorld) -> None:
    """Guard: the limit of each dequeue."""
    async with world.node(max_waiting=2) as agent:
        agent.slots.clear()
        await world.accept("a")
        await world.until(lambda: len(agent.waiting) == 1)
        await world.queue.push([call(name) for name in "bcdef"])
        await world.until(lambda: len(agent.waiting) >= 2)
        assert [one.call.id for one in await world.queue.reserve(10)] == ["c", "d", "e", "f"]


async def test_a_running_call_is_not_counted_as_waiting(world: AsyncWorld) -> None:
    await world.accept(*"abcd")
    async with world.node(max_waiting=1) as agent:
        agent.finish.clear()
        await world.until(lambda: len(agent.running) == 4)
        agent.finish.set()
        await world.ended(*"abcd")


async def test_an_idle_node_stops_at_once(world: AsyncWorld) -> None:
    """Guard: the cancellation of both loops; here no time passes at all."""
    async with asyncio.timeout(10), world.node():
        await world.until(lambda: world.faults.reached["dequeue"] > 0)


async def test_shutdown_gives_back_what_was_not_started_and_finishes_what_was(world: AsyncWorld) -> None:
    """Guard: the release after ServerBusy; without it the lease would have to expire."""
    await world.accept("running")
    async with world.node() as agent:
        agent.finish.clear()
        await world.until(lambda: "running" in agent.running)
        agent.slots.clear()
        await world.accept("a", "b")
        await world.until(lambda: len(agent.waiting) == 2)
        asyncio.get_running_loop().call_soon(agent.drain)
        asyncio.get_running_loop().call_later(0.05, agent.finish.set)
    assert world.store.status("running") == SUCCESS
    assert [one.call.id for one in await world.queue.reserve(10)] == ["a", "b"]
    assert world.executed == ["running"]


async def test_a_call_that_found_no_slot_is_tried_again_later(world: AsyncWorld) -> None:
    await world.accept("a")
    async with world.node() as agent:
        agent.slots.clear()
        await world.until(lambda: "a" in agent.waiting)
        agent.drain()  # whoever waits is told that the server is busy
        await world.until(lambda: not agent.waiting)
    assert world.store.status("a") == QUEUED
    async with world.node():
        await world.ended("a", step_s=0.1)
    assert world.executed == ["a"]


# -- a step fails ---------------------------------------------------------------------------------------------------

STEPS = [
    "dequeue",
    "has_async_room",
    "accepted_function",
    "check_capacity",
    "accepted_call",
    "submit",
    "start_calls",
    "start_calls stored",
    "put_calls",
    "settle",
    "renew",
]


@pytest.mark.parametrize("kind", [RuntimeError, type(away())])
@pytest.mark.parametrize("step", STEPS)
async def test_whatever_fails_once_the_next_call_runs_and_the_first_one_ends(
    world: AsyncWorld, step: str, kind: type[Exception]
) -> None:
    """Guard: the boundaries of the loops and of each call."""
    await world.accept("first")
    world.faults.once[step] = kind("out of order")
    async with world.node() as agent:
        if step == "renew":
            agent.finish.clear()
        await world.until(lambda: step not in world.faults.once, step_s=0.1)
        agent.finish.set()
        await world.accept("next")
        await world.ended("next", "first", step_s=0.1)
        await world.until(lambda: world.faults.reached["settled"] >= 2, step_s=0.1)
    assert world.store.status("next") == SUCCESS
    assert world.executed.count("first") <= 1
    assert world.executed.count("next") == 1
    assert await world.is_empty()


async def test_a_call_that_is_given_back_in_vain_comes_back_by_its_expiry(world: AsyncWorld) -> None:
    await world.accept("a")
    world.faults.once["start_calls"] = away()
    world.faults.once["release"] = away()
    async with world.node():
        await world.ended("a", step_s=0.1)
    assert world.executed == ["a"]


async def test_an_end_that_could_not_be_stored_is_stored_when_the_store_is_back(world: AsyncWorld) -> None:
    """Guard: the message is held, and the record tried again; else the call would end as interrupted."""
    await world.accept("a")
    world.faults.broken["put_calls"] = away()
    async with world.node():
        await world.until(lambda: world.faults.reached["put_calls"] > 5, step_s=VISIBILITY_S / 4)
        assert world.store.status("a") == RUNNING
        del world.faults.broken["put_calls"]
        await world.ended("a", step_s=0.1)
    assert world.store.history["a"] == [QUEUED, RUNNING, SUCCESS]
    assert world.executed == ["a"]
    assert await world.is_empty()


async def test_a_message_is_settled_when_the_queue_is_back_and_does_not_come_back(world: AsyncWorld) -> None:
    """Guard: settling is tried again before the lease ends."""
    await world.accept("a")
    world.faults.broken["settle"] = away()
    async with world.node():
        await world.until(lambda: world.faults.reached["settle"] == 1)
        del world.faults.broken["settle"]
        await world.until(lambda: world.faults.reached["settle"] == 2, step_s=VISIBILITY_S / 10)
        await world.until(lambda: world.clock.monotonic() > 5 * VISIBILITY_S, step_s=0.1)
    assert world.faults.reached["start"] == 1
    assert await world.is_empty()


async def test_shutdown_does_not_wait_for_a_store_that_is_away(world: AsyncWorld) -> None:
    await world.accept("a")
    world.faults.broken["put_calls"] = away()
    async with world.node():
        await world.until(lambda: world.faults.reached["put_calls"] > 0)
        asyncio.get_running_loop().call_later(0.05, world.clock.advance, 1.5)
    del world.faults.broken["put_calls"]
    async with world.node():  # the next run of the node finds it
        await world.ended("a", step_s=0.1)
    assert world.store.status("a") == ERROR
    assert world.executed == ["a"]


async def test_its_health_is_that_of_its_looks_into_the_queue(world: AsyncWorld) -> None:
    """Guard: a failure is remembered until a look succeeds."""
    age, length = metrics.gauge("hearth_queue_oldest_age_seconds"), metrics.gauge("hearth_queue_length")
    async with world.node() as agent:
        consumer = agent.consumer
        agent.room = False
        await world.until(lambda: world.faults.reached["has_async_room"] > 0)
        await world.queue.push([msgspec.structs.replace(call("a"), created_at=world.clock.now())])
        world.clock.advance(90)
        await consumer.check()
        assert (length.get(), age.get()) == (1, 90)
        world.faults.broken["dequeue"] = away()
        agent.room = True
        agent.on_room()
        await world.until(lambda: world.faults.reached["dequeue"] > 0)
        with pytest.raises(InternalError, match="error fetching queued calls: away"):
            await consumer.check()
        del world.faults.broken["dequeue"]
        await world.ended("a", step_s=0.5)
        await consumer.check()
        assert length.get() == 0


async def test_an_outage_of_the_queue_is_told_when_it_begins_and_when_it_ends(world: AsyncWorld) -> None:
    with capture_logs() as logs:
        world.faults.broken["dequeue"] = away()
        async with world.node():
            await world.until(lambda: world.faults.reached["dequeue"] > 3, step_s=0.5)
            del world.faults.broken["dequeue"]
            await world.queue.push([call("a")])
            await world.ended("a", step_s=0.5)
    told = [line["event"] for line in logs if "queued calls" in line["event"]]
    assert told == ["error fetching queued calls", "queued calls are fetched again"]


# -- leases ---------------------------------------------------------------------------------------------------------


async def test_a_lease_outlives_the_work_it_covers(world: AsyncWorld) -> None:
    """Visibility 2 s, job 6 s, two consumers: one execution. Guard: the renewal of running calls."""
    await world.accept("a")
    async with world.node() as one, world.node() as other:
        one.finish.clear()
        other.finish.clear()
        await world.until(lambda: bool(one.running or other.running))
        begun = world.clock.monotonic()
        await world.until(lambda: world.clock.monotonic() - begun > 3 * VISIBILITY_S, step_s=0.05)
        assert world.store.status("a") == RUNNING
        one.finish.set()
        other.finish.set()
        await world.ended("a")
    assert world.executed == ["a"]
    assert world.store.history["a"] == [QUEUED, RUNNING, SUCCESS]


async def test_a_lease_outlives_the_wait_for_a_container(world: AsyncWorld) -> None:
    """Guard: the renewal of waiting calls."""
    await world.accept("a")
    async with world.node(max_waiting=1) as agent:
        agent.slots.clear()
        await world.until(lambda: "a" in agent.waiting)
        begun = world.clock.monotonic()
        await world.until(lambda: world.clock.monotonic() - begun > 3 * VISIBILITY_S, step_s=0.05)
        agent.slots.set()
        await world.ended("a")
    assert world.executed == ["a"]


async def test_a_call_is_not_started_under_a_lease_that_has_ended(world: AsyncWorld) -> None:
    """Guard: the look at the lease's time in the take-over."""
    await world.accept("a")
    world.faults.broken["renew"] = away()
    async with world.node(max_waiting=1) as agent:
        agent.slots.clear()
        await world.until(lambda: "a" in agent.waiting)
        world.clock.advance(VISIBILITY_S + 0.1)
        agent.slots.set()
        await world.until(lambda: "a" not in agent.waiting)
        await world.until(lambda: world.faults.reached["release"] > 0)
        assert world.faults.reached["start_calls"] == 0
        assert world.executed == []
        del world.faults.broken["renew"]
        await world.ended("a", step_s=0.1)
    assert world.executed == ["a"]


async def test_who_lost_its_lease_does_not_end_what_another_runs(world: AsyncWorld) -> None:
    """Guard: the look at the lease before a running call is declared interrupted."""
    slow = Faults()
    slow.holds["start"] = asyncio.Event()
    await world.accept("a")
    async with world.node(max_waiting=1, faults=slow):
        await world.until(lambda: slow.arrived["start"] == 1)
        slow.broken["renew"] = slow.broken["dequeue"] = away()
        world.clock.advance(VISIBILITY_S + 0.1)
        async with world.node(max_waiting=1) as other:
            other.finish.clear()
            await world.until(lambda: "a" in other.running)
            del slow.broken["renew"]
            slow.holds["start"].set()
            await world.until(lambda: slow.reached["release"] > 0)
            assert world.store.status("a") == RUNNING
            other.finish.set()
            await world.ended("a")
    assert world.executed == ["a"]
    assert world.store.history["a"] == [QUEUED, RUNNING, SUCCESS]


async def test_a_lease_lost_while_running_leads_to_no_second_execution(world: AsyncWorld) -> None:
    """Guards: the compare and swap of the start, and that of the end."""
    await world.accept("a")
    cut_off = Faults()
    async with world.node(faults=cut_off) as one:
        one.finish.clear()
        await world.until(lambda: "a" in one.running)
        cut_off.broken["renew"] = cut_off.broken["dequeue"] = away()
        one.room = False
        async with world.node():
            await world.until(lambda: world.store.status("a") == ERROR, step_s=0.1)
        one.finish.set()
        await world.until(lambda: not one.running)
    assert world.executed == ["a"]
    assert world.store.history["a"] == [QUEUED, RUNNING, ERROR]  # what a client has read as final stays
    assert await world.is_empty()


# -- a message that came back ---------------------------------------------------------------------------------------


async def test_a_call_whose_node_died_while_it_ran_is_told_not_run_again(world: AsyncWorld) -> None:
    """Guard: the compare and swap of the start."""
    await world.accept("a")
    await world.store.start_calls([call("a")])
    world.store.calls["a"].status = RUNNING
    async with world.node():
        await world.ended("a")
    assert world.store.status("a") == ERROR
    assert "the server stopped while the call was running" in world.store.calls["a"].error
    assert world.executed == []
    assert await world.is_empty()


async def test_a_node_that_was_away_first_hears_how_calls_ended(world: AsyncWorld) -> None:
    """Guard: the quiet time before a running call is declared interrupted."""
    await world.accept("a", "b", "c")
    for name in "ab":
        await world.store.start_calls([msgspec.structs.replace(call(name), status=RUNNING)])
    begun = world.clock.monotonic()
    async with world.node(quiet_s=3):
        await world.ended("c")
        await world.until(lambda: world.faults.reached["release"] == 2)
        assert [world.store.status(name) for name in "ab"] == [RUNNING, RUNNING]
        await world.store.put_calls([(msgspec.structs.replace(call("a"), status=SUCCESS), None)])  # its runner tells
        await world.ended("b", step_s=0.1)
        assert world.clock.monotonic() - begun >= 3
        await world.until(lambda: world.faults.reached["settled"] == 3, step_s=0.1)
    assert world.store.history["a"] == [QUEUED, RUNNING, SUCCESS]
    assert world.store.history["b"] == [QUEUED, RUNNING, ERROR]
    assert world.executed == ["c"]
    assert await world.is_empty()


async def test_a_start_that_was_stored_but_not_answered_leads_to_no_execution(world: AsyncWorld) -> None:
    await world.accept("a")
    world.faults.once["start_calls stored"] = away()
    async with world.node():
        await world.ended("a", step_s=0.1)
    assert world.store.history["a"] == [QUEUED, RUNNING, ERROR]
    assert world.executed == []


@pytest.mark.parametrize("oversized", [False, True])
async def test_a_message_that_comes_back_after_the_end_changes_nothing(world: AsyncWorld, oversized: bool) -> None:
    """Guard: a failure, too, is recorded only after the compare and swap of the start."""
    await world.accept("a")
    world.faults.broken["settle"] = away()
    async with world.node():
        await world.ended("a")
    del world.faults.broken["settle"]
    async with world.node() as agent:
        agent.too_large = {"a"} if oversized else set()
        await world.until(lambda: world.faults.reached["settled"] == 1, step_s=0.1)
    assert world.store.history["a"] == [QUEUED, RUNNING, SUCCESS]
    assert world.executed == ["a"]
    assert await world.is_empty()


async def test_a_call_that_is_pushed_again_after_its_end_runs_once(world: AsyncWorld) -> None:
    """Guard: the compare and swap of the start."""
    await world.accept("a")
    async with world.node():
        await world.until(lambda: world.faults.reached["settled"] == 1)
        await world.queue.push([call("a")])
        await world.until(lambda: world.faults.reached["settled"] == 2)
    assert world.executed == ["a"]
    assert world.store.history["a"] == [QUEUED, RUNNING, SUCCESS]
    assert await world.is_empty()


# -- what can never run ---------------------------------------------------------------------------------------------


async def test_a_call_too_large_for_the_node_ends(world: AsyncWorld) -> None:
    """Guard: the capacity check before the call is submitted."""
    await world.accept("a", "b")
    async with world.node() as agent:
        agent.too_large = {"a"}
        await world.ended("a", "b")
    assert world.store.calls["a"].error == "Timed out - server too busy"
    assert world.executed == ["b"]
    assert await world.is_empty()


async def test_a_call_that_was_handed_out_again_and_again_ends(
    world: AsyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: the limit of deliveries."""
    monkeypatch.setattr("hearth.agent.consumer._MAX_DELIVERIES", 3)
    await world.accept("a")
    for _ in range(3):  # nodes that died before they started it
        assert await world.queue.reserve(1)
        world.clock.advance(VISIBILITY_S + 0.1)
    async with world.node():
        await world.ended("a")
    assert "never started" in world.store.calls["a"].error
    assert world.executed == []
    assert await world.is_empty()


async def ten_ahead(world: AsyncWorld, agent: StubAgent, names: list[str]) -> None:
    """No container is free; 20 calls have ended, one waits, and of the others as many are taken as the pace allows."""
    await world.accept(*names[:20])
    await world.ended(*names[:20])
    agent.slots.clear()
    world.clock.advance(0.5)  # 20 calls in half a second are 10 in a quarter
    await world.accept(names[20])
    await world.until(lambda: len(agent.waiting) == 1)
    await world.queue.push([call(name) for name in names[21:]])


async def test_the_next_call_stands_in_line_before_the_start_of_the_one_before_is_stored(world: AsyncWorld) -> None:
    """Guard: a call leaves the line when it has its container. Else a free one finds nobody, until that commit."""
    names = [f"{number:03}" for number in range(30)]
    async with world.node(max_waiting=2) as agent:
        await ten_ahead(world, agent, names)
        await world.until(lambda: len(agent.waiting) == 2 and "waiting=10" in repr(agent.consumer))
        hold = world.faults.holds["start_calls"] = asyncio.Event()
        agent.slots.set()
        await world.until(lambda: world.faults.reached["submit"] == 30)
        assert "waiting=10" in repr(agent.consumer)
        hold.set()
        await world.ended(*names)


async def test_more_short_calls_are_taken_ahead_and_shutdown_gives_them_back(world: AsyncWorld) -> None:
    """Guards: the pace; the limit of calls that wait for a container; going back without a try."""
    names = [f"{number:03}" for number in range(40)]
    async with world.node(max_waiting=2) as agent:
        await ten_ahead(world, agent, names)
        await world.until(lambda: len(agent.waiting) == 2)
        await world.until(lambda: "waiting=10" in repr(agent.consumer))
        assert len(agent.waiting) == 2
    left = [one.call.id for one in await world.queue.reserve(100)]
    assert left == names[20:]
    assert len(world.executed) == 20
