"""What drivers share that measure containers themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from hearth.clock import Clock

#: The metrics of a sample (agent specification 11).
METRICS: Final = (
    "net_rx",
    "net_tx",
    "mem_limit",
    "mem_usage",
    "disk_read",
    "disk_write",
    "cpu_user",
    "cpu_total",
    "cpu_kernel",
)


async def every_second(clock: Clock, ended: asyncio.Future[Any]) -> AsyncIterator[None]:
    """Tick once a second until ``ended`` is done."""
    due = clock.monotonic() + 1.0
    while not ended.done():
        tick: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = clock.call_at(due, _resolve, tick)
        try:
            await asyncio.wait([tick, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        if ended.done():
            return
        yield
        due = max(due, clock.monotonic()) + 1.0


def _resolve(tick: asyncio.Future[None]) -> None:
    if not tick.done():
        tick.set_result(None)
