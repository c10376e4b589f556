"""The injected clock: wall time for records, loop time for waits. The only module that reads a clock."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import time
from collections.abc import Callable
from typing import Any, Final, Protocol


class Clock(Protocol):
    """The source of time. Durations and deadlines use :meth:`monotonic`; wall time is for display only."""

    def now(self) -> dt.datetime:
        """Return the wall time, aware, in UTC."""

    def now_ms(self) -> int:
        """Return the milliseconds of wall time since the epoch."""

    def now_ns(self) -> int:
        """Return the nanoseconds of wall time since the epoch."""

    def monotonic(self) -> float:
        """Return seconds that never step back; the time base of :meth:`call_at`."""

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call back at ``when`` (in :meth:`monotonic` seconds); the handle cancels."""


#: Nanoseconds of wall time since the epoch, for measurements so frequent that one more function call matters.
wall_ns: Final = time.time_ns


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    # Functions of the library itself, because every call asks a dozen times.
    #: The wall time, aware, in UTC.
    now = staticmethod(functools.partial(dt.datetime.now, dt.UTC))
    #: The nanoseconds of wall time since the epoch.
    now_ns = staticmethod(time.time_ns)
    #: The time of event loops without looking up the running loop, which takes a system call.
    monotonic = staticmethod(time.monotonic)

    def now_ms(self) -> int:
        """Return the milliseconds of wall time since the epoch."""
        return time.time_ns() // 1_000_000

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call back at ``when`` on the running loop."""
        return asyncio.get_running_loop().call_at(when, callback, *args)


async def next_turn() -> None:
    """Let the event loop run everything else that is ready first."""
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    handle = asyncio.get_running_loop().call_soon(_end, turn)
    try:
        await turn
    finally:
        handle.cancel()


async def pause(clock: Clock, seconds: float) -> None:
    """Wait between two tries of something that failed, where no event says when to try again."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    handle = clock.call_at(clock.monotonic() + seconds, _end, over)
    try:
        await over
    finally:
        handle.cancel()


def _end(wait: asyncio.Future[None]) -> None:
    """End a wait, unless it was given up in the same turn of the loop."""
    if not wait.done():
        wait.set_result(None)
