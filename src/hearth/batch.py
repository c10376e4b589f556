"""Group commit: what arrives while one write runs is written by the next one.

A slow store then makes larger batches, not a longer queue. A quick one would make small ones, and a write costs several
times what one more item in it costs. So where items come fast, a batch waits for its company, a few milliseconds at
most.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from hearth.models.errors import StoreRefused

T = TypeVar("T")
R = TypeVar("R")

_MAX_BATCH: Final = 500
#: Seconds between the beginnings of two writes for which the later one may be held.
_HOLD_S: Final = 0.003
#: Items that must be expected in that time for a write to be held.
_WORTH: Final = 4
#: Seconds over which the rate is taken of which they are expected.
_MEMORY_S: Final = 0.02
_INSTANT_S: Final = 1e-6


class GroupCommit(Generic[T, R]):
    """Collects items and writes them many at a time.

    Args:
        write: Writes a batch; one result for each item, in order. What it raises reaches every item of the batch.
        under_way: How many items are waiting or may come soon. A batch is held only as long as it has less than a
            quarter of them; so the last one never waits for nobody.
    """

    def __init__(
        self,
        write: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        max_batch: int = _MAX_BATCH,
        under_way: Callable[[], int] = lambda: 0,
    ) -> None:
        self._write = write
        self._max_batch = max_batch
        self._under_way = under_way
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._held: asyncio.Future[None] | None = None
        self._enough = 0
        self._rate = 0.0  # items per second
        self._begun_at = -math.inf

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
        elif self._held is not None and len(self._waiting) >= self._enough:
            _let_go(self._held)
        return done

    async def close(self) -> None:
        """Wait until all is written."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                batch = self._waiting[: self._max_batch]
                del self._waiting[: self._max_batch]
                await self._write_batch(batch)
        finally:
            self._writing = None

    async def _gather(self) -> None:
        """Hold the batch while items come fast; not after a pause, nor if the last write took long."""
        loop = asyncio.get_running_loop()
        self._enough = min(self._max_batch, math.ceil(self._under_way() / 4))
        due = self._begun_at + _HOLD_S
        if len(self._waiting) < self._enough and self._rate * _HOLD_S >= _WORTH and loop.time() < due:
            self._held = loop.create_future()
            timer = loop.call_at(due, _let_go, self._held)
            try:
                await self._held
            finally:
                timer.cancel()
                self._held = None
        now = loop.time()
        since = max(now - self._begun_at, _INSTANT_S)
        self._rate += (len(self._waiting) / since - self._rate) * min(1.0, since / _MEMORY_S)
        self._begun_at = now

    async def _write_batch(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._write([item for item, _ in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results of {len(batch)} items")
        except Exception as exc:  # whoever waits must hear of whatever went wrong
            for _, done in batch:
                if not done.done():
                    done.set_exception(exc)
                    done.exception()  # seen, also where nobody waits any more
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
    """Write items together, or in ever smaller parts where that is refused: none is lost for another's fault.

    Args:
        write: Writes some; one result for each, in order.
        items: What is to be written.
        refused: The result of an item that is refused alone.
        is_refusal: Whether what ``write`` raised is about an item, and not about the store. All else is raised.
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


def _let_go(held: asyncio.Future[None]) -> None:
    if not held.done():
        held.set_result(None)
