"""Blocking work in a thread of its own."""

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
        name: Of the thread, which begins with its first work.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def do(self, work: Callable[[], T]) -> T:
        """Have something done, after what was asked for before. Who gives up waiting does not stop it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def step() -> None:
            try:
                result = work()
            except BaseException as exc:
                told = functools.partial(_fail, done, exc)
            else:
                told = functools.partial(_resolve, done, result)
            with contextlib.suppress(RuntimeError):  # the loop is gone, and whoever waited with it
                loop.call_soon_threadsafe(told)

        if self._thread.ident is None:
            self._thread.start()
        self._work.put(step)
        return await done

    def end(self) -> None:
        """Wait for what was asked for."""
        if self._thread.ident is not None:
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
