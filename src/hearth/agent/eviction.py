"""Choose the idle containers that give way when requests wait for memory (agent specification 5).

Every call makes its container busy and idle again, so that costs no more than an entry in a dictionary. What the idle
containers hold is summed up only when memory is short; then few of them are idle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from hearth.agent.resources import Crowd, Returned, Shortage
from hearth.agent.shares import Share
from hearth.models.function import NOTHING, Amount


class Evictable(Protocol):
    """A hot container, as seen from here."""

    @property
    def key(self) -> bytes:
        """Return its slot key."""

    @property
    def is_sync(self) -> bool:
        """True if it serves sync calls."""

    @property
    def share(self) -> Share:
        """Return the share of its app."""

    @property
    def kept_idle(self) -> int:
        """Return how many idle containers of its key are kept ready (``min_instances``)."""

    @property
    def returned(self) -> Returned:
        """Return what its end adds to the room of others. Never changes."""


C = TypeVar("C", bound=Evictable)


class Standby(Generic[C]):
    """The idle containers of a node and those on their way out.

    Attributes:
        idle: The containers that have no call, longest idle first. Each adds and removes itself.
        is_short: Requests wait for memory, so each container that turns idle may have to give way.
    """

    def __init__(self) -> None:
        self.idle: dict[C, None] = {}
        self.is_short = False
        self._leaving: dict[C, None] = {}

    def __repr__(self) -> str:
        return f"<Standby idle={len(self.idle)} leaving={len(self._leaving)}>"

    @property
    def idle_async(self) -> Amount:
        """Return the memory and CPU that the idle containers of async functions hold together."""
        return _returned([hot for hot in self.idle if not hot.is_sync], to_sync=False)

    def leaving(self, hot: C) -> None:
        """Note that a container takes no further call and still holds its memory. Idempotent."""
        self.idle.pop(hot, None)
        self._leaving[hot] = None

    def gone(self, hot: C) -> None:
        """Remove a container that is gone; its memory is about to be returned."""
        self.idle.pop(hot, None)
        self._leaving.pop(hot, None)

    def choose(self, shortage: Shortage, *, is_late: bool = False) -> list[C]:
        """Return as few containers as possible whose end meets the shortage, or as much of it as can be met.

        Return none if not even the first request could then be served, unless it takes parts. Longest idle first,
        those first whose function keeps another idle container. Those that are kept ready come last, and only if the
        call of the first request has waited for long (``is_late``). Never one of a slot key that waits: the request
        would have taken it. What leaving containers will return counts as met.
        """
        met = _returned(self._leaving, to_sync=shortage.is_sync)
        if shortage.lack.fits(met):
            return []
        needed = NOTHING if shortage.takes_parts else shortage.least
        if not needed.fits(met + _returned(self.idle, to_sync=shortage.is_sync)):
            return []
        chosen: list[C] = []
        for hot in self._in_order(shortage.keys, is_late=is_late):
            if shortage.lack.fits(met):
                break
            gain = hot.returned.to_sync if shortage.is_sync else hot.returned.to_async
            if gain != NOTHING:
                chosen.append(hot)
                met += gain
        return chosen if needed.fits(met) else []

    def choose_own(self, crowd: Crowd, *, is_late: bool = False) -> list[C]:
        """Return idle containers of an app that give way to its own next request, which its memory quota keeps out.

        None if not even all of them would make room.
        """
        lack_mib = crowd.lack_mib - self.leaving_of(crowd.share).memory_mib
        chosen: list[C] = []
        for hot in self._in_order(frozenset({crowd.key}), is_late=is_late):
            if lack_mib <= 0:
                break
            if hot.share is crowd.share:
                chosen.append(hot)
                lack_mib -= hot.returned.to_sync.memory_mib
        return chosen if lack_mib <= 0 else []

    def leaving_of(self, share: Share) -> Amount:
        """Return what the containers of an app hold that are on their way out."""
        return _returned((hot for hot in self._leaving if hot.share is share), to_sync=True)

    def beyond_idle(self, shortage: Shortage, *, is_late: bool = False) -> Amount:
        """Return what the first request lacks even if all idle containers gave way to it that may."""
        idle = self._in_order(shortage.keys, is_late=is_late)
        met = _returned((*self._leaving, *idle), to_sync=shortage.is_sync)
        least = shortage.least
        return Amount(max(0, least.memory_mib - met.memory_mib), max(0, least.cpu_milli - met.cpu_milli))

    def _in_order(self, keys: frozenset[bytes], *, is_late: bool) -> Iterator[C]:
        left = Counter([hot.key for hot in self.idle])
        last_ones, kept_ones = [], []
        kept_of: dict[bytes, int] = {}
        for hot in self.idle:
            if hot.key in keys:
                continue
            if (kept := kept_of.get(hot.key)) is None:
                kept = kept_of[hot.key] = hot.kept_idle
            if left[hot.key] <= kept:
                kept_ones.append(hot)
                continue
            left[hot.key] -= 1
            if left[hot.key]:
                yield hot
            else:
                last_ones.append(hot)
        yield from last_ones
        if is_late:
            yield from kept_ones


def _returned(containers: Iterable[Evictable], *, to_sync: bool) -> Amount:
    """Return what the ends of some containers add to the room of others."""
    memory_mib = cpu_milli = 0
    for hot in containers:
        amount = hot.returned.to_sync if to_sync else hot.returned.to_async
        memory_mib += amount.memory_mib
        cpu_milli += amount.cpu_milli
    return Amount(memory_mib, cpu_milli)
