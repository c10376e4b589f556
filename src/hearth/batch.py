"""Group commit: what arrives while one write runs is written by the next one.

A slow store then makes larger batches, not a longer queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MAX_BATCH: Final = 500


class GroupCommit(Generic[T, R]):
    """Collects items and writes them many at a time.

    Args:
        write: Writes a batch; one result for each item, in order. What it raises reaches every item of the batch.
    """

    def __init__(self, write: Callable[[list[T]], Awaitable[Sequence[R]]], *, max_batch: int = _MAX_BATCH) -> None:
        self._write = write
        self._max_batch = max_batch
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._writing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<GroupCommit waiting={len(self._waiting)}>"

    @property
    def waiting(self) -> int:
        """Items whose write has not begun."""
        return len(self._waiting)

    def put(self, item: T) -> asyncio.Future[R]:
        """Have an item written. Whoever gives up waiting for the future does not take the item back."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, done))
        if self._writing is None:
            self._writing = loop.create_task(self._write_all())
        return done

    async def close(self) -> None:
        """Wait until all is written."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[: self._max_batch]
                del self._waiting[: self._max_batch]
                await self._write_batch(batch)
        finally:
            self._writing = None

    async def _write_batch(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._write([item for item, _ in batch])
        except Exception as exc:  # whoever waits must hear of whatever went wrong
            for _, done in batch:
                if not done.done():
                    done.set_exception(exc)
                    done.exception()  # seen, also where nobody waits any more
            return
        for (_, done), result in zip(batch, results, strict=True):
            if not done.done():
                done.set_result(result)
