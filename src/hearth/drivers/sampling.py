"""Sampling loops of the drivers that measure containers themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

from hearth.aio.background import Background
from hearth.aio.clock import Clock

_T = TypeVar("_T")


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


async def until_ended(source: AsyncIterator[_T], ended: asyncio.Future[Any]) -> AsyncIterator[_T]:
    """Yield from ``source`` until ``ended`` is done, even if the source still waits."""
    background = Background()
    try:
        while not ended.done():
            step = background.start(_next(source))
            try:
                await asyncio.wait([step, ended], return_when=asyncio.FIRST_COMPLETED)
            finally:
                await background.cancel()
            if step.cancelled() or not (found := step.result()):
                return
            yield found[0]
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()


async def _next(source: AsyncIterator[_T]) -> tuple[_T, ...]:
    async for item in source:
        return (item,)
    return ()


def _resolve(tick: asyncio.Future[None]) -> None:
    if not tick.done():
        tick.set_result(None)
