"""The quota of stored bytes: what is counted when, and which calls are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.clock import FakeClock

from hearth.access.quota_cache import CachedQuotas
from hearth.access.stored_bytes import COUNT_EVERY_S, StoredBytes
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import AppsNotFound, QuotaExceeded, StoreUnavailable
from hearth.models.quotas import NO_QUOTAS, Quotas
from hearth.queues.sqlite import open_memory
from hearth.telemetry.metrics import Metrics


class Stores:
    """Results and logs of one size each, and the quotas of apps.

    Attributes:
        size: What a count finds.
        of_keys: The bytes of answers of keys.
        counts: How often somebody has counted.
        gate: Closed, it holds counts up.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.quotas: dict[str, Quotas] = {"a": Quotas(stored_bytes=1000)}
        self.size = 0
        self.of_keys = 0
        self.counts = 0
        self.takes_s = 0.0
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self._clock = clock

    async def get_app(self, name: str) -> App:
        if name not in self.quotas:
            raise AppsNotFound
        return App(name=name, id=name, quotas=self.quotas[name])

    async def get_route(self, app_name: str, path: str) -> Any:
        raise AssertionError("nobody asks for a route")

    async def stored_bytes(self, app_name: str, most: int) -> int:
        self.counts += 1
        size = self.size
        await self.gate.wait()
        self._clock.advance(self.takes_s)
        if self.is_away:
            raise StoreUnavailable("away")
        return size

    async def key_bytes(self, app_name: str, most: int) -> int:
        return self.of_keys


class World:
    def __init__(self, stored: StoredBytes, stores: Stores, clock: FakeClock, queue: Any) -> None:
        self.stores, self.clock, self.queue = stores, clock, queue
        self._stored = stored
        self.refusals: list[str] = []

    async def admit(self, size: int, app: str = "a") -> int | None:
        """Return 0 if a call of this size is admitted, else the seconds after which it may come again."""
        call = Call(id="1", app_name=app, app_id=app, path="/p", payload=b"x" * size)
        try:
            await self._stored.admit(call)
        except QuotaExceeded as exc:
            self.refusals.append(str(exc))
            return int(exc.headers["Retry-After"]) if exc.headers else None
        return 0


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = FakeClock()
    stores, queue = Stores(clock), await open_memory("memory://", clock)
    kept: Any = stores
    stored = StoredBytes(queue, kept, kept, CachedQuotas(stores, clock), clock, NO_QUOTAS, Metrics())
    yield World(stored, stores, clock, queue)
    await stored.close()
    await queue.close()


async def test_what_is_queued_and_stored_counts_together(world: World) -> None:
    world.stores.size, world.stores.of_keys = 150, 100  # in the datastore, and as much of the size in the store of logs
    await world.queue.push([Call(id="0", app_name="a", path="/p", payload=b"x" * 200)])
    room = 1000 - 400 - await world.queue.bytes_of("a")
    assert await world.admit(room + 1) == COUNT_EVERY_S
    assert await world.admit(room) == 0


async def test_apps_without_the_quota_are_not_counted(world: World) -> None:
    world.stores.quotas["b"] = Quotas(queued_calls=5)
    assert [await world.admit(5000, app) for app in ("b", "deleted")] == [0, 0]
    assert world.stores.counts == 0


async def test_payloads_count_at_once_and_everything_else_with_the_next_count(world: World) -> None:
    assert [await world.admit(400) for _ in range(3)] == [0, 0, 30]
    world.clock.advance(12.5)
    assert [await world.admit(400), await world.admit(100)] == [18, 0]
    assert world.stores.counts == 2, "of two stores, once"
    world.clock.advance(17.5)
    assert await world.admit(900) == 0, "what was accepted did not come to be stored"
    assert await world.admit(200) == 30


async def test_a_payload_above_the_quota_never_fits(world: World) -> None:
    assert await world.admit(1001) is None
    assert world.refusals == ["App a exceeds its quota stored_bytes (1000)"]


async def test_a_call_is_never_refused_because_of_an_old_count(world: World) -> None:
    world.stores.size = 500
    assert await world.admit(1) == 30
    world.stores.size = 0
    world.clock.advance(3600)
    assert await world.admit(1) == 0


async def test_calls_that_fit_do_not_wait_for_a_count(world: World) -> None:
    assert await world.admit(1) == 0
    world.clock.advance(30)
    world.stores.gate.clear()
    assert await world.admit(1) == 0
    waiting = asyncio.ensure_future(world.admit(999))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    world.stores.gate.set()
    assert await waiting == 0, "what is counted now has no payload of before"
    assert world.stores.counts == 4


async def test_a_count_that_takes_long_is_repeated_seldom(world: World) -> None:
    world.stores.takes_s = 5
    assert await world.admit(1) == 0
    world.clock.advance(199)
    assert await world.admit(1) == 0
    assert world.stores.counts == 2
    world.clock.advance(1)
    assert await world.admit(1) == 0
    world.stores.gate.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert world.stores.counts == 4


async def test_while_nobody_can_count_the_last_count_is_in_use(world: World) -> None:
    assert await world.admit(600) == 0
    world.stores.is_away = True
    world.clock.advance(30)
    with capture_logs() as logs:
        assert await world.admit(600) == 30
        assert await world.admit(300) == 0
    assert [one["event"] for one in logs] == ["stored bytes of an app not counted"]
    world.stores.is_away = False
    world.clock.advance(30)
    assert await world.admit(600) == 0


async def test_a_quota_of_the_node_holds_for_apps_without_one(world: World) -> None:
    world.stores.quotas = {"a": Quotas()}
    kept: Any = world.stores
    quotas = CachedQuotas(world.stores, world.clock)
    stored = StoredBytes(world.queue, kept, None, quotas, world.clock, Quotas(stored_bytes=10), Metrics())
    with pytest.raises(QuotaExceeded, match=r"stored_bytes \(10\)"):
        await stored.admit(Call(id="1", app_name="a", app_id="a", path="/p", payload=b"x" * 11))
    await stored.close()
