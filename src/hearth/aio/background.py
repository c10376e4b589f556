"""Background tasks. Each has an owner, which waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """The background tasks of one owner. The event loop itself keeps no task alive; this does.

    Args:
        on_error: Receives the exception of a task that nobody awaits. Without it, :meth:`join` raises the first one.
    """

    __slots__ = ("_errors", "_on_error", "_tasks")

    def __init__(self, on_error: Callable[[BaseException], None] | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._errors: list[BaseException] = []
        self._on_error = self._errors.append if on_error is None else on_error

    def __repr__(self) -> str:
        return f"<Background tasks={len(self._tasks)}>"

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work whose result or exception is for those who await the task, if anybody still does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work that nobody awaits: its exception is unexpected."""
        task = self.start(work)
        task.add_done_callback(self._report)
        return task

    async def join(self) -> None:
        """Wait until all tasks have ended, also those that start meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._errors:
            raise self._errors.pop(0)

    def stop(self) -> None:
        """Cancel all tasks, for an owner that cannot wait here; :meth:`join` waits until they have ended."""
        for task in self._tasks:
            task.cancel()

    async def cancel(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        self.stop()
        await self.join()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: asyncio logs the exceptions that nobody has seen

    def _report(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)
