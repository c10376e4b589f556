"""Orders in which requests for memory may be served, to be compared with the one that the agent has."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from bench.simulation_load import SIZES
from hearth.agent.resources import Amount, Reservation, ResourceTracker

_SMALLEST: Final = min(SIZES)


class InOrder(ResourceTracker):
    """The agent's own order: that of arrival. Nobody is ever bypassed."""

    bypasses: ClassVar[int] = 0

    def worst_bypass(self) -> int:
        """How often the most bypassed request was."""
        return 0


class OneAtATime(InOrder):
    """In order of arrival, and room is made for the first in line only."""

    room_for = 1


class Bypassing(ResourceTracker):
    """Whoever fits may overtake, until the one that is overtaken was overtaken ``bypasses`` times.

    With no limit this is what waking all waiters comes to.
    """

    bypasses: ClassVar[float] = math.inf
    room_for = 1

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._overtaken: dict[asyncio.Future[Reservation], int] = {}
        self._patient: dict[bool, list[asyncio.Future[Reservation]]] = {True: [], False: []}
        self._worst = 0

    def worst_bypass(self) -> int:
        """How often the most bypassed request was."""
        return self._worst

    def reserve_nowait(self, memory_mib: int, cpu_milli: int, *, is_sync: bool) -> Reservation | None:
        """Take it if it is free and those that wait for more may be overtaken once more."""
        amount = Amount(memory_mib, cpu_milli)
        if self._is_closed(is_sync) or not amount.fits(self._room(is_sync)):
            return None
        self._pass_by(self._sync if is_sync else self._async, is_sync)
        return self._grant(amount, is_sync=is_sync)

    def _serve(self) -> None:
        for is_sync, queue in ((True, self._sync), (False, self._async)):
            left: list[Any] = []
            room = self._room(is_sync)
            while queue and room.memory_mib >= _SMALLEST and not (left and self._is_closed(is_sync)):
                waiter = queue.popleft()
                if waiter.future.done():
                    continue
                if not waiter.amount.fits(room):
                    left.append(waiter)
                    continue
                self._pass_by(left, is_sync)
                waiter.future.set_result(self._grant(waiter.amount, is_sync=is_sync))
                room = self._room(is_sync)
            queue.extendleft(reversed(left))
        if self.waiting:
            self._on_shortage()

    def _is_closed(self, is_sync: bool) -> bool:
        """Somebody has been overtaken as often as may be."""
        self._patient[is_sync] = [future for future in self._patient[is_sync] if not future.done()]
        return bool(self._patient[is_sync])

    def _pass_by(self, waiters: Iterable[Any], is_sync: bool) -> None:
        overtaken = self._overtaken
        for waiter in waiters:
            count = overtaken[waiter.future] = overtaken.get(waiter.future, 0) + 1
            self._worst = max(self._worst, count)
            if count == self.bypasses:
                self._patient[is_sync].append(waiter.future)


class Bounded(Bypassing):
    """A request is bypassed eight times at most."""

    bypasses = 8


ORDERS: dict[str, Callable[..., ResourceTracker]] = {
    "arrival": InOrder,
    "arrival, room for one": OneAtATime,
    "bounded (8)": Bounded,
    "any that fits": Bypassing,
}
