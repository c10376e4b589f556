"""Run a coroutine together with a helper that ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hearth.aio.background import Background


async def run_beside(main: Coroutine[Any, Any, None], helper: Coroutine[Any, Any, None]) -> None:
    """Run both until ``main`` ends, then cancel ``helper``. An error of either ends both and is raised.

    A task group would do, but on CPython 3.11 its exception group forms a cycle with the frames of what failed. All
    that these frames hold, such as the body of a request, would then stay until the garbage collector runs.
    """
    background = Background()
    tasks = background.start(main), background.start(helper)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if _error(tasks[1]) is None:
            await asyncio.wait(tasks[:1])
        failure = _error(tasks[0]) or _error(tasks[1])
    finally:
        del tasks  # a task holds its error, and the error this frame
        await background.cancel()
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None
