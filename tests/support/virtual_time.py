"""An event loop on which time costs nothing: when nobody can run, it is at once as late as the next timer says.

For tests and simulations of code that waits on the loop's own timers. There are no threads, signals or descriptors: a
coroutine that needs a file or a socket does not run here. Usable as ``asyncio.Runner(loop_factory=VirtualLoop)``.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Deadlock(RuntimeError):
    """Every task waits, and nothing is scheduled that could wake one."""


class _Idle:
    """What the loop asks to wait: time jumps instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        """Be later by ``timeout``."""
        if timeout is None:
            waiting = ", ".join(sorted(task.get_name() for task in asyncio.all_tasks(self._loop)))
            raise Deadlock(f"nothing is scheduled at {self._loop.time():g} s, and these tasks wait: {waiting}")
        self._loop.elapsed += timeout
        return []

    def close(self) -> None:
        """Nothing is open."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Virtual time.

    Attributes:
        elapsed: Seconds since the loop was made; what :meth:`time` tells.
    """

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0
        self._clock_resolution = 1e-9  # a timer is due although the sum of the jumps is a rounding error before it
        self._selector = _Idle(self)

    def time(self) -> float:
        """Seconds of virtual time."""
        return self.elapsed

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """No other thread has to wake this one."""


class VirtualClock:
    """A :class:`hearth.aio.clock.Clock` that follows the running :class:`VirtualLoop`, wall time included."""

    def now(self) -> dt.datetime:
        """Wall time."""
        return _EPOCH + dt.timedelta(seconds=self.monotonic())

    def now_ms(self) -> int:
        """Wall time in milliseconds since 1970."""
        return round(self.now().timestamp() * 1000)

    def now_ns(self) -> int:
        """Wall time in nanoseconds since 1970."""
        return self.now_ms() * 1_000_000

    def monotonic(self) -> float:
        """Loop time."""
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """A timer of the loop."""
        return asyncio.get_running_loop().call_at(when, callback, *args)


def run(scenario: Coroutine[Any, Any, T], limit_s: float = 2000.0) -> T:
    """Run a scenario in virtual time.

    Raises:
        TimeoutError: It was still not over after so many virtual seconds.
    """

    async def bounded() -> T:
        async with asyncio.timeout(limit_s):
            return await scenario

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(bounded())
