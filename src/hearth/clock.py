"""Time, injectable: wall time for records, loop time for waiting. The only module that reads a clock."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable
from typing import Any, Final, Protocol


class Clock(Protocol):
    """Where Hearth gets its time. Durations and deadlines use :meth:`monotonic`; wall time is for display only."""

    def now(self) -> dt.datetime:
        """The wall time, aware, in UTC."""

    def now_ms(self) -> int:
        """Milliseconds of wall time since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never step back; the time base of :meth:`call_at`."""

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call back at ``when`` (in :meth:`monotonic` seconds); the handle cancels."""


#: Nanoseconds of wall time since the epoch: for what is measured and told so often that a call more would tell.
wall_ns: Final = time.time_ns


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    def now(self) -> dt.datetime:
        """The wall time, aware, in UTC."""
        return dt.datetime.now(dt.UTC)

    def now_ms(self) -> int:
        """Milliseconds of wall time since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """The time base of event loops, without a look at which one runs: that costs a system call."""
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call back at ``when`` on the running loop."""
        return asyncio.get_running_loop().call_at(when, callback, *args)


async def pause(clock: Clock, seconds: float) -> None:
    """Wait so long: between two tries of something that failed, where no event can tell."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    handle = clock.call_at(clock.monotonic() + seconds, over.set_result, None)
    try:
        await over
    finally:
        handle.cancel()
