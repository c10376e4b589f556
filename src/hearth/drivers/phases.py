"""Time limits of the drivers that limit the phases of a container's life themselves."""

from __future__ import annotations

import asyncio

from hearth.aio.clock import Clock
from hearth.drivers.base import OutOfTime


async def finish_within(work: asyncio.Task[None], phase: str, limit_s: float, clock: Clock) -> None:
    """Wait for work that continues if this wait is cancelled; raise what the work raised.

    Raises:
        OutOfTime: The work took longer than ``limit_s``.
    """
    late: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_at(clock.monotonic() + limit_s, late.set_result, None)
    try:
        await asyncio.wait([work, late], return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
    if not work.done():
        raise OutOfTime(phase, limit_s)
    work.result()
