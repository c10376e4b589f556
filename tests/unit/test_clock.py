"""Waits that are given up in the very turn in which they end."""

from __future__ import annotations

import asyncio
from typing import Any

from hearth.aio.clock import SystemClock, next_turn, pause


async def test_a_wait_that_is_given_up_in_the_turn_in_which_it_ends_is_no_error() -> None:
    loop = asyncio.get_running_loop()
    errors: list[Any] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    waits: list[asyncio.Task[None]] = []

    async def cancel() -> None:
        for wait in waits:
            wait.cancel()

    waits.append(loop.create_task(next_turn()))
    waits.append(loop.create_task(pause(SystemClock(), 0)))
    await asyncio.gather(loop.create_task(cancel()), *waits, return_exceptions=True)
    assert errors == []
    assert all(wait.cancelled() for wait in waits)
