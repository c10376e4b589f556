"""How many containers start for callers that wait for each answer, whatever comes late."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.agent import Bench, answer, bench, function_program
from tests.support.virtual_time import run

from hearth.testing.script import Pipe, Script, Step
from hearth.testing.scripted_driver import FakeDriver

delays = st.sampled_from([0.0, 0.0001, 0.001, 0.0049, 0.005, 0.0051, 0.02, 0.049, 0.19, 0.21, 0.5])


@pytest.fixture(params=[False, True], ids=["stderr in time", "stderr lags"], autouse=True)
def stderr_lags(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    capabilities = dataclasses.replace(FakeDriver.capabilities, stderr_lags=request.param)
    monkeypatch.setattr(FakeDriver, "capabilities", capabilities)
    return bool(request.param)


async def late_writer(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> None:
    """Writes to stderr before and after its answer."""
    await asyncio.sleep(0.001)
    await stderr.write(b"before\n")
    await stdout.write(answer(""))
    await asyncio.sleep(0.004)
    await stderr.write(b"after\n")


def play(scenario: Any, behave: Any = late_writer, **script: Any) -> None:
    async def whole() -> None:
        async with bench(images={"late": Script(main=function_program(behave), **script)}) as on:
            await scenario(on)

    run(whole())


def test_one_caller_starts_one_container() -> None:
    async def scenario(on: Bench) -> None:
        function = on.function(image="late")
        for _ in range(30):
            await on.ask(function)
        assert on.driver.counts.started == 1

    play(scenario)


def test_one_caller_evicts_no_container_of_another_function() -> None:
    async def scenario(on: Bench) -> None:
        other = on.function(path="/other", memory=400)
        await on.ask(other)
        await asyncio.sleep(1)
        function = on.function(image="late", memory=400)
        for _ in range(30):
            await on.ask(function)
        assert on.driver.counts.started == 2
        assert await on.ask(other, echo="warm") == "warm"
        assert on.driver.counts.started == 2

    play(scenario)


@settings(max_examples=60, deadline=None)
@given(
    callers=st.integers(1, 4),
    before=delays,
    after=delays,
    think=delays,
    starts=delays,
)
def test_n_callers_that_wait_for_each_answer_start_at_most_n_containers(
    callers: int, before: float, after: float, think: float, starts: float
) -> None:
    async def writer(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> None:
        await asyncio.sleep(before)
        await stderr.write(b"before\n")
        await stdout.write(answer(""))
        await asyncio.sleep(after)
        await stderr.write(b"after\n")

    async def scenario(on: Bench) -> None:
        function = on.function(image="late")

        async def caller() -> None:
            for _ in range(10):
                await on.ask(function)
                await asyncio.sleep(think)

        await asyncio.gather(*[caller() for _ in range(callers)])
        assert on.driver.counts.started <= callers

    play(scenario, writer, start=Step(delay_s=starts))
