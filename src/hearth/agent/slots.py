"""Idle containers and waiting calls of one function.

A slot is the sole right to run one exchange on one hot container. Free slots are taken newest first (LIFO, so that
surplus containers age out), waiting calls are served in order of arrival (FIFO).
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Collection
from typing import Generic, Protocol, TypeVar

from hearth.models.errors import fresh


class Leasable(Protocol):
    """A hot container, as its queue sees it."""

    @property
    def served(self) -> int:
        """Return how many exchanges have ended well on it."""

    def lease(self) -> None:
        """Turn busy: its channel belongs to the holder of the slot."""

    def give_back(self, *, clean: bool, used: bool) -> None:
        """End the lease: turn idle, or retire."""


H = TypeVar("H", bound=Leasable)


class SlotQueue(Generic[H]):
    """The idle slots and waiting calls of one slot key. A waiter and an idle slot never coexist.

    Attributes:
        free: The containers whose slot is offered, newest last. Take the last one, and lease it.
        waiters: The calls that wait, in order of arrival, with the loop time at which each began.
        announced: Those whose slot will be offered within moments.
        turnover: Times that a container which had ended a call went on with one that waited; only grows.
    """

    def __init__(self) -> None:
        self.free: list[H] = []
        self.waiters: OrderedDict[asyncio.Future[H], float] = OrderedDict()
        self.announced: set[H] = set()
        self.turnover = 0

    def __repr__(self) -> str:
        return f"<SlotQueue free={len(self.free)} waiting={len(self.waiters)}>"

    @property
    def waiting_since(self) -> float:
        """Since when the call waits that is next; infinity if none does."""
        return next(iter(self.waiters.values()), math.inf)

    def acquire_nowait(self) -> H | None:
        """Take the newest free slot, if there is one. Return its container."""
        if not self.free:
            return None
        hot = self.free.pop()
        hot.lease()
        return hot

    async def acquire(self, since: float = math.inf) -> H:
        """Wait for a slot, and return its container; a cancelled wait never loses one.

        Args:
            since: When the call began, loop time.

        Raises:
            HearthError: Why no slot will come: a start failed, the node shuts down.
            TimeoutError: No slot came in time.
        """
        if (hot := self.acquire_nowait()) is not None:
            return hot
        waiter: asyncio.Future[H] = asyncio.get_running_loop().create_future()
        self.waiters[waiter] = since
        try:
            return await waiter
        except asyncio.CancelledError:
            self.waiters.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # Handed over in the very tick in which the call gave up; untouched, so the next one may have it.
                waiter.result().give_back(clean=True, used=False)
            raise
        finally:
            del waiter  # it may hold an error, which holds this frame

    def announce(self, hot: H) -> None:
        """Note that the container's slot is offered within moments: :meth:`offer` or :meth:`withdraw` follows."""
        self.announced.add(hot)

    def offer(self, hot: H) -> None:
        """Give the slot of an idle container to the first waiting call, or keep it until a call takes it."""
        self.announced.discard(hot)
        while self.waiters:
            waiter, _ = self.waiters.popitem(last=False)
            if not waiter.done():
                self.turnover += hot.served > 0
                hot.lease()
                waiter.set_result(hot)
                return
        self.free.append(hot)

    def withdraw(self, hot: H) -> bool:
        """Take an offer back; false if there is none any more. Withdrawing and taking exclude each other."""
        self.announced.discard(hot)
        if hot not in self.free:
            return False
        self.free.remove(hot)
        return True

    def withdraw_all(self, slots: Collection[H]) -> None:
        """Take the offers of these slots back, as far as nobody has taken them."""
        self.free[:] = [slot for slot in self.free if slot not in slots]

    def prefer(self, slots: Collection[H]) -> None:
        """Let these slots, as far as they are free, be taken next."""
        self.free.sort(key=slots.__contains__)

    def fail_one(self, error: Exception) -> None:
        """End the wait of the call that waits longest."""
        while self.waiters:
            waiter, _ = self.waiters.popitem(last=False)
            if not waiter.done():
                waiter.set_exception(fresh(error))
                return

    def fail_older(self, since: float) -> None:
        """End the waits of the calls that are next and began at that time or before: their time is over."""
        while self.waiting_since <= since:
            waiter, _ = self.waiters.popitem(last=False)
            if not waiter.done():
                waiter.set_exception(TimeoutError())

    def fail_all(self, error: Exception) -> None:
        """End the wait of every call that waits now."""
        for _ in range(len(self.waiters)):
            self.fail_one(error)
