"""An event loop whose time passes only when nobody has anything to do."""

from __future__ import annotations

import asyncio
import datetime as dt
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from hearth.clock import SystemClock

T = TypeVar("T")


class Deadlock(RuntimeError):
    """Everybody waits and no timer is set."""


class _Selector(selectors.BaseSelector):
    """Never sleeps: where the loop would wait, it advances the time. There is no I/O to wait for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("everybody waits, and no timer is set")
        self.now += max(0.0, timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, -1, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Any:
        return self._keys


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For :class:`asyncio.Runner`: a loop without I/O and threads, in which waiting costs nothing."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._virtual.now


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
