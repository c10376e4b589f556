"""An event loop that a test turns by hand, one iteration at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tests.support.virtual_time import VirtualLoop

#: Iterations after which nothing that was ready is left: a hand-over to a call that gave up takes three.
_SETTLED = 6


class SteppedLoop:
    """Between two iterations a test may do several things "in the same tick"."""

    def __init__(self) -> None:
        self._loop = VirtualLoop()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that takes its first step in the next iteration."""
        task = self._loop.create_task(coroutine)
        self._tasks.append(task)
        return task

    def tick(self, iterations: int = 1) -> None:
        """Run what is ready."""
        self._turn(iterations)
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.remove(task)
            if not task.cancelled():
                task.result()  # what it found wrong is the test's failure

    def settle(self) -> None:
        """Run until nothing is ready any more."""
        self.tick(_SETTLED)

    def close(self) -> None:
        """End it; what is still waiting is cancelled."""
        for task in self._tasks:
            task.cancel()
        self._turn(_SETTLED)
        for task in self._tasks:
            if not task.cancelled():
                task.exception()
        self._loop.close()

    def _turn(self, iterations: int) -> None:
        for _ in range(iterations):
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()
