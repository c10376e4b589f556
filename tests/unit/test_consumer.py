"""The consumer: what it takes, when, and what it does when a step fails. Each invariant names the guard it watches."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.support.async_world import AsyncWorld, Faults, StubAgent, away, call
from tests.support.clock import FakeClock
from tests.support.scrape import Watch

from hearth.async_calls.consumer import CANCEL_LOOK_S, MAX_HELD_BACK_OF_APP
from hearth.async_calls.line import Line
from hearth.models.call import CANCELLED, ERROR, QUEUED, RUNNING, SUCCESS, Call
from hearth.models.destination import callback_of
from hearth.models.errors import InternalError, StoreRefused
from hearth.models.quotas import Quotas
from hearth.queues.open import open_queue

VISIBILITY_S = 2.0


@pytest.fixture
async def world() -> AsyncIterator[AsyncWorld]:
    clock = FakeClock()
    queue = await open_queue("memory://", clock, visibility_s=VISIBILITY_S)
    world = AsyncWorld(queue, clock)
    yield world
    await world.close()
    await queue.close()


async def test_an_accepted_call_is_seen_at_each_step_and_its_message_is_gone_after_its_end(world: AsyncWorld) -> None:
    await world.accept("a")
    assert world.store.status("a") == QUEUED
    async with world.node():
        await world.ended("a")
    assert world.store.history["a"] == [QUEUED, RUNNING, SUCCESS]
    assert world.executed == ["a"]
    assert await world.is_empty()


# -- cancelled calls ------------------------------------------------------------------------------------------------


async def test_a_cancelled_call_that_runs_here_or_elsewhere_is_ended(world: AsyncWorld) -> None:
    """Guard: the look for calls that were cancelled through another node."""
    await world.accept("here", "elsewhere")
    async with world.node() as agent:
        agent.finish.clear()
        await world.until(lambda: agent.running == {"here", "elsewhere"})
        for call_id in ("here", "elsewhere"):
            assert await world.cancel(call_id)
        agent.consumer.cancel("here")
        await world.until(lambda: agent.running == {"elsewhere"})
        world.clock.advance(CANCEL_LOOK_S)
        await world.until(lambda: not agent.running)
        assert not await world.cancel("here")
    assert world.store.history == {one: [QUEUED, RUNNING, CANCELLED] for one in ("here", "elsewhere")}
    assert await world.is_empty()


async def test_a_call_that_is_cancelled_while_it_waits_never_starts(world: AsyncWorld) -> None:
    await world.accept("in line", "in the queue")
    async with world.node(max_waiting=1) as agent:
        agent.slots.clear()
        await world.until(lambda: len(agent.waiting) == 1)
        for call_id in ("in line", "in the queue"):
            assert await world.cancel(call_id)
            agent.consumer.cancel(call_id)
        agent.slots.set()
        await world.accept("next")
        await world.ended("next", step_s=0.05)
    assert world.executed == ["next"]
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
        agent.pool.room_changed.set()
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


async def test_an_app_with_a_backlog_keeps_no_other_out(world: AsyncWorld) -> None:
    """Guard: the look for newcomers, while calls of another app take all the places and there is no room."""
    await world.accept(*"abcdefgh")
    async with world.node(max_waiting=2) as agent:
        agent.slots.clear()
        await world.until(lambda: len(agent.waiting) == 2)
        agent.room = False
        await world.accepted.enqueue(msgspec.structs.replace(call("x"), app_name="b"))
        await world.accepted.enqueue(msgspec.structs.replace(call("y"), app_name="b"))
        await world.until(lambda: "x" in agent.waiting, step_s=0.01)
        assert len(agent.waiting - {"x", "y"}) == 2
        agent.room = True
        agent.slots.set()
        await world.ended(*"abcdefghxy")


async def test_calls_that_wait_for_their_quota_leave_further_ones_in_the_queue(world: AsyncWorld) -> None:
    """Guard: the app at the limit is left out. Others are served, and its own calls follow in their order."""
    calls = [f"{number:03}" for number in range(200)]
    await world.accept(*calls)
    async with world.node(max_waiting=100) as agent:
        agent.share.set_quotas(Quotas(concurrent_calls=1))
        agent.finish.clear()
        await world.until(lambda: world.executed == ["000"])
        await world.accepted.enqueue(msgspec.structs.replace(call("x"), app_name="b"))
        await world.until(lambda: (world.faults.reached["submit"], len(agent.running)) == (1, 1))
        backlog = await world.queue.backlog()
        assert backlog.length >= len(calls) - 1 - MAX_HELD_BACK_OF_APP - 100
        agent.finish.set()
        await world.ended(*calls, "x", step_s=0.01)
    assert [one for one in world.executed if one != "x"] == calls


async def test_a_node_that_stops_gives_back_what_it_took_for_newcomers(world: AsyncWorld) -> None:
    await world.accept("a")
    async with world.node(max_waiting=1) as agent:
        agent.slots.clear()
        await world.until(lambda: len(agent.waiting) == 1)
        agent.room = False
        await world.accepted.enqueue(msgspec.structs.replace(call("x"), app_name="b"))
        await world.until(lambda: "x" in agent.waiting, step_s=0.01)
    assert sorted(one.call.id for one in await world.queue.reserve(10)) == ["a", "x"]


def test_apps_take_turns_for_a_container_and_none_waits_for_another() -> None:
    line: Line[str] = Line(2)
    for name in ("a0", "a1", "a2", "b0", "b1", "c0"):
        line.add(name[0], name)
    assert [line.next() for _ in range(4)] == ["a0", "b0", "c0", None]
    assert (line.leave("b"), line.next()) == (True, "b1")  # an app that has none in line is always let in
    assert (line.leave("c"), line.next()) == (False, None)
    assert (line.leave("a"), line.next(), line.next()) == (True, "a1", None)
    assert (line.next(always=True), line.next(always=True)) == ("a2", None)


def test_others_follow_once_half_have_left_the_line() -> None:
    line: Line[str] = Line(4)
    for name in ("a0", "a1", "a2", "a3", "a4"):
        line.add("a", name)
    assert [line.next() for _ in range(5)] == ["a0", "a1", "a2", "a3", None]
    assert [line.leave("a") for _ in range(2)] == [False, True]
    assert line.waiting == 2


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


async def test_each_step_of_an_async_call_is_logged_with_its_id(world: AsyncWorld) -> None:
    await world.accept("a")
    with capture_logs() as logged:
        async with world.node() as agent:
            agent.slots.clear()
            await world.until(lambda: "a" in agent.waiting)
            agent.drain()
            await world.until(lambda: not agent.waiting)
        async with world.node():
            await world.ended("a", step_s=0.1)
    assert [entry["event"] for entry in logged if entry.get("call_id") == "a"] == [
        "call taken from the queue",
        "call given back to the queue",
        "call taken from the queue",
        "call leaves the queue",
    ]


# -- a step fails ---------------------------------------------------------------------------------------------------

STEPS = [
    "dequeue",
    "has_async_room",
    "function_of",
    "check_capacity",
    "accepted_call",
    "submit",
    "start_calls",
    "start_calls stored",
    "put_calls",
    "acknowledge",
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
        await world.until(lambda: world.faults.reached["acknowledged"] >= 2, step_s=0.1)
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


async def test_an_end_that_the_store_refuses_is_stored_without_what_it_may_refuse(world: AsyncWorld) -> None:
    """Guard: the bare record; else the call would say running for ever, and its message be held for ever."""
    await world.accept("a")
    put = world.store.put_calls

    async def picky(ended: Sequence[tuple[Call, bytes | None]]) -> list[bool]:
        if any(one.status == SUCCESS for one, _ in ended):
            raise StoreRefused("a text that no database takes")
        return await put(ended)

    world.store.put_calls = picky  # type: ignore[method-assign]
    async with world.node():
        await world.ended("a", step_s=0.1)
    assert (world.store.status("a"), "a text that no database takes" in world.store.calls["a"].error) == (ERROR, True)
    assert await world.is_empty()


async def test_taking_and_running_a_queued_call_are_spans(world: AsyncWorld) -> None:
    await world.accept("a")
    async with world.node() as agent:
        await world.ended("a")
    watch = Watch(agent.telemetry.metrics)
    assert watch("fn_span_agent_async_dequeue_duration_seconds_count") >= 1
    assert watch("fn_span_agent_async_run_duration_seconds_count", "a", "/p") == 1


async def test_waiting_for_room_is_a_span(world: AsyncWorld) -> None:
    async with world.node() as agent:
        watch = Watch(agent.telemetry.metrics)
        agent.room = False
        agent.pool.room_changed.set()
        await world.until(lambda: world.faults.reached["has_async_room"] > 0)
        await world.accept("a")
        agent.room = True
        agent.pool.room_changed.set()
        await world.ended("a")
        assert watch("fn_span_agent_wait_async_resource_duration_seconds_count") >= 1


async def test_a_message_is_acknowledged_when_the_queue_is_back_and_does_not_come_back(world: AsyncWorld) -> None:
    """Guard: acknowledging is tried again before the lease ends."""
    await world.accept("a")
    world.faults.broken["acknowledge"] = away()
    async with world.node():
        await world.until(lambda: world.faults.reached["acknowledge"] == 1)
        del world.faults.broken["acknowledge"]
        await world.until(lambda: world.faults.reached["acknowledge"] == 2, step_s=VISIBILITY_S / 10)
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
    async with world.node() as agent:
        consumer = agent.consumer
        agent.room = False
        await world.until(lambda: world.faults.reached["has_async_room"] > 0)
        await world.queue.push([call("a")])
        await consumer.check()
        world.faults.broken["dequeue"] = away()
        agent.room = True
        agent.pool.room_changed.set()
        await world.until(lambda: world.faults.reached["dequeue"] > 0)
        with pytest.raises(InternalError, match="error fetching queued calls: away"):
            await consumer.check()
        del world.faults.broken["dequeue"]
        await world.ended("a", step_s=0.5)
        await consumer.check()


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
        world.faults.broken["dequeue"] = away()
        world.clock.advance(VISIBILITY_S + 0.1)
        agent.slots.set()
        await world.until(lambda: "a" not in agent.waiting)
        await world.until(lambda: world.faults.reached["release"] > 0)
        assert world.faults.reached["start_calls"] == 0
        assert world.executed == []
        del world.faults.broken["renew"], world.faults.broken["dequeue"]
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


async def test_an_interrupted_call_ends_after_its_start_although_the_clock_was_set_back(world: AsyncWorld) -> None:
    started_at = world.clock.now()
    await world.accept("a")
    await world.store.start_calls([msgspec.structs.replace(call("a"), status=RUNNING, started_at=started_at)])
    world.clock.set_wall(-3600)
    async with world.node():
        await world.ended("a")
    assert (world.store.status("a"), world.store.calls["a"].completed_at) == (ERROR, started_at)


async def test_a_call_starts_after_it_was_accepted_by_a_node_whose_clock_is_ahead(world: AsyncWorld) -> None:
    ahead = world.clock.now() + dt.timedelta(hours=1)
    await world.accepted.enqueue(msgspec.structs.replace(call("a"), created_at=ahead))
    async with world.node() as node:
        node.finish.clear()
        await world.until(lambda: RUNNING in world.store.history["a"])
        assert world.store.calls["a"].started_at == ahead
        node.finish.set()
        await world.ended("a")


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
        await world.until(lambda: world.faults.reached["acknowledged"] == 3, step_s=0.1)
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
    world.faults.broken["acknowledge"] = away()
    async with world.node():
        await world.ended("a")
    del world.faults.broken["acknowledge"]
    async with world.node(max_misfits=1) as agent:
        agent.too_large = {"a"} if oversized else set()
        await world.until(lambda: world.faults.reached["acknowledged"] == 1, step_s=0.1)
    assert world.store.history["a"] == [QUEUED, RUNNING, SUCCESS]
    assert world.executed == ["a"]
    assert await world.is_empty()


async def test_a_call_that_is_pushed_again_after_its_end_runs_once(world: AsyncWorld) -> None:
    """Guard: the compare and swap of the start."""
    await world.accept("a")
    async with world.node():
        await world.until(lambda: world.faults.reached["acknowledged"] == 1)
        await world.queue.push([call("a")])
        await world.until(lambda: world.faults.reached["acknowledged"] == 2)
    assert world.executed == ["a"]
    assert world.store.history["a"] == [QUEUED, RUNNING, SUCCESS]
    assert await world.is_empty()


# -- what can never run ---------------------------------------------------------------------------------------------


async def test_a_call_too_large_for_the_node_runs_on_a_larger_one(world: AsyncWorld) -> None:
    """Guard: the release of what does not fit; another node need not be quick to get it."""
    await world.accept("a", "b")
    async with world.node() as small:
        small.too_large = {"a"}
        await world.ended("b")
        await world.until(lambda: world.faults.reached["dequeue"] > 6, step_s=0.5)
        assert world.store.status("a") == QUEUED
        async with world.node():
            await world.ended("a", step_s=0.5)
    assert world.store.status("a") == SUCCESS
    assert world.executed == ["b", "a"]
    assert await world.is_empty()


async def test_a_call_too_large_for_every_node_ends_after_ever_rarer_deliveries(world: AsyncWorld) -> None:
    """Guard: the capacity check before the call is submitted, and the bound of such deliveries."""
    await world.accept("a")
    taken: list[float] = []
    async with world.node(max_misfits=5) as agent:
        agent.too_large = {"a"}
        world.faults.look = lambda: taken.append(world.clock.monotonic())
        await world.ended("a", step_s=0.1)
    assert world.store.calls["a"].error.startswith("the call needs 0 MiB: too much for each node that took it, in 5 ")
    assert 1 + 2 + 4 + 8 <= taken[-1] - taken[0] < 20
    assert world.executed == []
    assert await world.is_empty()


async def test_a_call_that_was_handed_out_again_and_again_ends(
    world: AsyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: the limit of deliveries."""
    monkeypatch.setattr("hearth.async_calls.consumer.MAX_DELIVERIES", 3)
    await world.accept("a")
    for _ in range(3):  # nodes that died before they started it
        assert await world.queue.reserve(1)
        world.clock.advance(VISIBILITY_S + 0.1)
    async with world.node():
        await world.ended("a")
    assert "never started" in world.store.calls["a"].error
    assert world.executed == []
    assert await world.is_empty()


async def test_a_call_whose_function_has_a_limit_is_never_given_up(
    world: AsyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: what the limit of deliveries does not count for."""
    monkeypatch.setattr("hearth.async_calls.consumer.MAX_DELIVERIES", 3)
    await world.accepted.enqueue(msgspec.structs.replace(call("a"), max_instances=1))
    for _ in range(5):
        assert await world.queue.reserve(1)
        world.clock.advance(VISIBILITY_S + 0.1)
    async with world.node():
        await world.ended("a")
    assert world.executed == ["a"]


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


async def test_a_record_that_never_reaches_its_destination_joins_the_dead_letters(world: AsyncWorld) -> None:
    sent: list[int] = []

    async def send(call: Call) -> int:
        sent.append(call.attempt)
        raise InternalError("the destination answered 500")

    message = msgspec.structs.replace(call("a"), on_success="https://x/ok")
    callback = callback_of(message, msgspec.structs.replace(message, status=SUCCESS), None, world.clock.now(), "")
    assert callback is not None
    await world.accepted.enqueue(callback)
    async with world.node(send=send) as agent:
        await world.until(lambda: world.store.status("a-callback") == ERROR, step_s=60)
    assert (sent, agent.attempts) == (list(range(1, 9)), [])
    assert world.store.dead["a-callback"].call.error == "the destination answered 500"
    assert world.store.payloads["a-callback"] == callback.payload
    assert await world.is_empty()
