"""A function whose containers are warm: a call and its container disturb nobody, until somebody has to hear of them."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from tests.support.agent import OBEDIENT, WATCH_S, Bench, bench, settle
from tests.support.virtual_time import run

from hearth.agent.launcher import HotLauncher
from hearth.drivers.base import StartFailed
from hearth.models.function import FunctionSpec
from hearth.testing.script import Script, Step


async def warm(on: Bench, function: FunctionSpec) -> HotLauncher:
    """Call a function until its container is proven and its launcher need not hear of calls any more."""
    for _ in range(10):
        await on.ask(function)
        await asyncio.sleep(WATCH_S)
    return on.agent.pool.launchers[function.hot_key]


def test_a_warm_call_does_not_concern_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with bench() as on:
            function, later = on.function(), on.function("/later", type="async")
            await warm(on, function)
            await warm(on, later)
            heard: list[HotLauncher] = []
            monkeypatch.setattr(HotLauncher, "container_idle", lambda self, hot: heard.append(self))
            await on.ask(function)
            assert heard == []
            await on.ask(later)
            assert [one.function.spec for one in heard] == [later]

    run(scenario())


def test_a_warm_container_ends_after_its_call_if_the_function_has_changed() -> None:
    async def scenario() -> None:
        async with bench() as on:
            await warm(on, on.function())
            call = on.start(on.functions.of_route(on.records.app, on.records.routes["/f"]), sleep=1)  # type: ignore[arg-type]
            await settle()
            on.function(timeout=7)
            await call
            await asyncio.sleep(WATCH_S)
            assert on.driver.containers == {}

    run(scenario())


def test_a_warm_container_gives_way_after_its_call_if_another_function_waits_for_memory() -> None:
    async def scenario() -> None:
        async with bench() as on:
            function = on.function(memory=900, timeout=60)
            await warm(on, function)
            long = on.start(function, sleep=1)
            await settle()
            assert await on.ask(on.function("/other", memory=900, timeout=60), echo="x") == "x"
            await long
            assert on.clock.monotonic() < 10

    run(scenario())


def test_memory_that_is_no_longer_short_leaves_the_launcher_alone_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with bench() as on:
            function = on.function(memory=100, timeout=60)
            await warm(on, function)
            waits = on.start(on.function("/other", memory=950, timeout=60))
            await asyncio.gather(on.start(function, sleep=1), waits)
            await warm(on, function)
            heard: list[Any] = []
            monkeypatch.setattr(HotLauncher, "container_idle", lambda self, hot: heard.append(self))
            await on.ask(function)
            assert heard == []

    run(scenario())


def test_calls_that_have_waited_do_not_count_as_waiting_for_ever() -> None:
    async def scenario() -> None:
        slow = Script(main=OBEDIENT)
        async with bench(images={"slow": slow}) as on:
            function = on.function(image="slow", timeout=60)
            launcher = await warm(on, function)
            slow.start = Step(delay_s=20)
            await asyncio.gather(*[on.start(function, sleep=seconds) for seconds in (1, 1, 0)])
            now = launcher.snapshot(on.clock.monotonic())
            assert now.waiting_since == math.inf
            assert now.waited_s == pytest.approx(2, abs=WATCH_S)

    run(scenario())


def test_a_container_that_serves_ends_the_back_off_of_failed_starts() -> None:
    async def scenario() -> None:
        shaky = Script(main=OBEDIENT)
        async with bench(images={"shaky": shaky}) as on:
            function = on.function(image="shaky", timeout=60)
            await asyncio.gather(*[on.start(function, sleep=1) for _ in range(2)])
            launcher = await warm(on, function)
            assert launcher.counts.snapshot()["idle"] == 2
            shaky.start = Step(delay_s=3, error=StartFailed("trouble"), failures=1)
            calls = [on.start(function, sleep=seconds) for seconds in (6, 1, 1)]
            await asyncio.sleep(5)  # the third call had the container of the second before the start failed
            assert launcher.failures.in_a_row == 1
            await asyncio.gather(*calls)
            await asyncio.sleep(WATCH_S)
            assert launcher.failures.in_a_row == 0

    run(scenario())


def test_room_for_async_calls_is_announced_when_a_warm_container_turns_idle() -> None:
    async def scenario() -> None:
        async with bench() as on:
            later = on.function("/later", type="async", memory=100)
            await warm(on, later)
            call = on.start(later, sleep=1)
            await settle()
            on.agent.pool.room_changed.clear()
            await call
            assert on.agent.pool.room_changed.is_set()

    run(scenario())
