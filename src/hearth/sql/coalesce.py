"""Many requests of a kind at once: those that arrive while others run go together, each with its own result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from hearth.aio.group_commit import GroupCommit
from hearth.models.errors import StoreUnavailable
from hearth.sql.errors import Conflict

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K", str, tuple[str, str])

#: Requests that go together.
MOST: Final = 64
#: Numbers of keys that a statement asks for: few statements serve any number.
_SIZES: Final = (1, 4, 16, MOST)


def padded(keys: Iterable[K]) -> list[K]:
    """Return at most 64 keys in order, the last repeated until there are as many as a statement asks for."""
    wanted = sorted(set(keys))
    size = next(size for size in _SIZES if size >= len(wanted))
    return wanted + wanted[-1:] * (size - len(wanted))


class Coalescer(Generic[T, R]):
    """Runs requests together.

    Args:
        work: Runs many, all or none, and returns a result or an error for each. After an error that it raises, each
            request runs alone, so that none fails because of another; unless the database is unavailable.
    """

    def __init__(self, work: Callable[[list[T]], Awaitable[Sequence[R | Exception]]]) -> None:
        self._work = work
        self._group: GroupCommit[T, R | Exception] = GroupCommit(self._together, max_batch=MOST)

    async def run(self, item: T) -> R:
        """Run a request. Cancelling this gives up the result; the request itself still runs."""
        outcome = await self._group.put(item)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def alone(self, item: T) -> R:
        """Run a request that may take long, beside the others."""
        (outcome,) = await self._work([item])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Wait until all requests have their results."""
        await self._group.close()

    async def _together(self, items: list[T]) -> Sequence[R | Exception]:
        try:
            return await self._work(items)
        except Exception as exc:  # one of them may be the cause, such as data that no database takes
            if len(items) == 1 or (isinstance(exc, StoreUnavailable) and not isinstance(exc, Conflict)):
                raise
        return [await self._one(item) for item in items]

    async def _one(self, item: T) -> R | Exception:
        try:
            (outcome,) = await self._work([item])
        except Exception as exc:
            return exc
        return outcome
