"""The gauges of dead letters, by app."""

from __future__ import annotations

from typing import Final

from hearth.aio.background import BackgroundService
from hearth.aio.clock import Clock, pause
from hearth.models.errors import HearthError
from hearth.stores.records.base import RecordStore
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics

#: Seconds between two counts: each reads an entry of an index for each dead letter.
_PERIOD_S: Final = 30.0

_log = get_logger(__name__)


class DeadLetterGauges(BackgroundService):
    """Counts dead letters twice a minute, while this async context manager is entered.

    Args:
        store: The dead letters.
        clock: The ages are those of its wall time.
        metrics: The metrics of the node.
    """

    def __init__(self, store: RecordStore, clock: Clock, metrics: Metrics) -> None:
        super().__init__(lambda exc: _log.error("dead letters are no longer counted", exc_info=exc))
        self._store = store
        self._clock = clock
        self._length = metrics.gauge("hearth_dead_letters")
        self._oldest_age = metrics.gauge("hearth_dead_letters_oldest_age_seconds")
        self._apps: set[str] = set()

    async def count(self) -> None:
        """Count now; an app without dead letters has 0 of them."""
        found = {one.app_name: one for one in await self._store.count_dead_letters()}
        now = self._clock.now()
        for app in self._apps | found.keys():
            one = found.get(app)
            self._length.series(app).value = 0 if one is None else one.count
            age_s = 0.0 if one is None else (now - one.oldest).total_seconds()
            self._oldest_age.series(app).value = max(0.0, age_s)
        self._apps = set(found)

    async def _run(self) -> None:
        while True:
            try:
                await self.count()
            except HearthError as exc:
                _log.debug("dead letters not counted", error=str(exc))
            await pause(self._clock, _PERIOD_S)
