"""Which idle containers give way when somebody waits for memory (agent specification 5).

It is asked whenever memory is short and anything changes, so it keeps what it needs instead of looking at every
container of the node: who is idle in order of time, who is on the way out, and what both groups hold together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from hearth.agent.resources import NOTHING, Amount, Shortage


class Evictable(Protocol):
    """A hot container, as seen from here."""

    @property
    def key(self) -> bytes:
        """Its slot key."""

    def returns(self, *, to_sync: bool) -> Amount:
        """What its end adds to the room of sync (or async) requests."""


C = TypeVar("C", bound=Evictable)


class _Group(Generic[C]):
    """Containers in order of their arrival here, and what they hold together."""

    def __init__(self) -> None:
        self.members: dict[C, tuple[Amount, Amount]] = {}
        self.to_sync = NOTHING
        self.to_async = NOTHING

    def add(self, hot: C) -> None:
        to_sync, to_async = hot.returns(to_sync=True), hot.returns(to_sync=False)
        self.members[hot] = to_sync, to_async
        self.to_sync += to_sync
        self.to_async += to_async

    def discard(self, hot: C) -> bool:
        held = self.members.pop(hot, None)
        if held is None:
            return False
        self.to_sync -= held[0]
        self.to_async -= held[1]
        return True

    def returns(self, *, to_sync: bool) -> Amount:
        return self.to_sync if to_sync else self.to_async


class Standby(Generic[C]):
    """The idle containers of a node, longest idle first, and those on their way out."""

    def __init__(self) -> None:
        self._idle: _Group[C] = _Group()
        self._leaving: _Group[C] = _Group()
        self._idle_of: Counter[bytes] = Counter()

    def __repr__(self) -> str:
        return f"<Standby idle={len(self._idle.members)} leaving={len(self._leaving.members)}>"

    def idle(self, hot: C) -> None:
        """It has nothing to do from now on."""
        self._idle.add(hot)
        self._idle_of[hot.key] += 1

    def busy(self, hot: C) -> None:
        """It has."""
        self._discard_idle(hot)

    def leaving(self, hot: C) -> None:
        """It takes no further call, and still holds its memory. Idempotent."""
        self._discard_idle(hot)
        self._leaving.discard(hot)
        self._leaving.add(hot)

    def gone(self, hot: C) -> None:
        """It exists no more; its memory is about to be returned."""
        self._discard_idle(hot)
        self._leaving.discard(hot)

    def choose(self, shortage: Shortage) -> list[C]:
        """The containers to evict so that the shortage is met, or as much of it as can be, as few as needed.

        None if not even the first request could be served. Longest idle first, those first whose function keeps another
        idle container. Never one of a slot key that waits itself: the request would have taken it. What containers on
        their way out will return counts as met.
        """
        met = self._leaving.returns(to_sync=shortage.is_sync)
        all_together = met + self._idle.returns(to_sync=shortage.is_sync)
        if shortage.lack.fits(met) or not shortage.least.fits(all_together):
            return []
        chosen: list[C] = []
        for hot in self._in_order(shortage.keys):
            if shortage.lack.fits(met):
                break
            gain = hot.returns(to_sync=shortage.is_sync)
            if gain != NOTHING:
                chosen.append(hot)
                met += gain
        return chosen if shortage.least.fits(met) else []

    def _in_order(self, keys: frozenset[bytes]) -> Iterator[C]:
        left = self._idle_of.copy()
        last_ones = []
        for hot in self._idle.members:
            if hot.key in keys:
                continue
            if left[hot.key] > 1:
                left[hot.key] -= 1
                yield hot
            else:
                last_ones.append(hot)
        yield from last_ones

    def _discard_idle(self, hot: C) -> None:
        if self._idle.discard(hot):
            self._idle_of[hot.key] -= 1
            if not self._idle_of[hot.key]:
                del self._idle_of[hot.key]
