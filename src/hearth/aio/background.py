"""Background tasks. Each has an owner, which waits for it."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

#: Idle tasks that are kept for the next work, about a kilobyte each.
_MOST_IDLE: Final = 256


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


class BackgroundService(abc.ABC):
    """Work that goes on while this async context manager is entered.

    Args:
        on_error: Receives the exception that ends the work. Without it, leaving the context raises that.
    """

    def __init__(self, on_error: Callable[[BaseException], None] | None = None) -> None:
        self._background = Background(on_error)

    async def __aenter__(self) -> Self:
        self._background.run(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._background.cancel()

    @abc.abstractmethod
    async def _run(self) -> None:
        """Work until cancelled."""


class Workers(Background):
    """Background tasks that do one piece of short work after another.

    To start and to end a task takes as long as some of the work itself. A task is used again once its work has ended,
    unless that was cancelled or has failed. All work runs in the context in which its task was started: it must leave
    context variables as it found them.
    """

    __slots__ = ("_idle", "_most_idle")

    def __init__(self) -> None:
        super().__init__()
        self._most_idle = _MOST_IDLE
        self._idle: list[asyncio.Future[Coroutine[Any, Any, None]]] = []

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Do work that nobody awaits, beside the work that runs."""
        while self._idle:
            woken = self._idle.pop()
            if not woken.done():
                woken.set_result(work)
                return
        self.start(self._run(work))

    async def join(self) -> None:
        """Wait until all work has ended. No task is kept for what starts later."""
        self._most_idle = 0
        for woken in self._idle:
            woken.cancel()
        await super().join()

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        while True:
            await work
            if task.cancelling() or len(self._idle) >= self._most_idle:
                return
            woken: asyncio.Future[Coroutine[Any, Any, None]] = loop.create_future()
            self._idle.append(woken)
            del work  # it holds a request with its body
            try:
                work = await woken
            except asyncio.CancelledError:
                if woken.done() and not woken.cancelled():
                    woken.result().close()  # handed over in the very tick in which all ends
                raise
