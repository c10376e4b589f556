"""What every queue keeps its word on (storage specification 7.5)."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.support.clock import FakeClock

from hearth.models.call import Call
from hearth.models.errors import StartUpError
from hearth.queues.base import Queue
from hearth.queues.open import BACKENDS, open_queue

Open = Callable[[], Awaitable[Queue]]
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "bolt"])
async def opener(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Open:
    url = "memory://" if request.param == "memory" else f"bolt://{tmp_path}/deep/fn.mq"
    return lambda: BACKENDS.open(url, clock=clock)


@pytest.fixture
async def queue(opener: Open) -> AsyncIterator[Queue]:
    opened = await opener()
    yield opened
    await opened.close()


def call(name: str, priority: int = 0, delay: int = 0, payload: bytes = b"") -> Call:
    return Call(id=name, app_name="a", path="/p", priority=priority, delay=delay, payload=payload, created_at=NOW)


async def names(queue: Queue, limit: int = 100) -> list[str]:
    return [reserved.call.id for reserved in await queue.reserve(limit)]


async def test_a_call_comes_back_whole(queue: Queue) -> None:
    given = Call(
        id="x",
        app_name="a",
        path="/p/q",
        status="queued",
        image="i:1",
        type="async",
        format="http",
        payload=b"\xff\x00binary\r\n",
        url="http://h/r/a/p?x=\xfc",
        method="POST",
        priority=1,
        timeout=7,
        idle_timeout=8,
        memory=64,
        cpu_milli=250,
        config={"K": "ü=\n"},
        headers={"X": ["1", "\xe9"]},
        created_at=NOW,
    )
    await queue.push([given])
    (reserved,) = await queue.reserve(1)
    assert reserved.call == given
    assert reserved.deliveries == 1


async def test_order_is_by_priority_then_by_arrival(queue: Queue) -> None:
    await queue.push([call("a"), call("b", 2)])
    await queue.push([call("c", 1), call("d", 2), call("e")])
    assert await names(queue, 2) == ["b", "d"]
    assert await names(queue) == ["c", "a", "e"]
    assert await names(queue) == []


async def test_what_is_not_settled_returns_to_its_old_place(queue: Queue, clock: FakeClock) -> None:
    await queue.push([call("a"), call("b"), call("c")])
    a, b = await queue.reserve(2)
    assert await queue.settle([b.lease]) == [True]
    clock.advance(queue.visibility_s + 1)
    assert await names(queue) == ["a", "c"]
    assert await queue.settle([a.lease]) == [False]  # somebody else has it now


async def test_a_renewed_lease_lasts(queue: Queue, clock: FakeClock) -> None:
    await queue.push([call("a")])
    (a,) = await queue.reserve(1)
    for _ in range(3):
        clock.advance(queue.visibility_s * 0.7)
        assert await queue.renew([a.lease]) == [True]
        assert await names(queue) == []
    assert await queue.settle([a.lease]) == [True]
    clock.advance(queue.visibility_s * 2)
    assert await names(queue) == []


async def test_what_is_settled_is_gone_and_cannot_be_settled_again(queue: Queue) -> None:
    await queue.push([call("a")])
    (a,) = await queue.reserve(1)
    assert await queue.settle([a.lease]) == [True]
    assert await queue.settle([a.lease]) == [False]
    assert await queue.renew([a.lease]) == [False]
    assert not await queue.release(a.lease)


async def test_what_is_given_back_can_be_had_at_once_or_later(queue: Queue, clock: FakeClock) -> None:
    await queue.push([call("a"), call("b")])
    a, b = await queue.reserve(2)
    assert await queue.release(a.lease)
    assert await queue.release(b.lease, 5)
    (again,) = await queue.reserve(5)
    assert (again.call.id, again.deliveries) == ("a", 2)
    clock.advance(5.1)
    assert await names(queue) == ["b"]


async def test_a_delayed_call_shows_after_its_delay(queue: Queue, clock: FakeClock) -> None:
    await queue.push([call("late", delay=10), call("later", delay=10), call("now")])
    assert await names(queue) == ["now"]
    clock.advance(9)
    assert await names(queue) == []
    clock.advance(1.1)
    assert await names(queue) == ["late", "later"]


async def test_concurrent_consumers_never_get_the_same_call(queue: Queue) -> None:
    await queue.push([call(str(n)) for n in range(200)])
    taken = await asyncio.gather(*[names(queue, 3) for _ in range(80)])
    flat = [name for some in taken for name in some]
    assert sorted(flat, key=int) == [str(n) for n in range(200)]


async def test_who_waits_is_woken_by_a_push_an_expiry_and_a_delay(queue: Queue, clock: FakeClock) -> None:
    assert await names(queue) == []

    async def woken(*, after: float) -> None:
        waiting = asyncio.ensure_future(queue.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        if after:
            clock.advance(after)
        else:
            await queue.push([call("a")])
        await waiting

    await woken(after=0)
    assert await names(queue) == ["a"]
    await woken(after=queue.visibility_s + 0.1)
    (a,) = await queue.reserve(1)
    await queue.release(a.lease, 5)
    assert await names(queue) == []
    await woken(after=5.1)
    assert await names(queue) == ["a"]


async def test_a_cancelled_reservation_loses_nothing(queue: Queue) -> None:
    await queue.push([call("a")])
    taking = asyncio.ensure_future(queue.reserve(1))
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    while not (found := await names(queue)):
        await queue.wait()
    assert found == ["a"]


async def test_a_file_survives_its_process_with_leases_and_delays(tmp_path: Path, clock: FakeClock) -> None:
    url = f"bolt://{tmp_path}/fn.mq"
    queue = await open_queue(url, clock)
    await queue.push([call("leased"), call("a"), call("late", delay=30)])
    (leased,) = await queue.reserve(1)
    await queue.close()
    clock.advance(20)
    queue = await open_queue(url, clock)
    assert await names(queue) == ["a"]
    clock.advance(10.1)
    assert await names(queue) == ["late"]
    clock.advance(queue.visibility_s)
    assert await names(queue) == ["leased", "a", "late"]
    assert await queue.settle([leased.lease]) == [False]
    await queue.close()


async def test_a_step_of_the_wall_clock_ends_no_lease(queue: Queue, clock: FakeClock) -> None:
    await queue.push([call("a")])
    (a,) = await queue.reserve(1)
    clock.set_wall(+3600)
    assert await names(queue) == []
    clock.set_wall(-7200)
    clock.advance(queue.visibility_s + 1)
    assert await names(queue) == ["a"]
    assert await queue.settle([a.lease]) == [False]


async def test_a_file_has_one_process(tmp_path: Path, clock: FakeClock) -> None:
    url = f"bolt://{tmp_path}/fn.mq"
    first = await open_queue(url, clock)
    with pytest.raises(StartUpError, match="another process uses it"):
        await open_queue(url, clock)
    await first.close()


async def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path, clock: FakeClock) -> None:
    file = tmp_path / "fn.mq"
    old = bytes(16) + (0xED0CDAED).to_bytes(4, "little") + bytes(4096)
    file.write_bytes(old)
    with pytest.raises(StartUpError, match="no queue of Hearth's"):
        await open_queue(f"bolt://{file}", clock)
    assert file.read_bytes() == old


async def test_a_message_that_is_no_call_is_dropped(tmp_path: Path, clock: FakeClock) -> None:
    import sqlite3

    url = f"bolt://{tmp_path}/fn.mq"
    queue = await open_queue(url, clock)
    await queue.push([call("first"), call("good")])
    await queue.close()
    with sqlite3.connect(tmp_path / "fn.mq") as db:
        db.execute("UPDATE messages SET call = ? WHERE seq = 1", (b'{"id": 7}',))
    db.close()
    queue = await open_queue(url, clock)
    assert await names(queue) == ["good"]
    clock.advance(queue.visibility_s + 1)
    assert await names(queue) == ["good"]
    await queue.close()


@pytest.mark.parametrize("url", ["nats://x", "nonsense"])
async def test_an_unknown_queue_is_a_sentence(url: str, clock: FakeClock) -> None:
    with pytest.raises(StartUpError):
        await open_queue(url, clock)
