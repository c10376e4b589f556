"""The Redis queue when Redis, the network or another node does not do as it should."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.clock import FakeClock
from tests.support.redis_server import PASSWORD, QUOTED_PASSWORD, RedisServer, running_redis

from hearth.aio.clock import SystemClock
from hearth.models.call import Call
from hearth.models.errors import StartUpError, StoreUnavailable
from hearth.queues.base import Queue
from hearth.queues.open import open_queue

_numbers = itertools.count()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that the test may kill."""
    with running_redis(tmp_path / "redis") as server:
        yield server


@contextlib.asynccontextmanager
async def opened(url: str, visibility_s: float = 60.0, clock: FakeClock | None = None) -> AsyncIterator[Queue]:
    queue = await open_queue(url, clock or SystemClock(), visibility_s=visibility_s)
    try:
        yield queue
    finally:
        await queue.close()


def call(name: str) -> Call:
    return Call(id=name, app_name="a", path="/p")


async def names(queue: Queue, limit: int = 100) -> list[str]:
    return [reserved.call.id for reserved in await queue.reserve(limit)]


async def soon(queue: Queue, wanted: Callable[[list[str]], bool]) -> list[str]:
    """What can be reserved, once it is as wanted; looks when the queue says so, also while it is away."""
    found: list[str] = []
    async with asyncio.timeout(60):
        while not wanted(found):
            await queue.wait()
            with contextlib.suppress(StoreUnavailable):
                found += await names(queue)
    return found


async def test_what_was_confirmed_survives_the_sudden_death_of_redis(own_redis: RedisServer) -> None:
    async with opened(own_redis.url()) as queue:
        await queue.push([call(str(n)) for n in range(50)])
        held = await queue.reserve(10)
        assert await queue.acknowledge([one.lease for one in held[:5]]) == [True] * 5
        own_redis.kill()
        with pytest.raises(StoreUnavailable):
            await queue.push([call("unconfirmed")])
        own_redis.start()
        assert await soon(queue, lambda found: len(found) >= 40) == [str(n) for n in range(10, 50)]
        assert await queue.renew([one.lease for one in held]) == [False] * 5 + [True] * 5


async def test_operations_fail_clearly_while_redis_is_away_and_work_again_after(own_redis: RedisServer) -> None:
    async with opened(own_redis.url()) as queue:
        await queue.push([call("a")])
        (a,) = await queue.reserve(1)
        own_redis.kill()
        for operation in (
            lambda: queue.push([call("b")]),
            lambda: queue.reserve(1),
            lambda: queue.acknowledge([a.lease]),
            lambda: queue.renew([a.lease]),
            lambda: queue.release(a.lease),
        ):
            with pytest.raises(StoreUnavailable, match="queue: Redis at "):
                await operation()
        own_redis.start()
        assert await queue.release(a.lease)
        assert await soon(queue, bool) == ["a"]


async def test_who_waits_is_woken_again_after_a_restart_of_redis(own_redis: RedisServer) -> None:
    async with opened(own_redis.url()) as waiter, opened(own_redis.url()) as pusher:
        assert await names(waiter) == []
        waiting = asyncio.ensure_future(soon(waiter, bool))
        own_redis.kill()
        own_redis.start()
        await pusher.push([call("a")])
        assert await waiting == ["a"]


async def test_a_redis_that_says_nothing_is_an_error_not_a_hang(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hearth.queues.redis.ANSWER_S", 0.2)
    async with opened(own_redis.url()) as queue:
        with own_redis.frozen(), pytest.raises(StoreUnavailable):
            await queue.push([call("a")])
        await queue.push([call("b")])
        # The first push was never confirmed; it is there at most once all the same.
        assert sorted(await soon(queue, lambda found: "b" in found)) in (["a", "b"], ["b"])


async def test_a_push_whose_answer_was_lost_is_kept_once(redis_server: RedisServer) -> None:
    async with _cutting(redis_server.port) as (port, cut), opened(_url(port)) as queue:
        await queue.push([call("before")])
        cut.set()
        await queue.push([call("a"), call("b")])  # asked again by itself
        assert not cut.is_set()
        assert await names(queue) == ["before", "a", "b"]


async def test_a_push_and_a_release_wake_the_waiters_of_other_nodes(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hearth.queues.redis.LOOK_AGAIN_S", 3600)
    url = _url(redis_server.port)
    async with opened(url) as one, opened(url) as other:
        assert await names(other) == []
        waiting = asyncio.ensure_future(soon(other, bool))
        await one.push([call("a")])
        assert await waiting == ["a"]
        await one.push([call("b")])
        (b,) = await one.reserve(1)
        waiting = asyncio.ensure_future(soon(other, bool))
        await one.release(b.lease)
        assert await waiting == ["b"]


async def test_what_nobody_was_told_of_is_found_by_looking_again(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hearth.queues.redis.LOOK_AGAIN_S", 0.05)
    async with opened(redis_server.url("silent/")) as queue:
        await queue.push([call("a")])
        assert await names(queue) == ["a"]
        assert await names(queue) == []
        with redis_server.client() as client:
            for member in client.zrange("/silent/hearth:leased", 0, -1):
                client.zadd("/silent/hearth:leased", {member: 0})
        assert await soon(queue, bool) == ["a"]


async def test_leases_are_measured_by_the_clock_of_redis(redis_server: RedisServer) -> None:
    """Nodes may disagree on what time it is by an hour."""
    url, fast, slow = _url(redis_server.port), FakeClock(), FakeClock()
    fast.set_wall(+3600)
    slow.set_wall(-3600)
    async with opened(url, clock=fast) as one, opened(url, clock=slow) as other:
        await one.push([call("a")])
        (a,) = await other.reserve(1)
        assert await names(one) == []
        assert await other.acknowledge([a.lease]) == [True]


async def test_an_expired_lease_wakes_who_waits_and_is_worth_nothing(redis_server: RedisServer) -> None:
    async with opened(_url(redis_server.port), visibility_s=0.3) as queue:
        await queue.push([call("a")])
        (first,) = await queue.reserve(1)
        assert await soon(queue, bool) == ["a"]
        assert await queue.acknowledge([first.lease]) == [False]
        assert await queue.renew([first.lease]) == [False]
        assert not await queue.release(first.lease)


async def test_many_nodes_take_each_call_once(redis_server: RedisServer) -> None:
    url = _url(redis_server.port)
    async with contextlib.AsyncExitStack() as stack:
        queues = [await stack.enter_async_context(opened(url)) for _ in range(4)]
        await queues[0].push([call(str(n)) for n in range(300)])

        async def drain(queue: Queue) -> list[str]:
            taken: list[str] = []
            while some := await names(queue, 7):
                taken += some
            return taken

        taken = await asyncio.gather(*[drain(queue) for queue in queues])
    assert sorted(itertools.chain(*taken), key=int) == [str(n) for n in range(300)]


async def test_nothing_is_left_in_redis_of_calls_that_ended(redis_server: RedisServer) -> None:
    async with opened(redis_server.url("clean/")) as queue:
        await queue.push([call(str(n)) for n in range(20)])
        assert await queue.acknowledge([one.lease for one in await queue.reserve(20)]) == [True] * 20
        assert await names(queue) == []  # the turn of an app that has no calls any more
    with redis_server.client() as client:
        keys = {key.decode() for key in client.scan_iter("/clean/*")}
        assert keys == {"/clean/hearth:places"}


async def test_prefixes_keep_queues_apart(redis_server: RedisServer) -> None:
    async with opened(redis_server.url("x/")) as one, opened(redis_server.url("y/")) as other:
        await one.push([call("a")])
        assert await names(other) == []
        assert await names(one) == ["a"]


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_a_redis_that_is_not_there_is_a_sentence_without_the_password(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with capture_logs() as lines, pytest.raises(StartUpError, match=f"Redis at 127.0.0.1:{port} does not") as raised:
        await open_queue(f"{scheme}://user:{QUOTED_PASSWORD}@127.0.0.1:{port}/", SystemClock())
    assert PASSWORD not in f"{raised.value} {lines}"
    assert QUOTED_PASSWORD not in f"{raised.value} {lines}"


async def test_a_wrong_password_is_a_sentence(redis_server: RedisServer) -> None:
    with pytest.raises(StartUpError, match="does not answer") as raised:
        await open_queue(f"redis://:not-it@127.0.0.1:{redis_server.port}/", SystemClock())
    assert "not-it" not in str(raised.value)


async def test_a_forgetful_redis_is_told_at_the_start(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        client.config_set("appendfsync", "everysec")
    with capture_logs() as lines:
        async with opened(own_redis.url()) as queue:
            assert PASSWORD not in repr(queue)
    assert any("may forget accepted calls" in line["event"] for line in lines)


def _url(port: int) -> str:
    return f"redis://:{QUOTED_PASSWORD}@127.0.0.1:{port}/faults{next(_numbers)}/"


@contextlib.asynccontextmanager
async def _cutting(port: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A way to this port; when the event is set the next answer is lost, with its connection."""
    cut = asyncio.Event()
    group: set[asyncio.Task[None]] = set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        back = asyncio.ensure_future(answer(server_reader, writer))
        group.add(back)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                server_writer.write(data)
        server_writer.close()
        await back

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if cut.is_set():
                    cut.clear()
                    break
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], cut
    finally:
        server.close()
        await asyncio.gather(*group, return_exceptions=True)


async def test_what_a_version_stored_that_knew_no_turns_is_taken_in_its_order(redis_server: RedisServer) -> None:
    """It named messages without their app, and kept those that were ready in one set for each priority."""
    async with opened(redis_server.url("before/")) as queue:
        await queue.push([call(str(n)) for n in range(1200)])
        await queue.reserve(1)
        with redis_server.client() as client:
            _as_before(client, "/before/hearth:", priorities={7: 2, 1100: 1})
        await queue.push([Call(id="new", app_name="b", path="/p")])
        first, second = await queue.reserve(2)
        assert sorted([first.call.id, second.call.id]) == ["7", "new"]
        held = [first, second, *await queue.reserve(2000)]
        assert [one.call.id for one in held[2:]] == ["1100", *[str(n) for n in range(1, 1200) if n not in (7, 1100)]]
        assert await queue.release(held[2].lease)
        assert await names(queue) == ["1100"]
        assert await queue.acknowledge([one.lease for one in held]) == [True, True, False, *[True] * 1197]


def _as_before(client: Any, prefix: str, priorities: dict[int, int]) -> None:
    """Write the ready messages of the app "a" as the version before did."""
    for new in client.zrange(f"{prefix}apps:a", 0, -1):
        _, place, _, call_id = new.decode().split(":")
        priority = priorities.get(int(call_id), 0)
        old = f"{priority}:{place}:{call_id}"
        client.hset(f"{prefix}names", call_id, old)
        client.hset(f"{prefix}calls", old, client.hget(f"{prefix}calls", new))
        client.hdel(f"{prefix}calls", new)
        client.zadd(f"{prefix}ready:{priority}", {old: int(place)})
    client.delete(f"{prefix}apps:a", f"{prefix}turns:waiting", f"{prefix}turns:served")


async def test_a_full_redis_is_not_ready_until_it_has_room(own_redis: RedisServer) -> None:
    async with opened(own_redis.url("full")) as queue:
        await queue.check()
        own_redis.client().config_set("maxmemory", "1")
        with pytest.raises(StoreUnavailable, match=r"queue: Redis at 127\.0\.0\.1:\d+: .*memory"):
            await queue.check()
        own_redis.client().config_set("maxmemory", "0")
        await queue.check()
