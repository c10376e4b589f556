"""Time limits for thousands of waits, most of which end before their limit.

A timer of the loop takes several microseconds to set and to cancel, and each call of a function needs three. Waits with
the same limit expire in the order in which they start. So they form one line, with one timer for its first.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from types import TracebackType
from typing import Any

from hearth.aio.clock import Clock


class Expiries:
    """Calls back after a time that is the same for all waits.

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
        """Call back after the time; return the key that cancels this."""
        key, when = next(self._keys), self._clock.monotonic() + self._after_s
        self._line[key] = (when, expire)
        if self._timer is None:
            self._timer = self._clock.call_at(when, self._look)
        return key

    def discard(self, key: int) -> None:
        """Do not call back. Idempotent; the timer stays, because setting it again costs more than a useless call."""
        self._line.pop(key, None)

    def expire_all(self) -> None:
        """Call back at once."""
        self._expire(list(self._line))

    def close(self) -> None:
        """Cancel all waits."""
        self._line.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = self._clock.monotonic()
        self._expire([key for key, _ in itertools.takewhile(lambda one: one[1][0] <= now, self._line.items())])
        first = next(iter(self._line.values()), None)
        self._timer = None if first is None else self._clock.call_at(first[0], self._look)

    def _expire(self, keys: list[int]) -> None:
        for key in keys:
            waiting = self._line.pop(key, None)
            if waiting is not None:  # one that expires may discard the next
                waiting[1]()


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
