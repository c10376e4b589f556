"""How many calls are taken ahead: few if they are long, many if they are short, within bounds."""

from __future__ import annotations

import pytest
from tests.support.clock import FakeClock

from hearth.async_calls.prefetch import Prefetch


@pytest.mark.parametrize(
    ("started", "seconds", "limit"),
    [
        (0, 10.0, 32),  # nothing came, or it runs long
        (100, 1.0, 32),
        (200, 0.25, 200),
        (5000, 1.0, 256),
        (7, 0.0, 32),  # two looks in one instant tell nothing
    ],
)
def test_what_may_wait_is_what_is_started_in_a_quarter_of_a_second(started: int, seconds: float, limit: int) -> None:
    clock = FakeClock()
    pace = Prefetch(clock, 32)
    for _ in range(started):
        pace.started()
    clock.advance(seconds)
    pace.taken()
    assert pace.limit == limit


def test_each_look_counts_anew() -> None:
    clock = FakeClock()
    pace = Prefetch(clock, 32)
    for _ in range(500):
        pace.started()
    clock.advance(1.0)
    pace.taken()
    assert pace.limit == 125
    clock.advance(1.0)
    pace.taken()
    assert pace.limit == 32
