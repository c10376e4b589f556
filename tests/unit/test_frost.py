"""Containers that are frozen while nobody calls them, scripted and in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.agent import OBEDIENT, Bench, bench, settle
from tests.support.virtual_time import run
from tests.unit.test_shared_containers import Crowd, shared

from hearth.drivers.base import DriverError, Exit
from hearth.models.function import Amount
from hearth.testing.script import Script, Step
from hearth.testing.scripted_driver import FakeContainer

IDLE_S = 0.1


def only(on: Bench) -> FakeContainer:
    (container,) = on.driver.containers.values()
    return container


def frozen_metric(on: Bench, path: str = "/f") -> float:
    series = on.agent.telemetry.metrics.gauge("hearth_containers_frozen").series("a", path)
    return series.value


def test_an_idle_container_is_frozen_and_runs_during_calls() -> None:
    async def play() -> None:
        async with bench(freeze_idle_s=IDLE_S) as on:
            function = on.function()
            for number in range(3):
                call = on.start(function, sleep=1, echo=str(number))
                await asyncio.sleep(0.5)
                assert not only(on).is_frozen
                assert await call == str(number)
                await asyncio.sleep(0.05)
                assert not only(on).is_frozen
                await asyncio.sleep(0.2)
                assert only(on).is_frozen
                assert frozen_metric(on) == 1
            assert on.driver.counts.started == 1
        assert frozen_metric(on) == 0

    run(play())


def test_nothing_is_frozen_unless_that_is_asked_for() -> None:
    async def play() -> None:
        async with bench() as on:
            await on.ask(on.function(), echo="")
            await asyncio.sleep(20)
            assert not only(on).is_frozen

    run(play())


def test_a_call_that_comes_while_its_container_is_frozen_waits_and_runs() -> None:
    async def play() -> None:
        script = Script(main=OBEDIENT, freeze=Step(delay_s=2), thaw=Step(delay_s=1))
        async with bench(images={"obey": script}, freeze_idle_s=IDLE_S) as on:
            function = on.function()
            await on.ask(function, echo="")
            await asyncio.sleep(0.5)
            call = on.start(function, echo="x")
            await asyncio.sleep(2)
            assert not call.done()
            await asyncio.sleep(1)
            assert call.done()
            assert await call == "x"
            assert on.driver.counts.started == 1

    run(play())


def test_a_container_that_does_not_thaw_is_replaced() -> None:
    async def play(thaw: Step) -> None:
        script = Script(main=OBEDIENT, thaw=thaw)
        async with bench(images={"obey": script}, freeze_idle_s=IDLE_S) as on:
            function = on.function()
            await on.ask(function, echo="")
            await asyncio.sleep(1)
            assert await on.ask(function, echo="x") == "x"
            await settle()
            assert (on.driver.counts.started, on.driver.counts.removed) == (2, 1)
            assert frozen_metric(on) == 0

    run(play(Step(error=DriverError("trouble"))))
    run(play(Step(held=True)))  # until its limit


def test_a_client_that_leaves_during_a_thaw_loses_no_container_of_others() -> None:
    async def play() -> None:
        script = Script(main=OBEDIENT, thaw=Step(delay_s=1))
        async with bench(images={"obey": script}, freeze_idle_s=IDLE_S) as on:
            function = on.function()
            await on.ask(function, echo="")
            await asyncio.sleep(1)
            call = on.start(function, echo="x")
            await asyncio.sleep(0.5)
            call.cancel()
            await settle()
            assert await on.ask(function, echo="y") == "y"

    run(play())


def test_a_container_that_cannot_be_frozen_serves_on() -> None:
    async def play() -> None:
        script = Script(main=OBEDIENT, freeze=Step(error=DriverError("trouble")))
        async with bench(images={"obey": script}, freeze_idle_s=IDLE_S) as on:
            function = on.function()
            for _ in range(3):
                assert await on.ask(function, echo="x") == "x"
                await asyncio.sleep(1)
            assert on.driver.counts.started == 1
            assert frozen_metric(on) == 0

    run(play())


def test_frozen_containers_give_way_end_after_their_idle_time_and_with_their_node() -> None:
    async def play() -> None:
        async with bench(total=Amount(400, 8000), freeze_idle_s=IDLE_S) as on:
            await on.ask(on.function("/1", memory=300), echo="")
            await asyncio.sleep(1)
            assert only(on).is_frozen
            assert await on.ask(on.function("/2", memory=300, idle_timeout=5), echo="x") == "x"
            await asyncio.sleep(1)
            assert only(on).is_frozen
            await asyncio.sleep(6)
            assert on.driver.containers == {}
            await on.ask(on.function("/2", memory=300), echo="")
            await asyncio.sleep(1)
            assert only(on).is_frozen

    run(play())


def test_a_frozen_container_that_ends_is_not_called() -> None:
    async def play() -> None:
        async with bench(freeze_idle_s=0.0) as on:
            function = on.function()
            await on.ask(function, echo="")
            await asyncio.sleep(1)
            only(on).end(Exit(137))
            assert await on.ask(function, echo="x") == "x"
            assert on.driver.counts.started == 2

    run(play())


def test_a_container_of_several_calls_is_frozen_when_the_last_one_has_ended() -> None:
    async def play() -> None:
        images: dict[str, Any] = {"crowd": Script(main=Crowd())}
        async with bench(images=images, freeze_idle_s=IDLE_S) as on:
            function = shared(on)
            calls = [on.start(function, sleep=n, echo=str(n)) for n in range(1, 4)]
            for _ in range(5):
                await asyncio.sleep(0.5)
                assert not only(on).is_frozen
            await asyncio.gather(*calls)
            await asyncio.sleep(1)
            assert only(on).is_frozen
            assert await asyncio.gather(*[on.ask(function, echo=str(n)) for n in range(3)]) == ["0", "1", "2"]
            assert on.driver.counts.started == 1

    run(play())


def test_a_kept_connection_does_not_outlast_a_pause() -> None:
    async def play() -> None:
        crowd = Crowd()
        async with bench(images={"crowd": Script(main=crowd)}, freeze_idle_s=IDLE_S) as on:
            function = on.function(image="crowd", format="http-stream")
            for number in range(8):  # proven, so that its connection is kept
                assert await on.ask(function, echo=str(number)) == str(number)
            known = crowd.connections
            assert await on.ask(function, echo="x") == "x"
            assert crowd.connections == known
            await asyncio.sleep(IDLE_S + 0.05)
            assert only(on).is_frozen
            assert await on.ask(function, echo="x") == "x"
            assert crowd.connections == known + 1

    run(play())
