"""Time that passes when a test says so."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any


class Handle(asyncio.TimerHandle):
    """A timer of a :class:`FakeClock`."""

    def __init__(self, when: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__(when, callback, args, asyncio.get_running_loop())

    def fire(self) -> None:
        """Call back, as a loop does."""
        self._run()

    def cancel(self) -> None:
        """The loop never heard of this timer (uvloop's would refuse to)."""
        asyncio.Handle.cancel(self)


class FakeClock:
    """A :class:`hearth.aio.clock.Clock`: timers fire within :meth:`advance`, in order of their time."""

    def __init__(self) -> None:
        self._elapsed = 0.0
        self._wall = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        self._timers: list[Handle] = []

    def now(self) -> dt.datetime:
        return self._wall + dt.timedelta(seconds=self._elapsed)

    def now_ms(self) -> int:
        return round(self.now().timestamp() * 1000)

    def now_ns(self) -> int:
        return self.now_ms() * 1_000_000

    def monotonic(self) -> float:
        return self._elapsed

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        handle = Handle(when, callback, args)
        self._timers.append(handle)
        return handle

    def set_wall(self, seconds: float) -> None:
        """Somebody sets the wall clock forward (or back); monotonic time does not notice."""
        self._wall += dt.timedelta(seconds=seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self._elapsed + seconds
        while due := sorted([t for t in self._timers if not t.cancelled() and t.when() <= end], key=lambda t: t.when()):
            self._timers.remove(due[0])
            self._elapsed = max(self._elapsed, due[0].when())
            due[0].fire()
        self._elapsed = end
        self._timers = [timer for timer in self._timers if not timer.cancelled()]

    @property
    def pending(self) -> int:
        """Timers that are armed."""
        return sum(not timer.cancelled() for timer in self._timers)


class Hasty(FakeClock):
    """A clock on which no wait takes any time."""

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call back in the next turn."""
        handle = super().call_at(when, callback, *args)
        asyncio.get_running_loop().call_soon(self.advance, max(0.0, when - self.monotonic()))
        return handle
