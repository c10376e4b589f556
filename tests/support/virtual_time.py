"""An event loop whose time passes only when nobody has anything to do.

For tests and simulations of code that waits on the loop's own timers. There are no threads, signals or descriptors: a
coroutine that needs a file or a socket does not run here. Usable as ``asyncio.Runner(loop_factory=VirtualTimeLoop)``.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Coroutine
from typing import Any, TypeVar

from hearth.clock import SystemClock

T = TypeVar("T")


class Deadlock(RuntimeError):
    """Everybody waits and no timer is set."""


class _Idle:
    """What the loop asks to wait: never sleeps, but is at once as late as the next timer says."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            waiting = ", ".join(sorted(task.get_name() for task in asyncio.all_tasks(self._loop)))
            raise Deadlock(f"no timer is set at {self._loop.time():g} s, and these tasks wait: {waiting}")
        self._loop.elapsed += timeout
        return []

    def close(self) -> None:
        """Nothing is open."""


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """A loop without I/O and threads, in which waiting costs nothing.

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


class VirtualClock(SystemClock):
    """A clock whose wall time follows the loop's."""

    _EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def now(self) -> dt.datetime:
        """The wall time."""
        return self._EPOCH + dt.timedelta(seconds=self.monotonic())

    def now_ms(self) -> int:
        """Milliseconds of wall time."""
        return round(self.now().timestamp() * 1000)


def run(scenario: Coroutine[Any, Any, T], limit_s: float = 2000.0) -> T:
    """Run a scenario in virtual time.

    Raises:
        TimeoutError: It was still not over after so many virtual seconds.
    """

    async def bounded() -> T:
        async with asyncio.timeout(limit_s):
            return await scenario

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(bounded())
