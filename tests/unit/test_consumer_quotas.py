"""Accepted calls whose app has quotas: they wait, and no other call waits for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tests.support.async_world import AsyncWorld, StubAgent, call
from tests.support.clock import FakeClock

from hearth.agent.shares import Share
from hearth.async_calls import consumer
from hearth.models.call import QUEUED, SUCCESS
from hearth.models.quotas import Quotas
from hearth.queues.sqlite import open_memory

BACKLOG = [f"a{number}" for number in range(40)]


@pytest.fixture
async def world() -> AsyncIterator[AsyncWorld]:
    clock = FakeClock()
    queue = await open_memory("memory://", clock)
    world = AsyncWorld(queue, clock)
    yield world
    await world.close()
    await queue.close()


def limited(agent: StubAgent, quotas: Quotas) -> Share:
    """Give quotas to the app of the calls whose ids begin with a; all other calls are another app's."""
    agent.share.set_quotas(quotas)
    shares = {"a": agent.share, "b": Share("b")}

    def function(spec: str) -> Any:
        found: Any = type("Function", (), {"share": shares[spec[0]]})
        return found

    agent.function = function  # type: ignore[method-assign]
    return agent.share


@pytest.mark.parametrize("quotas", [Quotas(concurrent_calls=2), Quotas(memory_mib=300)], ids=["calls", "memory"])
async def test_calls_over_a_quota_wait_without_an_attempt_and_keep_nobody_out(
    world: AsyncWorld, quotas: Quotas
) -> None:
    """More calls than may wait for a container at all."""
    async with world.node(max_waiting=8) as agent:
        limited(agent, quotas)
        agent.finish.clear()
        await world.accept(*BACKLOG, "b")
        await world.until(lambda: "b" in agent.running, step_s=0.1)
        assert sorted(agent.running) == ["a0", "a1", "b"]
        assert world.faults.reached["release"] == 0
        agent.finish.set()
        await world.ended(*BACKLOG, "b", step_s=0.1)
    assert sorted(world.executed) == sorted([*BACKLOG, "b"])
    assert await world.is_empty()


async def test_a_function_at_its_limit_keeps_no_other_function_of_its_app_out(world: AsyncWorld) -> None:
    """Guard: its further calls go back to the queue, and are no reason to give up a call."""
    async with world.node(max_waiting=4) as agent:
        agent.finish.clear()
        for name in BACKLOG:
            await world.accepted.enqueue(msgspec.structs.replace(call(name), path="/limited", max_concurrent=2))
        await world.accept("other")
        await world.until(lambda: "other" in agent.running, step_s=0.1)
        assert sorted(agent.running) == ["a0", "a1", "other"]
        agent.finish.set()
        await world.ended(*BACKLOG, "other", step_s=0.5)
    assert sorted(world.executed) == sorted([*BACKLOG, "other"])
    assert await world.is_empty()


async def test_no_more_calls_of_a_function_run_than_its_limit_says(world: AsyncWorld) -> None:
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(agent.running))

    async with world.node(max_waiting=8) as agent:
        world.faults.look = look
        for name in BACKLOG:
            await world.accepted.enqueue(msgspec.structs.replace(call(name), max_concurrent=3))
        await world.ended(*BACKLOG, step_s=0.5)
    assert (most <= 3, len(world.executed)) == (True, len(BACKLOG))


async def test_a_node_that_stops_gives_back_the_calls_that_wait_for_the_limit(world: AsyncWorld) -> None:
    async with world.node() as agent:
        agent.finish.clear()
        for name in ("a", "b"):
            await world.accepted.enqueue(msgspec.structs.replace(call(name), max_concurrent=1))
        await world.until(lambda: agent.running == {"a"})
        agent.consumer.stop()
        agent.finish.set()
    assert [one.call.id for one in await world.queue.reserve(10)] == ["b"]


async def test_a_backlog_beyond_all_places_keeps_nobody_out(world: AsyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "MAX_HELD_BACK", 4)
    monkeypatch.setattr(consumer, "MAX_DELIVERIES", 3)  # a quota is no reason to end a call
    async with world.node(max_waiting=2) as agent:
        limited(agent, Quotas(concurrent_calls=1))
        agent.finish.clear()
        await world.accept(*BACKLOG, "b")
        await world.until(lambda: "b" in agent.running, step_s=0.2)
        for _ in range(5):
            reached = world.faults.reached["release"]
            await world.until(lambda: world.faults.reached["release"] > reached + 40, step_s=1)  # noqa: B023
        agent.finish.set()
        await world.ended(*BACKLOG, "b", step_s=0.5)
    assert all(world.store.status(one) == SUCCESS for one in [*BACKLOG, "b"])
    assert sorted(world.executed) == sorted([*BACKLOG, "b"])


async def test_calls_go_on_when_their_quota_is_lifted(world: AsyncWorld) -> None:
    async with world.node() as agent:
        share = limited(agent, Quotas(concurrent_calls=1))
        agent.finish.clear()
        await world.accept("a0", "a1", "a2")
        await world.until(lambda: "waiting=2" in repr(share))
        share.set_quotas(Quotas())
        await world.until(lambda: len(agent.running) == 3)
        agent.finish.set()
        await world.ended("a0", "a1", "a2", step_s=0.1)


async def test_a_call_that_waits_for_a_quota_survives_the_stop_of_its_node(world: AsyncWorld) -> None:
    async with world.node() as agent:
        share = limited(agent, Quotas(concurrent_calls=1))
        share.running = 1
        await world.accept("a0")
        await world.until(lambda: "waiting=1" in repr(share))
    assert (world.executed, world.store.status("a0")) == ([], QUEUED)
    async with world.node():
        await world.ended("a0", step_s=0.1)
    assert world.executed == ["a0"]


async def test_the_deadline_of_a_call_counts_from_its_delivery(world: AsyncWorld) -> None:
    made: list[float] = []
    async with world.node() as agent:
        share = limited(agent, Quotas(concurrent_calls=1))
        share.running = 1
        accepted = agent.accepted_call

        def noted(function: Any, record: Any) -> Any:
            made.append(world.clock.monotonic())
            return accepted(function, record)

        agent.accepted_call = noted  # type: ignore[method-assign, assignment]
        await world.queue.push([msgspec.structs.replace(call("a0"))])
        await world.until(lambda: "waiting=1" in repr(share))
        world.clock.advance(7)
        before = world.clock.monotonic()
        share.leave()
        await world.ended("a0", step_s=0.1)
    assert made[0] >= before
