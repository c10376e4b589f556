"""Accepting async calls: the message, then the record, whatever fails between the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.support.async_world import AsyncWorld, away, call
from tests.support.clock import FakeClock

from hearth.models.call import QUEUED, RUNNING, SUCCESS, Call
from hearth.models.errors import StoreRefused, StoreUnavailable
from hearth.queues.open import open_queue


@pytest.fixture
async def world() -> AsyncIterator[AsyncWorld]:
    clock = FakeClock()
    queue = await open_queue("memory://", clock)
    world = AsyncWorld(queue, clock)
    yield world
    await world.close()
    await queue.close()


async def test_what_the_queue_did_not_take_does_not_exist(world: AsyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: the message is pushed, and confirmed, before the record is made and the client is told."""

    async def push(_calls: object) -> None:
        raise away()

    monkeypatch.setattr(world.queue, "push", push)
    with pytest.raises(StoreUnavailable):
        await world.accept("a")
    assert world.store.calls == {}


async def test_the_message_is_kept_before_the_record_is(world: AsyncWorld) -> None:
    """A crash between the two leaves a message, which runs; the other way round a record would wait for ever."""
    world.faults.holds["add_calls"] = asyncio.Event()
    accepting = asyncio.ensure_future(world.accept("a"))
    await world.until(lambda: world.faults.arrived["add_calls"] > 0)
    assert not accepting.done()
    assert [one.call.id for one in await world.queue.reserve(1)] == ["a"]
    assert world.store.calls == {}
    world.faults.holds["add_calls"].set()
    await accepting
    assert world.store.status("a") == QUEUED


async def test_a_record_that_comes_after_the_start_changes_nothing(world: AsyncWorld) -> None:
    """Guard: a queued record is added only where there is none."""
    world.faults.holds["add_calls"] = asyncio.Event()
    accepting = asyncio.ensure_future(world.accept("a"))
    async with world.node():
        await world.ended("a")
        world.faults.holds["add_calls"].set()
        await accepting
    assert world.store.history["a"] == [RUNNING, SUCCESS]


async def test_a_record_that_failed_is_made_before_the_client_is_told(world: AsyncWorld) -> None:
    """Guard: the second group commit, of records that come late."""
    world.faults.once["add_calls"] = away()
    await world.accept("a")
    assert world.store.status("a") == QUEUED


async def test_a_client_does_not_wait_for_a_dead_datastore(world: AsyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hearth.access.local.RECORD_WAIT_S", 0.05)
    world.faults.broken["add_calls"] = away()
    await world.accept("a", "b")
    assert world.store.calls == {}
    del world.faults.broken["add_calls"]
    await world.until(lambda: len(world.store.calls) == 2, step_s=0.1)
    assert world.store.status("b") == QUEUED


async def test_the_start_makes_the_record_that_the_accept_could_not(
    world: AsyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hearth.access.local.RECORD_WAIT_S", 0.05)
    world.faults.broken["add_calls"] = away()
    await world.accept("a")
    async with world.node():
        await world.ended("a")
    del world.faults.broken["add_calls"]
    assert world.store.history["a"] == [RUNNING, SUCCESS]
    assert world.executed == ["a"]
    world.clock.advance(1)


async def test_a_client_that_leaves_while_its_call_is_accepted_takes_nothing_back(world: AsyncWorld) -> None:
    accepting = asyncio.ensure_future(world.accepted.enqueue(call("a")))
    await asyncio.sleep(0)
    accepting.cancel()
    await world.until(lambda: world.store.status("a") == QUEUED)
    async with world.node():
        await world.ended("a")
    assert world.executed == ["a"]


async def test_a_start_that_the_datastore_refuses_keeps_no_other_from_starting(
    world: AsyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come in one commit, of calls that have nothing to do with each other."""
    start_calls = world.store.start_calls

    async def refuse(calls: list[Call]) -> list[str]:
        if any(one.id == "bad" for one in calls):
            raise StoreRefused("too long")
        return await start_calls(calls)

    monkeypatch.setattr(world.store, "start_calls", refuse)
    starts = [world.records.start(call(name)) for name in ("a", "bad", "b")]
    first, bad, last = await asyncio.gather(*starts, return_exceptions=True)
    assert (first, last) == (None, None)
    assert isinstance(bad, StoreRefused)
    assert set(world.store.calls) == {"a", "b"}
