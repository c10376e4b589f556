"""Many of a kind at once: those that come while others are under way go together, each with its own outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from hearth.batch import GroupCommit
from hearth.models.errors import StoreUnavailable
from hearth.sql.failures import Conflict

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K", str, tuple[str, str])

#: The most that go together.
MOST: Final = 64
#: How many keys a statement asks for: few different statements for any number of keys.
_SIZES: Final = (1, 4, 16, MOST)


def padded(keys: Iterable[K]) -> list[K]:
    """Keys in order, at most 64, the last repeated until there are as many as a statement asks for."""
    wanted = sorted(set(keys))
    size = next(size for size in _SIZES if size >= len(wanted))
    return wanted + wanted[-1:] * (size - len(wanted))


class Gathered(Generic[T, R]):
    """Gathers what comes at the same time.

    Args:
        work: Does many, all or none; for each its result or its error. What it raises was done for none; unless the
            database is unavailable, then each is done by itself, so that none suffers from another.
    """

    def __init__(self, work: Callable[[list[T]], Awaitable[Sequence[R | Exception]]]) -> None:
        self._work = work
        self._group: GroupCommit[T, R | Exception] = GroupCommit(self._together, max_batch=MOST)

    async def do(self, item: T) -> R:
        """Have it done. To cancel this gives up the answer; what was handed in is done."""
        outcome = await self._group.put(item)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def alone(self, item: T) -> R:
        """Have it done beside the others: it may take long."""
        (outcome,) = await self._work([item])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Wait until all is done."""
        await self._group.close()

    async def _together(self, items: list[T]) -> Sequence[R | Exception]:
        try:
            return await self._work(items)
        except Exception as exc:  # of whatever kind, one of them may be the cause: data that no database takes, say
            if len(items) == 1 or (isinstance(exc, StoreUnavailable) and not isinstance(exc, Conflict)):
                raise
        return [await self._one(item) for item in items]

    async def _one(self, item: T) -> R | Exception:
        try:
            (outcome,) = await self._work([item])
        except Exception as exc:  # its own
            return exc
        return outcome
