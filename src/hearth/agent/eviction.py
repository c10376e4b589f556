"""Which idle containers give way when somebody waits for memory (agent specification 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from hearth.agent.hot import HotContainer
from hearth.agent.resources import NOTHING, Shortage


def choose(idle: Sequence[HotContainer], leaving: Iterable[HotContainer], shortage: Shortage) -> list[HotContainer]:
    """The containers to evict so that the shortage is met, as few as needed; none if all together would not meet it.

    Longest idle first, those first whose function keeps another idle container. Never one of the request's own slot
    key: the request would have taken it. What containers on their way out will return counts as met.
    """
    met = NOTHING
    for hot in leaving:
        met += hot.returns(to_sync=shortage.is_sync)
    chosen: list[HotContainer] = []
    for hot in _in_order(idle, shortage.key):
        if shortage.lack.fits(met):
            break
        gain = hot.returns(to_sync=shortage.is_sync)
        if gain != NOTHING:
            chosen.append(hot)
            met += gain
    return chosen if shortage.lack.fits(met) else []


def _in_order(idle: Sequence[HotContainer], key: bytes) -> list[HotContainer]:
    others = sorted([hot for hot in idle if hot.function.key != key], key=lambda hot: hot.idle_since)
    left = Counter(hot.function.key for hot in others)
    surplus: list[HotContainer] = []
    last_ones: list[HotContainer] = []
    for hot in others:
        if left[hot.function.key] > 1:
            left[hot.function.key] -= 1
            surplus.append(hot)
        else:
            last_ones.append(hot)
    return surplus + last_ones
