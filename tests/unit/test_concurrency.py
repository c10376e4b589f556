"""How many containers are started where processors have no time left, in virtual time: as many as are of use."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.agent import OBEDIENT, WATCH_S, Bench, bench
from tests.support.processors import CLIENTS, HAND_OVER_S, Processors, under_load
from tests.support.virtual_time import run

from hearth.agent.scaling.adaptive import AdaptivePolicy
from hearth.agent.scaling.base import ScalingPolicy
from hearth.agent.scaling.simple import SimplePolicy
from hearth.models.function import Amount
from hearth.testing.script import Pipe, Script, Step


def played(orders: dict[str, float], seconds: float, then: dict[str, float] | None = None) -> list[tuple[int, int]]:
    """Calls a second and containers there were, for each load; a machine of two processors that have no time left."""

    async def whole() -> list[tuple[int, int]]:
        processors = Processors(asyncio.Semaphore(2))
        async with bench(images={"obey": processors.image()}, max_starts=2, are_busy=lambda: True) as on:
            found = []
            for load in (orders, then):
                if load is not None:
                    answered = await under_load(on, load, seconds)
                    found.append((round(answered / seconds), on.driver.counts.prepared))
            return found

    return run(whole())


@pytest.mark.parametrize("burn", [0.01, 0.1])
def test_a_function_that_uses_processors_gets_few_containers(burn: float) -> None:
    ((rate, containers),) = played({"burn": burn}, 5)
    assert containers <= 12
    assert rate >= 0.9 * 2 / (burn + HAND_OVER_S)


@pytest.mark.parametrize("wait", [0.1, 1.0])
def test_a_function_that_waits_gets_many(wait: float) -> None:
    ((rate, containers),) = played({"wait": wait}, 6)
    assert containers == CLIENTS
    assert rate >= 0.3 * CLIENTS / wait  # those that get ready take their time


def test_a_function_that_comes_to_wait_gets_more() -> None:
    (_, before), (rate, after) = played({"burn": 0.01}, 5, then={"wait": 0.1})
    assert before <= 12
    assert after == CLIENTS
    assert rate >= 0.3 * CLIENTS / 0.1


def test_a_burst_on_an_idle_machine_finds_what_the_last_load_showed() -> None:
    async def whole() -> None:
        processors, busy = Processors(asyncio.Semaphore(2)), [True]
        async with bench(images={"obey": processors.image()}, max_starts=2, are_busy=lambda: busy[0]) as on:
            await under_load(on, {"burn": 0.01}, 3)
            found, busy[0] = on.driver.counts.prepared, False
            await burst(on, burn=0.001)
            assert on.driver.counts.prepared == found
            await burst(on, wait=1.0)
            assert on.driver.counts.prepared == CLIENTS

    async def burst(on: Bench, **orders: float) -> None:
        await asyncio.gather(*[on.ask(on.function(memory=1), **orders) for _ in range(CLIENTS)])

    run(whole())


@pytest.mark.parametrize("scaling", [AdaptivePolicy(), SimplePolicy(), SimplePolicy(start_delay_s=60.0)], ids=str)
@pytest.mark.parametrize("start_s", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("timeout", [1, 2, 10])
@pytest.mark.parametrize("format_name", ["json", "default"])
def test_bounds_on_starts_fail_no_call_while_memory_is_free(
    start_s: float, timeout: int, format_name: str, scaling: ScalingPolicy
) -> None:
    """Twenty calls at once of a function that waits for a quarter of its timeout, on processors without idle time."""

    async def cold(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        await asyncio.sleep(timeout / 4)
        return 0

    async def whole() -> None:
        images = {
            "default": Script(main=cold, create=Step(delay_s=start_s * timeout / 2)),
            "json": Script(main=OBEDIENT, start=Step(delay_s=start_s * timeout / 2)),
        }
        options: dict[str, Any] = {"max_starts": 2, "are_busy": lambda: True, "scaling": scaling}
        async with bench(Amount(2048, 100_000), images, **options) as on:
            function = on.function(image=format_name, format=format_name, memory=64, timeout=timeout)
            calls = [on.call(function, sleep=timeout / 4) for _ in range(20)]
            await asyncio.gather(*[on.agent.submit(call) for call in calls])
            assert on.statuses() == ["success"] * 20

    run(whole())


def test_a_container_that_is_being_removed_serves_no_waiting_call() -> None:
    async def whole() -> None:
        images = {"slow to go": Script(main=OBEDIENT, remove=Step(delay_s=60.0))}
        async with bench(images=images) as on:
            function = on.function(image="slow to go", memory=10, timeout=100)
            await on.ask(function)
            await asyncio.sleep(WATCH_S)
            on.agent.pool.retire(function)  # idle: it ends now
            begun = on.clock.monotonic()
            await on.ask(function)
            assert on.clock.monotonic() - begun < 1

    run(whole())


def test_a_start_delay_lets_calls_wait_for_a_busy_container_first() -> None:
    async def whole() -> None:
        for start_delay_s, containers in ((0.0, 5), (0.3, 4), (2.0, 1)):
            async with bench(scaling=AdaptivePolicy(start_delay_s), max_starts=8) as on:
                function = on.function(memory=10, timeout=100)
                await on.ask(function)
                await asyncio.gather(*[on.ask(function, sleep=0.2) for _ in range(5)])
                assert on.driver.counts.prepared == containers

    run(whole())


def test_starts_of_another_function_that_hang_fail_no_call() -> None:
    async def whole() -> None:
        images = {"hangs": Script(start=Step(held=True))}
        async with bench(images=images, max_starts=2) as on:
            slow = on.function("/slow", image="hangs", memory=10, timeout=100)
            hanging = [on.start(slow) for _ in range(8)]
            await asyncio.sleep(0.001)
            assert await on.ask(on.function(memory=10, timeout=1), echo="quick") == "quick"
            for task in hanging:
                task.cancel()
            await asyncio.wait(hanging)
            images["hangs"].start.release()

    run(whole())


def test_a_large_burst_of_calls_with_a_short_timeout_gets_its_containers_in_time() -> None:
    async def whole() -> None:
        images = {"obey": Script(main=OBEDIENT, start=Step(delay_s=0.1))}
        async with bench(Amount(2048, 100_000), images, max_starts=2, are_busy=lambda: True) as on:
            function = on.function(memory=4, timeout=1)
            await asyncio.gather(*[on.ask(function, sleep=0.3) for _ in range(300)])
            assert on.statuses() == ["success"] * 300

    run(whole())
