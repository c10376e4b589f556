"""Group commit: items that arrive during one write are written together by the next one.

A slow store then gets larger batches, not a longer queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from hearth.aio.background import Background
from hearth.models.errors import StoreRefused

T = TypeVar("T")
R = TypeVar("R")

_MAX_BATCH: Final = 500


class GroupCommit(Generic[T, R]):
    """Collects items and writes them many at a time.

    Args:
        write: Writes a batch and returns one result per item, in order. Its error reaches every item of the batch.
    """

    def __init__(self, write: Callable[[list[T]], Awaitable[Sequence[R]]], *, max_batch: int = _MAX_BATCH) -> None:
        self._write = write
        self._max_batch = max_batch
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._background = Background()
        self._writing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<GroupCommit waiting={len(self._waiting)}>"

    @property
    def waiting(self) -> int:
        """Return the number of items whose write has not started."""
        return len(self._waiting)

    def put(self, item: T) -> asyncio.Future[R]:
        """Write an item. A caller that stops waiting for the future does not cancel the write."""
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._writing is None:
            self._writing = self._background.start(self._write_all())
        return done

    async def close(self) -> None:
        """Wait until all items are written."""
        await self._background.join()

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
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results of {len(batch)} items")
        except Exception as exc:  # every caller gets the error, whatever its type
            for _, done in batch:
                if not done.done():
                    done.set_exception(exc)
                    done.exception()  # retrieved, even if nobody waits any more
            return
        for (_, done), result in zip(batch, results, strict=True):
            if not done.done():
                done.set_result(result)


async def write_apart(
    write: Callable[[list[T]], Awaitable[Sequence[R]]],
    items: list[T],
    *,
    refused: Callable[[T, Exception], R],
    is_refusal: Callable[[Exception], bool] = lambda exc: isinstance(exc, StoreRefused),
) -> list[R]:
    """Write items together; if the store refuses that, in smaller and smaller parts, so that only bad items fail.

    Args:
        write: Writes some items and returns one result per item, in order.
        items: The items.
        refused: Returns the result of an item that is refused alone.
        is_refusal: Returns whether an error concerns an item and not the store. Other errors are raised.
    """
    try:
        return list(await write(items))
    except Exception as exc:
        if not is_refusal(exc):
            raise
        if len(items) == 1:
            return [refused(items[0], exc)]
    parts = items[: len(items) // 2], items[len(items) // 2 :]
    return [
        result for part in parts for result in await write_apart(write, part, refused=refused, is_refusal=is_refusal)
    ]
