"""How many containers are found to be of use where the pace of calls is never the same twice."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from hearth.agent.scaling.useful_concurrency import UsefulConcurrency

_TICK_S = 0.005
_LOOK_S = 0.2
_START_S = 0.1
_MOST = 128


def containers_after(seconds: float, pace: Callable[[int], float], noise: float, seed: int) -> int:
    """Run that long, with calls always waiting, and neighbours that take some of the processors now and then."""
    chance, useful = random.Random(seed), UsefulConcurrency()
    serving, starting, taken, share = 2, list[float](), 0.0, 1.0
    for tick in range(1, int(seconds / _TICK_S)):
        now = tick * _TICK_S
        if tick % int(_LOOK_S / _TICK_S) == 1:
            share = max(0.1, chance.gauss(1, noise))
        taken += pace(serving) * share * _TICK_S
        serving += sum(end <= now for end in starting)
        starting = [end for end in starting if end > now]
        useful = useful.after(now, int(taken), serving=serving, starting=len(starting))
        limit = useful.limit
        room = serving if limit is None else min(serving, limit - serving)
        room = min(room, _MOST - serving) - len(starting)
        starting += [now + _START_S] * room
    return serving


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
def test_a_pace_that_varies_by_chance_does_not_make_more_containers_look_useful(noise: float) -> None:
    for seed in range(8):
        assert containers_after(10, lambda serving: 1500.0, noise, seed) <= 20


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
def test_a_function_that_waits_gets_its_containers_all_the_same(noise: float) -> None:
    for seed in range(8):
        assert containers_after(15, lambda serving: 20.0 * serving, noise, seed) >= 64


def test_time_without_a_container_is_no_measurement() -> None:
    """All containers of a function have ended while calls wait; then others come."""
    useful = UsefulConcurrency(limit=4)
    for look in range(1, 100):
        useful = useful.after(look * 0.2, 0, serving=0, starting=0)
    assert useful.best is None
    for look in range(100, 200):
        useful = useful.after(look * 0.2, look * 10, serving=2, starting=0)
    assert useful.best is not None
    assert useful.best[1] == pytest.approx(50)
