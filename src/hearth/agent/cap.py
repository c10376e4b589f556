"""The most containers of one function on a node (``max_instances``): those of all its versions, for calls of each kind.

A container has its place from before it waits for memory until it is gone. Places are given in order of arrival. A
function has several launchers while it changes, and where some of its calls are async: one of them must not keep the
others out. So a container that waits for a place gets that of an idle one of another launcher. If its calls have waited
for long, it also gets that of a busy one, after its call, whose own calls have waited for less time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Protocol


class Capped(Protocol):
    """A container, as seen from here."""

    @property
    def key(self) -> bytes:
        """Return its slot key."""

    @property
    def waiting_since(self) -> float:
        """Since when the call waits that is next for such a container; infinity if none does."""

    @property
    def late_at(self) -> float:
        """Return the loop time from which that call has waited for long."""

    @property
    def is_leaving(self) -> bool:
        """True if it takes no further call and is not gone yet."""

    def give_way(self, *, is_late: bool, since: float) -> bool:
        """End for another container of its function; false if it goes on.

        Args:
            is_late: The calls for the other one have waited for long.
            since: When the first of them began.
        """


class ContainerCap:
    """The places of one function's containers.

    Args:
        now: Returns the loop time.

    Attributes:
        most: The number of places; ``None`` for any number. Changed by :meth:`limit` only.
        is_defined: The definition of the function says so, not only a call that was accepted earlier.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.most: int | None = None
        self.is_defined = False
        self._now = now
        self._holders: dict[Capped, None] = {}
        self._waiters: dict[Capped, asyncio.Future[None]] = {}

    def __repr__(self) -> str:
        return f"<ContainerCap {len(self._holders)} of {self.most} waiting={len(self._waiters)}>"

    @property
    def is_used(self) -> bool:
        """True if a container has a place or waits for one."""
        return bool(self._holders or self._waiters)

    def limit(self, most: int | None) -> None:
        """Change the number of places."""
        if most != self.most:
            self.most = most
            self._grant()
            self.shrink()

    def shrink(self) -> None:
        """Let containers end that have no place any more: idle ones now, busy ones after their call."""
        surplus = 0 if self.most is None else len(self._holders) - self._leaving() - self.most
        if surplus <= 0:
            return
        for holder in sorted(self._holders, key=lambda one: one.waiting_since, reverse=True):
            if surplus <= 0:
                return
            surplus -= not holder.is_leaving and holder.give_way(is_late=True, since=-math.inf)

    @contextlib.asynccontextmanager
    async def hold(self, container: Capped) -> AsyncIterator[None]:
        """Wait for a place, and keep it. A cancelled wait leaves no trace."""
        if self._waiters or not self._has_room():
            await self._wait(container)
        else:
            self._holders[container] = None
        try:
            yield
        finally:
            del self._holders[container]
            self._grant()

    def relieve(self) -> None:
        """Let containers give way to those of other launchers that wait for a place."""
        if self.most is None or not self._waiters:
            return
        now = self._now()
        lacking = len(self._waiters) - self._leaving() - max(0, self.most - len(self._holders))
        for waiter in list(self._waiters):
            if lacking <= 0:
                return
            lacking -= self._replaces_one(waiter, now)

    def _replaces_one(self, waiter: Capped, now: float) -> bool:
        others = [one for one in self._holders if one.key != waiter.key and not one.is_leaving]
        since = waiter.waiting_since
        ways = (False, True) if now >= waiter.late_at else (False,)
        return any(other.give_way(is_late=is_late, since=since) for is_late in ways for other in others)

    async def _wait(self, container: Capped) -> None:
        waiter = self._waiters[container] = asyncio.get_running_loop().create_future()
        self.relieve()
        try:
            await waiter
        except asyncio.CancelledError:
            if self._waiters.pop(container, None) is None:  # granted in the very tick in which the wait was given up
                del self._holders[container]
                self._grant()
            raise

    def _grant(self) -> None:
        while self._waiters and self._has_room():
            container = next(iter(self._waiters))
            waiter = self._waiters.pop(container)
            self._holders[container] = None
            if not waiter.done():
                waiter.set_result(None)

    def _has_room(self) -> bool:
        return self.most is None or len(self._holders) < self.most

    def _leaving(self) -> int:
        return sum(one.is_leaving for one in self._holders)
