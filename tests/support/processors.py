"""A machine of a few processors in virtual time: programs that compute stand in line for one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

from hearth.testing.script import Pipe, Script
from tests.support.agent import Bench, answer, function_program

#: Processor time that a program needs to get ready, and that each call costs beside its own work, seconds.
BOOT_S, HAND_OVER_S = 0.05, 0.0005
CLIENTS = 60


@dataclasses.dataclass
class Processors:
    """Any number of them; work waits in line for a free one."""

    free: asyncio.Semaphore

    async def work(self, seconds: float) -> None:
        """Use one of them for some seconds."""
        async with self.free:
            await asyncio.sleep(seconds)

    def image(self) -> Script:
        """Return a function that gets ready, then burns or waits, as its caller says."""

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
    """Keep one call of each client under way for some seconds; return the number of answers."""
    function, until, answered = on.function(memory=1), on.clock.monotonic() + seconds, 0

    async def client() -> None:
        nonlocal answered
        while on.clock.monotonic() < until:
            await on.ask(function, **orders)
            answered += 1

    await asyncio.gather(*[client() for _ in range(CLIENTS)])
    return answered
