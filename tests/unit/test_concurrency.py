"""How many containers are started where processors have no time left, in virtual time: as many as are of use."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest
from tests.support.agent import Bench, answer, bench, function_program
from tests.support.virtual_time import run

from hearth.drivers.script import Pipe, Script

#: What a program uses of a processor to get ready, and whatever has to do with a call for that, seconds.
BOOT_S, HAND_OVER_S = 0.05, 0.0005
CLIENTS = 60


@dataclasses.dataclass
class Processors:
    """Two of them, or any number; who needs one waits in line."""

    free: asyncio.Semaphore

    async def work(self, seconds: float) -> None:
        """Use one for so long."""
        async with self.free:
            await asyncio.sleep(seconds)

    def image(self) -> Script:
        """A function that gets ready, then burns or waits, as its caller says."""

        async def behave(call: dict[str, Any], stdout: Pipe, stderr: Pipe) -> int | None:
            orders = json.loads(call["body"])
            await self.work(HAND_OVER_S + orders.get("burn", 0.0))
            await asyncio.sleep(orders.get("wait", 0.0))
            await stdout.write(answer("done"))
            return None

        program = function_program(behave)

        async def main(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
            await self.work(BOOT_S)
            return await program(stdin, stdout, stderr)

        return Script(main=main)


async def under_load(on: Bench, orders: dict[str, float], seconds: float) -> int:
    """As many calls as there are clients at any time; how many were answered."""
    function, until, answered = on.function(memory=1), on.clock.monotonic() + seconds, 0

    async def client() -> None:
        nonlocal answered
        while on.clock.monotonic() < until:
            await on.ask(function, **orders)
            answered += 1

    await asyncio.gather(*[client() for _ in range(CLIENTS)])
    return answered


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
