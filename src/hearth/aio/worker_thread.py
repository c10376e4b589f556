"""Do blocking work in a dedicated thread."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class WorkThread:
    """Does one thing after another, off the loop.

    An executor does as well, but takes three times as long to hand over a piece of work and its result, and every call
    of a function waits for that.

    Args:
        name: Of the thread, which starts now.

    Attributes:
        post: Does work after all earlier work. The work must not raise, and reports its result itself.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.post: Callable[[Callable[[], object]], None] = self._work.put  # the library's own: every call waits for it
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do work after all earlier work. Cancelling the wait does not stop the work."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def step() -> None:
            try:
                result = work()
            except BaseException as exc:
                report = functools.partial(_fail, done, exc)
            else:
                report = functools.partial(_resolve, done, result)
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(report)

        self.post(step)
        return done

    def end(self) -> None:
        """Wait until all work is done."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (step := self._work.get()) is not None:
            step()


def _resolve(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[T], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
