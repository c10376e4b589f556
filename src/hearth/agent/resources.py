"""Memory and CPU of this node: never over-committed, and shared fairly by the apps that wait (agent specification 6).

Requests of one app are granted in order of arrival. Of several apps, the one goes first that uses least for its weight.
"""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar, Final, NamedTuple

from hearth.agent.lending import NO_LOAN, Lender, Loan, least, most
from hearth.agent.shares import Share
from hearth.models.function import DEFAULT_MEMORY_MIB, NOTHING, Amount

#: Percent of the total that only sync calls may use.
_SYNC_RESERVE_PERCENT: Final = 20
#: Percent of the rest that async calls may be using when another is taken from the queue.
_ASYNC_MARK_PERCENT: Final = 80


def pools(total: Amount) -> tuple[Amount, Amount]:
    """Return the share that only sync calls may use, and the rest, which both kinds may use.

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


class Returned(NamedTuple):
    """Room that the end of a container adds for sync requests, and for async ones, which get no sync reserve."""

    to_sync: Amount
    to_async: Amount


class Reservation:
    """Memory and CPU held by one container. Returned exactly once.

    Attributes:
        returned: What the release adds to the room of others.
    """

    __slots__ = ("_is_sync", "_share", "_tracker", "reserve_part", "returned", "shared_part")

    def __init__(
        self, tracker: ResourceTracker, share: Share, reserve_part: Amount, shared_part: Amount, *, is_sync: bool
    ) -> None:
        self._tracker: ResourceTracker | None = tracker
        self._share = share
        self.reserve_part = reserve_part
        self.shared_part = shared_part
        self._is_sync = is_sync
        self.returned = Returned(reserve_part + shared_part, shared_part)

    def release(self) -> None:
        """Give it back. Idempotent."""
        if (tracker := self._tracker) is not None:
            self._tracker = None
            tracker._take_back(  # noqa: SLF001  # a reservation is a part of its tracker
                self._share, self.reserve_part, self.shared_part, is_sync=self._is_sync
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Shortage:
    """The lack of the requests that are next in order.

    Attributes:
        least: What the first of them lacks.
        lack: What all of them lack together.
        keys: The slot keys that they are for.
        first: The amount of the first.
        share: The share of the first.
        takes_parts: Less than the first lacks helps, too.
        late_at: When the call for the first has waited for long, loop time.
    """

    least: Amount
    lack: Amount
    is_sync: bool
    keys: frozenset[bytes]
    first: Amount
    share: Share
    takes_parts: bool = False
    late_at: float = math.inf


@dataclasses.dataclass(frozen=True, slots=True)
class Crowd:
    """An app whose next request its memory quota keeps out.

    Attributes:
        lack_mib: What its containers have to give back first.
        key: The slot key of the request.
        late_at: When the call for the request has waited for long, loop time.
    """

    share: Share
    lack_mib: int
    key: bytes
    late_at: float = math.inf


#: Returns the loop time from which a call has waited for long.
LateAt = Callable[[], float]


def never() -> float:
    """Return a time that never comes: no call waits."""
    return math.inf


@dataclasses.dataclass(slots=True, eq=False)
class _Waiter:
    """A request.

    Attributes:
        number: Its place in the order of arrival.
        late_at: Returns when the call for it has waited for long.
        future: Set when it is granted, if somebody waits for that.
    """

    amount: Amount
    is_sync: bool
    key: bytes
    share: Share
    number: int
    late_at: LateAt
    future: asyncio.Future[Reservation] | None = None
    reservation: Reservation | None = None


#: The waiting requests of one kind, by app, each in order of arrival.
_Lines = dict[Share, "deque[_Waiter]"]


class ResourceTracker:
    """Grants reservations.

    A fifth of the node serves sync calls only, so that a backlog of async work never keeps them out. Requests of one
    kind and one app are granted in order of arrival: a large one is never overtaken by its own app, so it does not
    starve. Of several apps, the one is next whose containers use the smallest part of the node for its weight. After
    :attr:`max_bypasses` grants to later requests, the oldest one is next, so that no app waits for ever.

    With a lender, only what is lent is granted; what is called back comes before all requests.

    Args:
        total: What containers may use together, on the whole node.
        on_shortage: Called when a request has to wait, and whenever it still has to after something was returned.
        on_return: Called when something was returned.
        lender: Lends parts of the node, which several workers share; ``None``: all of it is here.

    Attributes:
        room_for: Waiting requests for which room is made at once. A removal takes a while: with 1 the line moves at one
            request per removal. In the simulation of a full node, the 99th percentile of the wait was 2.5 s with 1,
            1.8 s with 4 and 0.8 s with 16 or more (ADR 4).
        max_bypasses: Grants to later requests of other apps after which the oldest request is next. More makes shares
            meet their weights more closely, and an app above its share wait longer (ADR 29).
    """

    room_for: ClassVar[int] = 32
    max_bypasses: ClassVar[int] = 64

    def __init__(
        self,
        total: Amount,
        on_shortage: Callable[[], None] = lambda: None,
        on_return: Callable[[], None] = lambda: None,
        lender: Lender | None = None,
    ) -> None:
        self.total = total
        self._on_shortage = on_shortage
        self._on_return = on_return
        self._lender = lender
        _, self._shared_of_node = pools(total)
        self._reserve_total, self._shared_total = pools(total) if lender is None else (NOTHING, NOTHING)
        self._owed = {True: NOTHING, False: NOTHING}
        self._granted = {True: 0, False: 0}
        self._others = Share("")
        self._reserve_used = NOTHING
        self._shared_used = NOTHING
        self._async_used = NOTHING
        self._lines: dict[bool, _Lines] = {True: {}, False: {}}
        self._numbers = itertools.count()
        self._bypassed: dict[bool, int] = {True: 0, False: 0}

    def __repr__(self) -> str:
        return f"<ResourceTracker used={self.used} of {self.total} waiting={self.waiting}>"

    @property
    def borrows(self) -> bool:
        """True if other workers of the node lend it room that is not here yet."""
        return self._lender is not None

    @property
    def used(self) -> Amount:
        """Return what is granted now."""
        return self._reserve_used + self._shared_used

    def async_is_below_mark(self, idle: Amount) -> bool:
        """Return True if more async calls may be taken on.

        Args:
            idle: What idle containers of async functions hold: they can serve, or give way.
        """
        busy = self._async_used - idle
        mark = Amount(
            self._shared_of_node.memory_mib * _ASYNC_MARK_PERCENT // 100,
            self._shared_of_node.cpu_milli * _ASYNC_MARK_PERCENT // 100,
        )
        return busy.memory_mib < mark.memory_mib and busy.cpu_milli < max(1, mark.cpu_milli)

    @property
    def waiting(self) -> int:
        """Return the number of requests that wait."""
        return sum(len(line) for lines in self._lines.values() for line in lines.values())

    def is_possible(self, amount: Amount, *, is_sync: bool) -> bool:
        """Return whether an otherwise empty node could grant this."""
        return amount.fits(self.total if is_sync else self._shared_of_node)

    def use(self, share: Share, more: Amount = NOTHING) -> float:
        """Return the part of the node that an app uses, for its weight.

        Args:
            share: The share of the app.
            more: Added to what it uses; may be negative.
        """
        used, total = share.used + more, self.total
        memory = used.memory_mib / total.memory_mib
        return max(memory, used.cpu_milli / total.cpu_milli if total.cpu_milli else 0.0) / share.weight

    def shortage(self) -> Shortage | None:
        """Return what the requests that are next in order lack; ``None`` if none waits for room of the node."""
        for is_sync, owed in self._owed.items():
            if owed != NOTHING:
                self._others.used = self.total - self.lent.total
                return Shortage(
                    owed, owed, is_sync, frozenset(), owed, self._others, takes_parts=True, late_at=-math.inf
                )
        for is_sync in (True, False):
            next_ones = list(itertools.islice(self._in_order(is_sync), self.room_for))
            if next_ones:
                first, room = next_ones[0], self._room(is_sync)
                together = sum((waiter.amount for waiter in next_ones), NOTHING)
                keys = frozenset(waiter.key for waiter in next_ones)
                least, lack = _lack(first.amount, room), _lack(together, room)
                return Shortage(least, lack, is_sync, keys, first.amount, first.share, late_at=first.late_at())
        return None

    def crowds(self) -> list[Crowd]:
        """Return the apps whose next requests their memory quotas keep out."""
        found = []
        for lines in self._lines.values():
            for share, line in lines.items():
                if (lack_mib := share.lacks_mib(line[0].amount)) > 0:
                    found.append(Crowd(share, lack_mib, line[0].key, line[0].late_at()))
        return found

    def fits(self, amount: Amount, share: Share, *, is_sync: bool) -> int:
        """Return how many containers of this size have room now."""
        room = self._room(is_sync)
        fitting = min(room.memory_mib, room.memory_mib - share.lacks_mib(room)) // amount.memory_mib
        return max(0, min(fitting, room.cpu_milli // amount.cpu_milli) if amount.cpu_milli else fitting)

    def shortage_of(self, amount: Amount, share: Share, *, is_sync: bool, key: bytes) -> Shortage:
        """Return what a container lacks for which nobody waits."""
        lack = _lack(amount, self._room(is_sync))
        return Shortage(lack, lack, is_sync, frozenset({key}), amount, share)

    def reserve_nowait(self, amount: Amount, share: Share, *, is_sync: bool) -> Reservation | None:
        """Take it if it is free and no other request is next."""
        waiter = self._come(amount, share, is_sync=is_sync, key=b"")
        if waiter.reservation is None:
            self._leave(waiter)
        return waiter.reservation

    async def reserve(
        self, amount: Amount, share: Share, *, is_sync: bool, key: bytes = b"", late_at: LateAt = never
    ) -> Reservation:
        """Wait until this much is free, and take it. A cancelled wait leaves no trace.

        Args:
            amount: Memory and CPU for the container; a ``cpu_milli`` of 0 means that no CPU is reserved.
            share: The share of the app that it is for.
            is_sync: For a sync call: the sync reserve is used first.
            key: The slot key it is for; idle containers of the same key do not give way to it.
            late_at: Returns when containers that are kept ready give way to it.

        Raises:
            NeverFits: The amount exceeds the whole node.
            QuotaExceeded: The amount exceeds the memory quota of the app.
        """
        if not self.is_possible(amount, is_sync=is_sync):
            raise NeverFits
        share.check_memory(amount)
        waiter = self._come(amount, share, is_sync=is_sync, key=key, late_at=late_at)
        if waiter.reservation is not None:
            return waiter.reservation
        waiter.future = asyncio.get_running_loop().create_future()
        self._on_shortage()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.reservation is None:
                self._leave(waiter)
                self.serve()  # it may have been the one that held the others up
            else:
                waiter.reservation.release()  # granted in the very tick in which the wait was given up
            raise

    def serve(self) -> None:
        """Grant what can be granted: something was returned, or a quota has changed."""
        self._grant_next()
        if any(self._lines.values()) or any(owed != NOTHING for owed in self._owed.values()):
            self._on_shortage()

    # -- a part of a node ------------------------------------------------------------------------------

    @property
    def lent(self) -> Loan:
        """Return what containers here may use together now."""
        return Loan(self._reserve_total, self._shared_total)

    def lacking(self, *, is_sync: bool) -> Amount:
        """Return what the next request of this kind lacks; nothing if none waits."""
        waiter = next(self._in_order(is_sync), None)
        return NOTHING if waiter is None else _lack(waiter.amount, self._room(is_sync))

    def turn(self, *, is_sync: bool) -> int:
        """Return how many requests of this kind were granted."""
        return self._granted[is_sync]

    def lend(self, loan: Loan) -> None:
        """Let containers here use more."""
        self._change(loan)
        self.serve()
        self._on_return()

    def recall(self, amount: Amount, *, is_sync: bool) -> None:
        """Give an amount back to the lender, as soon as it is free, before any request here is granted.

        Args:
            amount: More than now; a negative one takes back what was called back and is still here.
            is_sync: It is for a sync call: the sync reserve serves, too.
        """
        self._owed[is_sync] = most(NOTHING, self._owed[is_sync] + amount)
        self.serve()

    def _change(self, loan: Loan) -> None:
        self._reserve_total += loan.reserve
        self._shared_total += loan.shared

    def _pay(self, lender: Lender) -> None:
        """Give back what is called back and free."""
        for is_sync, owed in self._owed.items():
            free = Loan(self._reserve_total - self._reserve_used, self._shared_total - self._shared_used)
            reserve = least(owed, free.reserve) if is_sync else NOTHING
            loan = Loan(reserve, least(owed - reserve, free.shared))
            if loan != NO_LOAN:
                self._owed[is_sync] -= loan.total
                self._change(NO_LOAN - loan)
                lender.give_back(loan, is_sync=is_sync)

    # -- requests ------------------------------------------------------------------------------

    def _come(self, amount: Amount, share: Share, *, is_sync: bool, key: bytes, late_at: LateAt = never) -> _Waiter:
        """Add a request, which is granted at once if it is next and fits."""
        waiter = _Waiter(amount, is_sync, key, share, next(self._numbers), late_at)
        self._lines[is_sync].setdefault(share, deque()).append(waiter)
        self._grant_next()
        return waiter

    def _leave(self, waiter: _Waiter) -> None:
        lines = self._lines[waiter.is_sync]
        line = lines.get(waiter.share, ())
        if waiter in line:
            lines[waiter.share].remove(waiter)
            if not line:
                del lines[waiter.share]

    def _grant_next(self) -> None:
        if self._lender is not None:
            self._pay(self._lender)
            self._lender.look()
        for is_sync in (True, False):
            while (waiter := next(self._in_order(is_sync), None)) is not None:
                if waiter.future is not None and waiter.future.done():  # cancelled in this very tick
                    self._leave(waiter)
                    continue
                if not waiter.amount.fits(self._room(is_sync)):
                    break
                self._note_bypass(waiter)
                self._leave(waiter)
                waiter.reservation = self._grant(waiter.amount, waiter.share, is_sync=is_sync)
                if waiter.future is not None:
                    waiter.future.set_result(waiter.reservation)

    def _in_order(self, is_sync: bool) -> Iterator[_Waiter]:
        """Yield the requests in the order in which they are next if each is granted. Apps at their quota are left out.

        Nothing may be granted before the last one that is read.
        """
        used = dict.fromkeys(self._lines[is_sync], NOTHING)
        lines = {share: iter(line) for share, line in self._lines[is_sync].items()}
        heap: list[tuple[float, int, _Waiter]] = []

        def add_next_of(share: Share) -> None:
            waiter = next(lines[share], None)
            if waiter is not None and share.lacks_mib(used[share] + waiter.amount) <= 0:
                heapq.heappush(heap, (self.use(share, used[share]), waiter.number, waiter))

        for share in lines:
            add_next_of(share)
        if heap and self._bypassed[is_sync] >= self.max_bypasses:
            oldest = min(heap, key=lambda entry: entry[1])
            heap.remove(oldest)
            heapq.heapify(heap)
            heapq.heappush(heap, (-1.0, *oldest[1:]))
        while heap:
            *_, waiter = heapq.heappop(heap)
            yield waiter
            used[waiter.share] += waiter.amount
            add_next_of(waiter.share)

    def _note_bypass(self, granted: _Waiter) -> None:
        """Count the grants to later requests while the oldest one waits that is not kept out by its own quota."""
        heads = [line[0] for line in self._lines[granted.is_sync].values()]
        oldest = min(head.number for head in heads if head.share.lacks_mib(head.amount) <= 0)
        self._bypassed[granted.is_sync] = 0 if oldest == granted.number else self._bypassed[granted.is_sync] + 1

    def _room(self, is_sync: bool) -> Amount:
        shared = self._shared_total - self._shared_used
        return shared + (self._reserve_total - self._reserve_used) if is_sync else shared

    def _grant(self, amount: Amount, share: Share, *, is_sync: bool) -> Reservation:
        reserve_part = NOTHING
        if is_sync:
            room = self._reserve_total - self._reserve_used
            reserve_part = Amount(min(amount.memory_mib, room.memory_mib), min(amount.cpu_milli, room.cpu_milli))
        shared_part = amount - reserve_part
        self._reserve_used += reserve_part
        self._shared_used += shared_part
        if not is_sync:
            self._async_used += amount
        share.used += amount
        self._granted[is_sync] += 1
        return Reservation(self, share, reserve_part, shared_part, is_sync=is_sync)

    def _take_back(self, share: Share, reserve_part: Amount, shared_part: Amount, *, is_sync: bool) -> None:
        self._reserve_used -= reserve_part
        self._shared_used -= shared_part
        if not is_sync:
            self._async_used -= shared_part
        share.used -= reserve_part + shared_part
        self.serve()
        self._on_return()


def _lack(amount: Amount, room: Amount) -> Amount:
    missing = amount - room
    return Amount(max(0, missing.memory_mib), max(0, missing.cpu_milli))
