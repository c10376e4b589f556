"""The last hour of a node, from its counters: rates, percentiles, cold starts, and their limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.clock import FakeClock

from hearth.models.function import Amount
from hearth.server.ui.recent import PERIOD_S, Recent, Ring, percentile
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.names import TIME_BUCKETS, of_span

SHOP = ("shop", "/hello")


class World:
    """Counters, and what is made of them."""

    def __init__(self) -> None:
        self.clock, self.metrics = FakeClock(), Metrics()
        self.recent = Recent(self.metrics, self.clock, lambda: Amount(96, 0), Amount(1024, 0))

    def call(self, number: int = 1, *, failed: int = 0, seconds: float = 0.02, labels: tuple[str, str] = SHOP) -> None:
        self.metrics.counter("fn_calls").add(number, *labels)
        self.metrics.counter("fn_completed").add(number - failed, *labels)
        self.metrics.counter("fn_failed").add(failed, *labels)
        for _ in range(number):
            self.metrics.histogram(of_span("agent_submit")).observe(seconds, *labels)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.recent.look()

    def node(self, name: str) -> list[float]:
        columns: dict[str, list[float]] = self.recent.node_history()["columns"]
        return columns[name]

    def minutes(self, name: str, labels: tuple[str, str] = SHOP) -> list[float]:
        columns: dict[str, list[float]] = self.recent.function_history(labels)["columns"]
        return columns[name]


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([0] * 12, 0.5, 0.0),
        ([10, *[0] * 11], 0.5, 2.5),
        ([10, *[0] * 11], 1.0, 5.0),
        ([0, 0, 4, *[0] * 9], 0.5, 17.5),
        ([90, 10, *[0] * 10], 0.95, 7.5),
        ([*[0] * 11, 3], 0.5, 10_000.0),
    ],
)
def test_a_percentile_is_estimated_within_its_bucket(counts: list[int], share: float, expected: float) -> None:
    assert percentile(counts, share) == pytest.approx(expected)


def test_a_ring_keeps_its_rows_and_forgets_the_oldest() -> None:
    ring = Ring(("calls", "queued"), 3, 10)
    for number in (10, 11, 12, 13):
        ring.advance(number)
        ring.add({"calls": number}, [])
        ring.set({"queued": 1})
    assert ring.columns(13) == {"calls": [11, 12, 13], "queued": [1, 1, 1]}
    assert ring.row() == {"calls": 13, "queued": 1}
    assert ring.column("calls", 15) == [13, 0, 0]  # nothing happened since
    ring.advance(99)
    assert ring.column("calls", 99) == [0, 0, 0]
    ring.advance(98)  # a clock that was set back changes nothing
    assert ring.newest == 99


async def test_counters_become_rows_of_the_node_and_minutes_of_functions() -> None:
    world = World()
    world.call(4, failed=1)
    await world.pass_time(PERIOD_S)
    world.call(2)
    world.call(5, labels=("shop", "fn"))
    await world.pass_time(PERIOD_S)
    await world.pass_time(PERIOD_S)
    assert world.node("calls")[-3:] == [4, 7, 0]
    assert world.node("errors")[-3:] == [1, 0, 0]
    assert world.minutes("calls")[-1] == 6
    assert world.minutes("calls", ("shop", "fn"))[-1] == 5
    assert world.minutes("p50_ms")[-1] == pytest.approx(17.5)
    assert sum(world.minutes("calls", ("shop", "/other"))) == 0
    assert len(world.node("calls")) == 3600 // PERIOD_S
    assert len(world.minutes("calls")) == 60


async def test_a_call_that_ends_later_is_counted_when_it_ends() -> None:
    world = World()
    world.metrics.counter("fn_calls").add(1, *SHOP)
    world.metrics.gauge("fn_running").add(1, *SHOP)
    await world.pass_time(PERIOD_S)
    assert (world.node("calls")[-1], world.node("running")[-1], world.node("errors")[-1]) == (1, 1, 0)
    world.metrics.gauge("fn_running").add(-1, *SHOP)
    world.metrics.counter("fn_failed").add(1, *SHOP)
    await world.pass_time(PERIOD_S)
    assert (world.node("running")[-1], world.node("errors")[-1]) == (0, 1)


async def test_cold_starts_memory_and_containers_are_those_of_the_metrics() -> None:
    world = World()
    world.call()
    world.metrics.histogram("fn_container_start_duration_seconds").observe(0.3, *SHOP)
    world.metrics.gauge("fn_container_idle_total").add(2, *SHOP)
    for used in (20, 40):
        world.metrics.histogram("fn_docker_stats_fn_mem_usage").observe(used << 20, *SHOP)
    await world.pass_time(PERIOD_S)
    assert (world.node("cold_starts")[-1], world.node("granted_mib")[-1], world.node("used_mib")[-1]) == (1, 96, 60)
    now = world.recent.function_now(SHOP)
    assert now["containers"] == {"wait": 0, "start": 0, "idle": 2, "busy": 0}
    assert world.recent.node_now()["total_mib"] == 1024


async def test_a_function_that_is_not_called_for_an_hour_takes_no_memory() -> None:
    world = World()
    world.call()
    await world.pass_time(PERIOD_S)
    assert world.recent.functions() == [SHOP]
    assert world.recent.functions("elsewhere") == []
    await world.pass_time(3540)
    assert world.recent.activity(SHOP) is not None
    await world.pass_time(60)
    assert world.recent.functions() == []
    assert world.recent.activity(SHOP) is None


async def test_a_function_that_is_deleted_and_created_again_counts_from_zero() -> None:
    world = World()
    world.call(9)
    await world.pass_time(PERIOD_S)
    for name in ("fn_calls", "fn_completed", "fn_failed"):
        world.metrics.counter(name).forget(*SHOP)
    world.metrics.histogram(of_span("agent_submit")).forget(*SHOP)
    world.call(2)
    await world.pass_time(PERIOD_S)
    assert world.node("calls")[-2:] == [9, 2]


async def test_ten_thousand_functions_take_bounded_memory_and_short_turns() -> None:
    world = World()
    for number in range(9_999):
        world.call(labels=("shop", f"/{number}"))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.get_running_loop().create_task(count_turns())
    await world.pass_time(PERIOD_S)
    counting.cancel()
    assert turns > 40  # others ran in between
    assert world.node("calls")[-1] == 9_999
    row = array_bytes(world.recent)
    assert row < 30 << 20


def array_bytes(recent: Recent) -> int:
    """Return the bytes of the rings of all functions."""
    one: dict[str, Any] = recent.function_history(recent.functions()[0])["columns"]
    return len(recent.functions()) * len(one) * len(one["calls"]) * 4


async def test_those_who_watch_are_woken_by_each_look_and_end_with_the_node() -> None:
    world = World()
    looks = world.recent.looks()
    await anext(looks)
    waiting = asyncio.ensure_future(anext(looks))
    await asyncio.sleep(0)
    assert not waiting.done()
    await world.pass_time(PERIOD_S)
    await waiting
    waiting = asyncio.ensure_future(anext(looks))
    await asyncio.sleep(0)
    world.recent.stop()  # nobody waits for another look
    for _ in range(5):
        await asyncio.sleep(0)
    assert waiting.done()
    with pytest.raises(StopAsyncIteration):
        waiting.result()


def test_the_bounds_of_latencies_are_those_of_the_metrics() -> None:
    assert World().recent.function_history(SHOP)["bounds_s"] == list(TIME_BUCKETS)
