"""Memory and CPU of this node: never over-committed, granted in order of arrival (agent specification 6)."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final

import msgspec

from hearth.models.route import DEFAULT_MEMORY_MIB

#: Percent of the total that only sync calls may use.
_SYNC_RESERVE_PERCENT: Final = 20
#: Percent of the rest that async calls may be using when another is taken from the queue.
_ASYNC_MARK_PERCENT: Final = 80


class Amount(msgspec.Struct, frozen=True):
    """Some memory (MiB) and CPU (thousandths of a core)."""

    memory_mib: int
    cpu_milli: int

    def fits(self, room: Amount) -> bool:
        """Whether there is that much room of both."""
        return self.memory_mib <= room.memory_mib and self.cpu_milli <= room.cpu_milli

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.memory_mib + other.memory_mib, self.cpu_milli + other.cpu_milli)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.memory_mib - other.memory_mib, self.cpu_milli - other.cpu_milli)


NOTHING: Final = Amount(0, 0)


def pools(total: Amount) -> tuple[Amount, Amount]:
    """The share that only sync calls may use, and the rest, which both kinds may.

    The reserve is a fifth, but on a small machine no more than leaves room for one container of the default size: a
    call of either kind has to be able to run.
    """
    memory_mib = total.memory_mib * _SYNC_RESERVE_PERCENT // 100
    if total.memory_mib > DEFAULT_MEMORY_MIB:
        memory_mib = min(memory_mib, total.memory_mib - DEFAULT_MEMORY_MIB)
    reserve = Amount(memory_mib, total.cpu_milli * _SYNC_RESERVE_PERCENT // 100)
    return reserve, total - reserve


class NeverFits(Exception):
    """The request exceeds the whole node; it would wait for ever."""


class Reservation:
    """Memory and CPU held by one container. Returned exactly once."""

    __slots__ = ("_is_sync", "_reserve_part", "_shared_part", "_tracker")

    def __init__(self, tracker: ResourceTracker, reserve_part: Amount, shared_part: Amount, *, is_sync: bool) -> None:
        self._tracker: ResourceTracker | None = tracker
        self._reserve_part = reserve_part
        self._shared_part = shared_part
        self._is_sync = is_sync

    def returns(self, *, to_sync: bool) -> Amount:
        """What its release adds to the room of sync (or async) requests: the sync reserve is no room for async."""
        if self._tracker is None:
            return NOTHING
        return self._reserve_part + self._shared_part if to_sync else self._shared_part

    def release(self) -> None:
        """Give it back. Idempotent."""
        if (tracker := self._tracker) is not None:
            self._tracker = None
            tracker._take_back(self._reserve_part, self._shared_part, is_sync=self._is_sync)


@dataclasses.dataclass(frozen=True, slots=True)
class Shortage:
    """What requests lack that are next in order.

    Attributes:
        least: What the first of them lacks.
        lack: What all of them lack together.
        keys: The slot keys that they are for.
    """

    least: Amount
    lack: Amount
    is_sync: bool
    keys: frozenset[bytes]


@dataclasses.dataclass(slots=True, eq=False)
class _Waiter:
    amount: Amount
    is_sync: bool
    key: bytes
    future: asyncio.Future[Reservation]


class ResourceTracker:
    """Grants reservations.

    A fifth of the node serves sync calls only, so that a backlog of async work never keeps them out. Requests of one
    kind are granted in order of arrival: a large one is never overtaken by its own kind, so it does not starve.

    Args:
        total: What containers may use together.
        on_shortage: Called when a request has to wait, and whenever it still has to after something was returned.
        on_return: Called when something was returned.

    Attributes:
        room_for: So many waiting requests are told of at once: a removal takes a while, and a line that waits for one
            after the other moves slowly.
    """

    room_for: ClassVar[int] = 32

    def __init__(
        self,
        total: Amount,
        on_shortage: Callable[[], None] = lambda: None,
        on_return: Callable[[], None] = lambda: None,
    ) -> None:
        self.total = total
        self._on_shortage = on_shortage
        self._on_return = on_return
        self._reserve_total, self._shared_total = pools(total)
        self._reserve_used = NOTHING
        self._shared_used = NOTHING
        self._async_used = NOTHING
        self._sync: deque[_Waiter] = deque()
        self._async: deque[_Waiter] = deque()

    def __repr__(self) -> str:
        return f"<ResourceTracker used={self.used} of {self.total} waiting={self.waiting}>"

    @property
    def used(self) -> Amount:
        """What is granted now."""
        return self._reserve_used + self._shared_used

    def async_is_below_mark(self, idle: Amount) -> bool:
        """Whether more async calls may be taken on.

        Args:
            idle: What idle containers of async functions hold: they can serve, or give way.
        """
        busy = self._async_used - idle
        mark = Amount(
            self._shared_total.memory_mib * _ASYNC_MARK_PERCENT // 100,
            self._shared_total.cpu_milli * _ASYNC_MARK_PERCENT // 100,
        )
        return busy.memory_mib < mark.memory_mib and busy.cpu_milli < max(1, mark.cpu_milli)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._sync) + len(self._async)

    def is_possible(self, memory_mib: int, cpu_milli: int, *, is_sync: bool) -> bool:
        """Whether an otherwise empty node could grant this."""
        return Amount(memory_mib, cpu_milli).fits(self.total if is_sync else self._shared_total)

    def shortage(self) -> Shortage | None:
        """What the requests that are next in order lack; ``None`` if none waits."""
        for queue in (self._sync, self._async):
            if queue:
                next_ones = list(itertools.islice(queue, self.room_for))
                room = self._room(queue[0].is_sync)
                together = sum((waiter.amount for waiter in next_ones), NOTHING)
                keys = frozenset(waiter.key for waiter in next_ones)
                return Shortage(_lack(queue[0].amount, room), _lack(together, room), queue[0].is_sync, keys)
        return None

    def reserve_nowait(self, memory_mib: int, cpu_milli: int, *, is_sync: bool) -> Reservation | None:
        """Take it if it is free and nobody of the same kind waits for more."""
        if self._sync if is_sync else self._async:
            return None
        amount = Amount(memory_mib, cpu_milli)
        return self._grant(amount, is_sync=is_sync) if amount.fits(self._room(is_sync)) else None

    async def reserve(self, memory_mib: int, cpu_milli: int, *, is_sync: bool, key: bytes = b"") -> Reservation:
        """Wait until this much is free, and take it. A cancelled wait leaves no trace.

        Args:
            memory_mib: Memory for the container.
            cpu_milli: CPU for the container; 0 means that none is set aside.
            is_sync: For a sync call: the sync reserve is used first.
            key: The slot key it is for; idle containers of the same key do not give way to it.

        Raises:
            NeverFits: It exceeds the whole node.
        """
        if not self.is_possible(memory_mib, cpu_milli, is_sync=is_sync):
            raise NeverFits
        if (granted := self.reserve_nowait(memory_mib, cpu_milli, is_sync=is_sync)) is not None:
            return granted
        waiter = _Waiter(Amount(memory_mib, cpu_milli), is_sync, key, asyncio.get_running_loop().create_future())
        queue = self._sync if is_sync else self._async
        queue.append(waiter)
        self._on_shortage()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter in queue:
                queue.remove(waiter)
                self._serve()  # it may have been the head that held the others up
            elif waiter.future.done() and not waiter.future.cancelled():
                waiter.future.result().release()  # granted in the very tick in which the wait was given up
            raise

    def _room(self, is_sync: bool) -> Amount:
        shared = self._shared_total - self._shared_used
        return shared + (self._reserve_total - self._reserve_used) if is_sync else shared

    def _grant(self, amount: Amount, *, is_sync: bool) -> Reservation:
        reserve_part = NOTHING
        if is_sync:
            room = self._reserve_total - self._reserve_used
            reserve_part = Amount(min(amount.memory_mib, room.memory_mib), min(amount.cpu_milli, room.cpu_milli))
        shared_part = amount - reserve_part
        self._reserve_used += reserve_part
        self._shared_used += shared_part
        if not is_sync:
            self._async_used += amount
        return Reservation(self, reserve_part, shared_part, is_sync=is_sync)

    def _take_back(self, reserve_part: Amount, shared_part: Amount, *, is_sync: bool) -> None:
        self._reserve_used -= reserve_part
        self._shared_used -= shared_part
        if not is_sync:
            self._async_used -= shared_part
        self._serve()
        self._on_return()

    def _serve(self) -> None:
        for queue in (self._sync, self._async):
            while queue and (queue[0].future.done() or queue[0].amount.fits(self._room(queue[0].is_sync))):
                waiter = queue.popleft()
                if not waiter.future.done():
                    waiter.future.set_result(self._grant(waiter.amount, is_sync=waiter.is_sync))
        if self.waiting:
            self._on_shortage()


def _lack(amount: Amount, room: Amount) -> Amount:
    missing = amount - room
    return Amount(max(0, missing.memory_mib), max(0, missing.cpu_milli))
