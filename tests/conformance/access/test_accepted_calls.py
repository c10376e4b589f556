"""What every implementation of the accepted calls does."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.stored_worlds import VISIBILITY_S, World, opened_world

from hearth.models.app import App
from hearth.models.call import QUEUED, SUCCESS, Call
from hearth.models.errors import ApiError, HearthError, StoreRefused, StoreUnavailable
from hearth.models.function import ASYNC
from hearth.models.quotas import Quotas
from hearth.queues.base import Reserved

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
#: Seconds within which what is expected must happen.
LIMIT_S = 30.0


@pytest.fixture(params=["local", "remote"])
async def world(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with opened_world(request.param, database, tmp_path) as opened:
        yield opened


def call(call_id: str, app: str = "app", **fields: Any) -> Call:
    fields = {"type": ASYNC, "status": QUEUED, "created_at": NOW, **fields}
    return Call(id=call_id, app_name=app, path="/p", image="i", **fields)


async def accept(world: World, *call_ids: str) -> None:
    for call_id in call_ids:
        await world.accepted.enqueue(call(call_id))


async def dequeue(world: World, limit: int = 10) -> list[Reserved]:
    async with asyncio.timeout(LIMIT_S):
        return await world.accepted.dequeue(limit)


async def dequeued(world: World, limit: int = 10) -> list[str]:
    return [one.call.id for one in await dequeue(world, limit)]


@pytest.mark.parametrize("size", [0, 1000, 3 << 20], ids=str)
async def test_an_accepted_call_has_a_record_and_comes_back_whole(world: World, size: int) -> None:
    sent = call(
        "1",
        payload=bytes(range(256)) * (size // 256),
        headers={"X": ["1", "2"]},
        config={"A": "b"},
        url="http://h/r/app/p",
        method="POST",
        timeout=3,
        memory=64,
        cpu_milli=200,
    )
    await world.accepted.enqueue(sent)
    assert (await world.stores.call("1")).status == QUEUED
    (got,) = await dequeue(world)
    assert got.call == sent
    assert (got.deliveries, got.fault) == (1, "")


async def test_a_call_that_is_accepted_again_has_one_message(world: World) -> None:
    await accept(world, "1", "1", "2")
    assert await dequeued(world) == ["1", "2"]


async def test_calls_beyond_the_quota_of_their_app_are_not_accepted(world: World) -> None:
    stored = await world.stores.datastore.insert_app(App(name="limited", quotas=Quotas(queued_calls=2)))
    for call_id in ("1", "2"):
        await world.accepted.enqueue(call(call_id, app="limited", app_id=stored.id))
    with pytest.raises(ApiError, match=r"^App limited exceeds its quota queued_calls \(2\)$") as refused:
        await world.accepted.enqueue(call("3", app="limited", app_id=stored.id))
    assert (refused.value.code, refused.value.headers) == (429, {"Retry-After": "1"})
    await accept(world, "4")
    assert await dequeued(world) == ["1", "4", "2"], "apps take turns"


async def test_calls_beyond_the_stored_bytes_of_their_app_are_not_accepted(world: World) -> None:
    quotas = Quotas(stored_bytes=10_000)
    stored = await world.stores.datastore.insert_app(App(name="limited", quotas=quotas))
    given = call("1", app="limited", app_id=stored.id)
    ended = msgspec.structs.replace(given, status=SUCCESS)
    log = b"x" * 5000
    await world.stores.datastore.put_calls([(msgspec.structs.replace(ended, id="0"), log)])
    await world.accepted.enqueue(msgspec.structs.replace(given, payload=b"x" * 3000))
    for size, header_names in ((3000, {"Retry-After"}), (10_001, set[str]())):
        with pytest.raises(ApiError, match=r"^App limited exceeds its quota stored_bytes \(10000\)$") as refused:
            await world.accepted.enqueue(msgspec.structs.replace(given, id="2", payload=b"x" * size))
        assert refused.value.code == 429
        assert set(refused.value.headers) == header_names
    await world.accepted.enqueue(call("3", payload=b"x" * 20_000))
    assert sorted(await dequeued(world)) == ["1", "3"]


async def test_apps_take_turns_by_weight(world: World) -> None:
    heavy = await world.stores.datastore.insert_app(App(name="heavy", quotas=Quotas(weight=2)))
    for n in range(4):
        await world.accepted.enqueue(call(f"h{n}", app="heavy", app_id=heavy.id))
        await world.accepted.enqueue(call(f"l{n}", app="light"))
    assert await dequeued(world, 6) == ["h0", "l0", "h1", "l1", "h2", "h3"]


async def test_calls_of_some_apps_stay_for_others(world: World) -> None:
    await accept(world, "1")
    assert await dequeued(world) == ["1"]
    assert world.accepted.leaves_out
    await accept(world, "2", "3")
    await world.accepted.enqueue(call("4", app="other"))
    async with asyncio.timeout(LIMIT_S):
        (got,) = await world.accepted.dequeue(10, frozenset({"app"}))
    assert got.call.id == "4"
    waiting = asyncio.ensure_future(world.accepted.dequeue(10, frozenset({"app", "third"})))
    assert await dequeued(world) == ["2", "3"]
    await accept(world, "5")
    await world.accepted.enqueue(call("6", app="other"))
    async with asyncio.timeout(LIMIT_S):
        assert [one.call.id for one in await waiting] == ["6"]
    assert await dequeued(world) == ["5"]


async def test_no_more_calls_of_a_function_are_queued_than_its_limit_says(world: World) -> None:
    limited = [
        Call(id=name, app_name="app", path="/limited", type=ASYNC, status=QUEUED, max_queued=2) for name in "abc"
    ]
    for one in limited[:2]:
        await world.accepted.enqueue(one)
    message = "App app: /limited has 2 queued calls, the most that it may have (max_queued)"
    with pytest.raises(ApiError, match=re.escape(message)) as refused:
        await world.accepted.enqueue(limited[2])
    assert (refused.value.code, refused.value.headers) == (429, {"Retry-After": "1"})
    await world.accepted.enqueue(
        Call(id="other", app_name="app", path="/other", type=ASYNC, status=QUEUED, max_queued=2)
    )


async def test_no_more_calls_are_taken_than_wanted(world: World) -> None:
    await accept(world, "1", "2", "3")
    assert await dequeued(world, 2) == ["1", "2"]
    assert await dequeued(world, 2) == ["3"]


async def test_calls_of_higher_priority_come_first(world: World) -> None:
    for call_id, priority in (("1", 0), ("2", 2), ("3", 1), ("4", 2)):
        await world.accepted.enqueue(call(call_id, priority=priority))
    assert await dequeued(world) == ["2", "4", "3", "1"]


async def test_a_wait_ends_when_a_call_is_accepted(world: World) -> None:
    waiting = asyncio.ensure_future(dequeued(world))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    await accept(world, "1")
    assert await waiting == ["1"]


@pytest.mark.parametrize("kind", ["local", "remote"])
async def test_a_cancelled_wait_loses_no_call(kind: str, tmp_path: Path) -> None:
    """What was on its way comes back when its lease ends."""
    async with opened_world(kind, f"sqlite3://{tmp_path}/fn.db", tmp_path, visibility_s=1.0) as world:
        for step in range(6):
            waiting = asyncio.ensure_future(world.accepted.dequeue(10))
            for _ in range(step):
                await asyncio.sleep(0)
            await accept(world, f"{step}")
            for _ in range(step):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            taken = [] if waiting.cancelled() else [one.call.id for one in waiting.result()]
            while f"{step}" not in taken:
                taken = await dequeued(world)


async def test_an_acknowledged_call_does_not_come_back(world: World) -> None:
    await accept(world, "1", "2")
    first, second = await dequeue(world)
    assert await world.accepted.acknowledge([first.lease]) == [True]
    assert await world.accepted.acknowledge([first.lease, second.lease]) == [False, True]
    assert (await world.stores.queue.backlog()).length == 0


async def test_many_acknowledge_at_once(world: World) -> None:
    await accept(world, *[f"{number}" for number in range(9)])
    leases = [one.lease for one in await dequeue(world)]
    found = await asyncio.gather(*[world.accepted.acknowledge([lease, "unknown"]) for lease in leases])
    assert found == [[True, False]] * 9


async def test_only_the_current_lease_is_renewed(world: World) -> None:
    await accept(world, "1")
    (got,) = await dequeue(world)
    assert await world.accepted.renew([got.lease, "unknown"]) == [True, False]
    await world.accepted.release(got.lease)
    assert await world.accepted.renew([got.lease]) == [False]


async def test_a_released_call_comes_back_at_once_or_later(world: World) -> None:
    await accept(world, "1", "2")
    first, second = await dequeue(world)
    await world.accepted.release(first.lease)
    await world.accepted.release(second.lease, 3600.0)
    (got,) = await dequeue(world)
    assert (got.call.id, got.deliveries) == ("1", 2)


async def test_the_visibility_timeout_is_that_of_the_queue(world: World) -> None:
    await accept(world, "1")
    (got,) = await dequeue(world)
    assert world.accepted.visibility_s == VISIBILITY_S
    assert got.until <= time.monotonic() + VISIBILITY_S


async def test_a_call_that_the_queue_never_takes_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: Sequence[Call]) -> None:
        raise StoreRefused("too big")

    with monkeypatch.context() as patched:
        patched.setattr(world.stores.queue, "push", refuse)
        with pytest.raises(ApiError) as raised:
            await world.accepted.enqueue(call("1", payload=b"x"))
    assert raised.value.code == 413
    await accept(world, "2")
    assert await dequeued(world) == ["2"]


async def test_a_call_is_not_accepted_while_the_queue_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: Sequence[Call]) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(world.stores.queue, "push", fail)
        with pytest.raises(HearthError):
            await accept(world, "1")
    await accept(world, "2")
    assert await dequeued(world) == ["2"]
