"""Accepted calls that share a batch: one that the queue refuses takes no other with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from tests.support.async_world import AsyncWorld, call
from tests.support.clock import FakeClock

from hearth.models.call import QUEUED, Call
from hearth.models.errors import CallTooLarge, StoreRefused, StoreUnavailable
from hearth.queues.open import open_queue
from hearth.queues.sqlite import SqliteQueue

LARGE = b"x" * (1 << 21)


@pytest.fixture
async def world() -> AsyncIterator[AsyncWorld]:
    clock = FakeClock()
    queue = await open_queue("memory://", clock)
    world = AsyncWorld(queue, clock)
    yield world
    await world.close()
    await queue.close()


async def accept(world: AsyncWorld, *calls: Call) -> dict[str, BaseException | None]:
    """Accept calls at once; how each of them ended."""
    outcomes = await asyncio.gather(*[world.accepted.enqueue(one) for one in calls], return_exceptions=True)
    return dict(zip([one.id for one in calls], outcomes, strict=True))


def with_body(name: str, payload: bytes) -> Call:
    one = call(name)
    one.payload = payload
    return one


async def test_a_call_that_cannot_be_written_fails_alone(world: AsyncWorld) -> None:
    bad = call("bad")
    bad.headers = {"X": ["\ud800"]}
    outcomes = await accept(world, call("first"), *[call(f"{n}") for n in range(20)], bad, call("last"))
    assert isinstance(outcomes.pop("bad"), UnicodeEncodeError)
    assert set(outcomes.values()) == {None}
    assert {world.store.status(name) for name in outcomes} == {QUEUED}
    assert world.store.status("bad") == ""
    assert {one.call.id for one in await world.queue.reserve(100)} == set(outcomes)


async def test_a_call_that_is_too_large_for_the_queue_fails_alone(
    world: AsyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = SqliteQueue.push

    async def limited(queue: SqliteQueue, calls: Sequence[Call]) -> None:
        if any(len(one.payload) > 1000 for one in calls):
            raise StoreRefused("string or blob too big")
        await push(queue, calls)

    monkeypatch.setattr(SqliteQueue, "push", limited)
    outcomes = await accept(world, call("first"), call("1"), with_body("bad", b"x" * 2000), call("2"))
    refused = outcomes.pop("bad")
    assert isinstance(refused, CallTooLarge)
    assert (refused.code, refused.message) == (413, "a body of 2000 bytes is too large for the queue of async calls")
    assert set(outcomes.values()) == {None}


async def test_a_large_call_that_breaks_the_connection_to_the_queue_fails_alone(
    world: AsyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    push, batches = SqliteQueue.push, []

    async def fragile(queue: SqliteQueue, calls: Sequence[Call]) -> None:
        batches.append([one.id for one in calls])
        if any(one.payload for one in calls):
            raise StoreUnavailable("connection closed")
        await push(queue, calls)

    monkeypatch.setattr(SqliteQueue, "push", fragile)
    given = [call("0"), call("1"), with_body("bad", LARGE), call("2"), call("3")]
    outcomes = await accept(world, call("first"), *given)
    assert isinstance(outcomes.pop("bad"), StoreUnavailable)
    assert set(outcomes.values()) == {None}
    assert [one.call.id for one in await world.queue.reserve(100)] == ["first", "0", "1", "2", "3"]
    assert ["bad"] in batches
