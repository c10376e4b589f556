"""Which idle containers give way when somebody waits for memory (agent specification 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from hearth.agent.hot import HotContainer
from hearth.agent.resources import NOTHING, Amount


def choose(
    idle: Sequence[HotContainer], leaving: Iterable[HotContainer], lack: Amount, key: bytes
) -> list[HotContainer]:
    """The containers to evict so that ``lack`` is met, as few as needed.

    Longest idle first, those first whose function keeps another idle container. Never one of ``key`` itself: the
    request would have taken it. What containers on their way out will return counts as met.
    """
    met = NOTHING
    for hot in leaving:
        met += _held(hot)
    chosen: list[HotContainer] = []
    for hot in _in_order(idle, key):
        if lack.fits(met):
            break
        chosen.append(hot)
        met += _held(hot)
    return chosen if lack.fits(met) else []


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


def _held(hot: HotContainer) -> Amount:
    return Amount(hot.function.route.memory, hot.function.route.cpu_milli)
