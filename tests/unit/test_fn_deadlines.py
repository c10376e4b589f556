"""The timeout of a fn begins when a container has its call; that of a route when the call arrives."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from tests.support.agent import OBEDIENT, Bench, answer, bench, function_program
from tests.support.virtual_time import run

from hearth.models.errors import CallTimeout, ServerBusy
from hearth.models.function import Amount, FunctionRef, FunctionSpec
from hearth.testing.script import Pipe, Script, Step

START_S = 40.0


def play(scenario: Callable[[Bench], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def whole() -> None:
        async with bench(start_limit_s=START_S, **options) as on:
            await scenario(on)

    run(whole())


def fn(on: Bench, **fields: Any) -> FunctionSpec:
    """A fn; its format is one that a scripted container speaks."""
    spec = on.function(**fields)
    return msgspec.structs.replace(spec, ref=FunctionRef(id="F", app_id="A", app_name="a", name="f"))


def test_a_start_does_not_count() -> None:
    slow = Script(main=OBEDIENT, start=Step(delay_s=20))

    async def scenario(on: Bench) -> None:
        with pytest.raises(ServerBusy):
            await on.ask(on.function(image="slow", timeout=4))  # of a route: half of its timeout
        begun = on.clock.monotonic()
        assert await on.ask(fn(on, image="slow", timeout=4), sleep=3, echo="here") == "here"
        assert on.clock.monotonic() - begun == pytest.approx(23, abs=0.2)

    play(scenario, images={"slow": slow})


def test_a_call_that_waits_has_all_of_its_time_later() -> None:
    async def scenario(on: Bench) -> None:
        only = fn(on, timeout=4)
        first = on.start(only, sleep=3)
        second = on.start(only, sleep=3, echo="second")
        assert (await first, await second) == ("", "second")
        assert on.driver.counts.started == 1

    play(scenario, total=Amount(200, 8000))


def test_a_run_that_takes_too_long_is_ended_after_the_timeout() -> None:
    slow = Script(main=OBEDIENT, start=Step(delay_s=7))

    async def scenario(on: Bench) -> None:
        begun = on.clock.monotonic()
        with pytest.raises(CallTimeout):
            await on.ask(fn(on, image="slow", timeout=2), sleep=100)
        assert on.clock.monotonic() - begun == pytest.approx(9, abs=0.2)
        (ended,) = on.records.ended
        assert (ended.call.status, ended.call.error) == ("timeout", "timed out after 2 s (timeout of the fn)")

    play(scenario, images={"slow": slow})


def test_the_function_is_told_the_deadline_of_its_run() -> None:
    told: list[str] = []

    async def note(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> None:
        told.append(call["deadline"])
        await stdout.write(answer("ok"))

    async def scenario(on: Bench) -> None:
        await on.ask(fn(on, image="noting", timeout=4))
        (ended,) = on.records.ended
        started = ended.call.started_at
        assert started - ended.call.created_at == pytest.approx(dt.timedelta(seconds=6), abs=dt.timedelta(seconds=0.1))
        deadline = dt.datetime.fromisoformat(told[0])
        assert abs(deadline - started - dt.timedelta(seconds=4)) <= dt.timedelta(milliseconds=1)

    play(scenario, images={"noting": Script(main=function_program(note), start=Step(delay_s=6))})


def test_a_wait_ends_after_the_limits_of_a_start_and_the_timeout() -> None:
    never = Script(main=OBEDIENT, start=Step(held=True))

    async def scenario(on: Bench) -> None:
        begun = on.clock.monotonic()
        with pytest.raises(ServerBusy):
            await on.ask(fn(on, image="never", timeout=4))
        assert on.clock.monotonic() - begun == pytest.approx(START_S + 4)
        never.start.release()

    play(scenario, images={"never": never})


def test_a_call_that_moves_to_another_container_has_all_of_its_time_there() -> None:
    async def scenario(on: Bench) -> None:
        function = fn(on, timeout=4)
        assert await on.ask(function, echo="warm") == "warm"
        await asyncio.sleep(0.1)
        (container,) = on.driver.containers.values()
        moved = on.start(function, sleep=3.5, echo="moved")
        await container.kill()
        assert await moved == "moved"
        assert on.statuses() == ["success"] * 2

    play(scenario)
