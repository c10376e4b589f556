"""The gauges of dead letters follow what is stored."""

from __future__ import annotations

import datetime as dt

from tests.support.clock import FakeClock
from tests.support.scrape import Watch

from hearth.models.dead_letter import DeadLetterCount
from hearth.nodes.dead_letter_gauges import DeadLetterGauges
from hearth.telemetry.metrics import Metrics


class Store:
    """Counts dead letters."""

    def __init__(self) -> None:
        self.counts: list[DeadLetterCount] = []

    async def count_dead_letters(self) -> list[DeadLetterCount]:
        return self.counts


async def test_each_app_has_its_number_and_age_and_none_once_all_are_gone() -> None:
    store, clock, metrics = Store(), FakeClock(), Metrics()
    watch = Watch(metrics)
    gauges = DeadLetterGauges(store, clock, metrics)  # type: ignore[arg-type]

    def shown(app: str) -> tuple[float, float]:
        return watch("hearth_dead_letters", app), watch("hearth_dead_letters_oldest_age_seconds", app)

    minute = dt.timedelta(minutes=1)
    store.counts = [DeadLetterCount("a", 3, clock.now() - minute), DeadLetterCount("b", 1, clock.now() + minute)]
    await gauges.count()
    assert [shown("a"), shown("b")] == [(3, 60), (1, 0)]
    store.counts = store.counts[1:]
    await gauges.count()
    assert [shown("a"), shown("b")] == [(0, 0), (1, 0)]
