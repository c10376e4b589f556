"""Limits on waiting that most often are not reached, thousands at a time.

A timer of the loop costs several microseconds to set and to cancel, and a call of a function has three. What waits
equally long expires in the order in which it began: so it stands in one line, with one timer for the first of it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from types import TracebackType
from typing import Any

from hearth.clock import Clock


class Expiries:
    """Calls back after a time which is the same for all.

    Args:
        after_s: The time, seconds.
    """

    __slots__ = ("_after_s", "_clock", "_keys", "_line", "_timer")

    def __init__(self, clock: Clock, after_s: float) -> None:
        self._clock = clock
        self._after_s = after_s
        self._keys = itertools.count()
        self._line: dict[int, tuple[float, Callable[[], object]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Expiries {self._after_s} s waiting={len(self._line)}>"

    def add(self, expire: Callable[[], object]) -> int:
        """Call back unless it is discarded before; the key to do so."""
        key, when = next(self._keys), self._clock.monotonic() + self._after_s
        self._line[key] = (when, expire)
        if self._timer is None:
            self._timer = self._clock.call_at(when, self._look)
        return key

    def discard(self, key: int) -> None:
        """Do not call back. Idempotent; the timer is left to find nothing: setting it anew would cost more."""
        self._line.pop(key, None)

    def close(self) -> None:
        """Call nobody back any more."""
        self._line.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = self._clock.monotonic()
        due = list(itertools.takewhile(lambda one: one[1][0] <= now, self._line.items()))
        for key, (_, expire) in due:
            if self._line.pop(key, None) is not None:
                expire()
        first = next(iter(self._line.values()), None)
        self._timer = None if first is None else self._clock.call_at(first[0], self._look)


class TimeLimit:
    """As :func:`asyncio.timeout`, for a limit that a line of :class:`Expiries` keeps.

    Raises:
        TimeoutError: On leaving, if the task was cancelled because the time was over.
    """

    __slots__ = ("_cancelling", "_expired", "_key", "_line", "_task")

    def __init__(self, line: Expiries, task: asyncio.Task[Any]) -> None:
        self._line = line
        self._task = task

    def __enter__(self) -> None:
        self._expired = False
        self._cancelling = self._task.cancelling()
        self._key = self._line.add(self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.discard(self._key)
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
