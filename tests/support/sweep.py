"""Cancellation at every place where a coroutine waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class CancelledAt:
    """Awaits a coroutine and cancels the awaiting task at its n-th suspension.

    Args:
        late: Cancel not when it begins to wait, but in the tick in which what it waits for is there.

    Attributes:
        suspensions: How often it has waited.
    """

    def __init__(self, inner: Coroutine[Any, Any, Any], nth: int, *, late: bool) -> None:
        self._inner = inner
        self._nth = nth
        self._late = late
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        waiting = self._inner.__await__()
        try:
            future = waiting.send(None)
            while True:
                self._suspended(future)
                try:
                    value = yield future
                except BaseException as exc:
                    future = waiting.throw(exc)
                else:
                    future = waiting.send(value)
        except StopIteration as done:
            return done.value

    def _suspended(self, future: Any) -> None:
        self.suspensions += 1
        if self.suspensions != self._nth:
            return
        task = asyncio.current_task()
        assert task is not None
        if self._late and future is not None:
            future.add_done_callback(lambda _: task.cancel())  # runs before the task's own wake-up
        else:
            task.cancel()
