"""Idle containers and waiting calls of one function.

A :class:`Slot` is a lease: the sole right to run one exchange on one hot container. Free slots are taken newest first
(LIFO, so that surplus containers age out), waiting calls are served in order of arrival (FIFO).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Protocol

from hearth.agent.call import ActiveCall
from hearth.drivers.base import Container


class Leasable(Protocol):
    """A hot container, as its queue sees it."""

    @property
    def container(self) -> Container:
        """The container itself: its streams belong to the holder of the lease."""

    @property
    def served(self) -> int:
        """Exchanges that have begun on it."""

    @property
    def opening(self) -> bytes:
        """The end of what it wrote to stderr before its first call; empty once it has served one."""

    def lease(self) -> Slot:
        """Idle becomes busy."""

    def give_back(self, *, clean: bool) -> None:
        """Busy becomes idle, or the container is retired."""

    def attend(self, call: ActiveCall) -> None:
        """Its stderr and its samples belong to this call now."""


class Slot:
    """The right to run one exchange. Released exactly once."""

    __slots__ = ("_hot", "_released")

    def __init__(self, hot: Leasable) -> None:
        self._hot = hot
        self._released = False

    def __repr__(self) -> str:
        return f"<Slot {self._hot!r}{' released' if self._released else ''}>"

    @property
    def container(self) -> Container:
        """Whose streams the holder owns until the release."""
        return self._hot.container

    @property
    def fresh(self) -> bool:
        """No exchange has begun on this container before."""
        return self._hot.served == 0

    @property
    def opening(self) -> bytes:
        """The end of what the container wrote to stderr before its first call; empty once it has served one."""
        return self._hot.opening

    def begin(self, call: ActiveCall) -> None:
        """An exchange begins: what the container writes to stderr, and uses, from here on is the call's."""
        self._hot.attend(call)

    def release(self, *, clean: bool) -> None:
        """End the lease. Not clean: the container's own task retires it; nobody waits for that."""
        if self._released:
            raise RuntimeError("a slot is released once")
        self._released = True
        self._hot.give_back(clean=clean)


class SlotQueue:
    """The idle slots and waiting calls of one slot key. A waiter and an idle slot never coexist."""

    def __init__(self) -> None:
        self._idle: OrderedDict[Leasable, None] = OrderedDict()
        self._waiters: OrderedDict[asyncio.Future[Slot], None] = OrderedDict()
        #: Times that a container which had ended a call went on with one that waited; only grows.
        self.turnover = 0

    def __repr__(self) -> str:
        return f"<SlotQueue idle={len(self._idle)} waiting={len(self._waiters)}>"

    @property
    def idle(self) -> int:
        """Containers whose slot is offered."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return len(self._waiters)

    def acquire_nowait(self) -> Slot | None:
        """Take the newest free slot, if there is one."""
        if not self._idle:
            return None
        return self._idle.popitem(last=True)[0].lease()

    async def acquire(self) -> Slot:
        """Wait for a slot; a cancelled wait never loses one.

        Raises:
            HearthError: Why no slot will come: a start failed, the node shuts down.
        """
        if (slot := self.acquire_nowait()) is not None:
            return slot
        waiter: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            return await waiter
        except asyncio.CancelledError:
            self._waiters.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # Handed over in the very tick in which the call gave up; untouched, so the next one may have it.
                waiter.result().release(clean=True)
            raise

    def offer(self, hot: Leasable) -> None:
        """A container is idle: the first waiting call gets its slot, else it waits to be taken."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                self.turnover += hot.served > 0
                waiter.set_result(hot.lease())
                return
        self._idle[hot] = None

    def withdraw(self, hot: Leasable) -> bool:
        """Take an offer back; false if it was taken already. Withdrawing and taking exclude each other."""
        if hot not in self._idle:
            return False
        del self._idle[hot]
        return True

    def fail_one(self, error: Exception) -> None:
        """End the wait of the call that waits longest."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                waiter.set_exception(error)
                return

    def fail_all(self, error: Exception) -> None:
        """End the wait of every call that waits now."""
        for _ in range(len(self._waiters)):
            self.fail_one(error)
