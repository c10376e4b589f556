"""Removes calls and logs that are old enough, a few at a time, so that no call waits for it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
from collections.abc import Awaitable, Callable
from typing import Final

from hearth.aio.background import BackgroundService
from hearth.aio.clock import Clock, pause
from hearth.models.errors import HearthError
from hearth.stores.datastore import Datastore
from hearth.stores.logs.base import LogStore
from hearth.stores.records.base import Removed
from hearth.telemetry.logs import get_logger

#: Calls or logs that one transaction removes, and seconds that the sweep leaves the database to others after each.
AT_ONCE: Final = 200
PAUSE_S: Final = 0.05
_FIRST_S: Final = 60.0
#: Seconds for which the firings of schedules are kept: until then a clock that was set back repeats none.
_FIRINGS_S: Final = 7 * 86_400.0

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of what is kept; ``None`` means no limit.

    Attributes:
        calls_s: Seconds for which the records of calls are kept, with their logs.
        calls: How many calls are kept.
        logs_s: Seconds for which logs are kept.
        logs_bytes: Bytes of logs that are kept.
        audit_s: Seconds for which events of the audit log are kept.
        dead_letters_s: Seconds for which dead letters are kept.
    """

    calls_s: float | None = None
    calls: int | None = None
    logs_s: float | None = None
    logs_bytes: int | None = None
    audit_s: float | None = None
    dead_letters_s: float | None = None

    @property
    def any(self) -> bool:
        """True if anything is ever removed."""
        return self != Limits()


class Retention(BackgroundService):
    """Sweeps a datastore. An async context manager: it sweeps again and again while it is entered.

    Calls that have not ended are never removed. Several nodes may sweep one database: each removes what is left.

    Args:
        logs: Where logs are kept, if that is not the datastore; swept, too.
        every_s: Seconds between two sweeps.
        also: Awaited after each sweep.
    """

    def __init__(
        self,
        datastore: Datastore,
        clock: Clock,
        limits: Limits,
        *,
        logs: LogStore | None = None,
        every_s: float = 3600.0,
        also: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__()
        self._datastore = datastore
        self._clock = clock
        self._limits = limits
        self._logs = logs
        self._every_s = every_s
        self._also = also

    async def sweep(self) -> Removed:
        """Remove what has expired and what is older than the limits, then return free space to the disk.

        Raises:
            StoreUnavailable: A store failed; what was removed before stays removed.
        """
        calls = logs = 0
        while await self._datastore.remove_results(self._clock.now(), AT_ONCE):
            await self._pause()
        while await self._datastore.remove_firings(self._ago(_FIRINGS_S), AT_ONCE):
            await self._pause()
        while await self._datastore.remove_keys(self._clock.now(), AT_ONCE):
            await self._pause()
        calls_before = await self._calls_before()
        if calls_before is not None:
            while gone := (await self._datastore.remove_calls(calls_before, AT_ONCE)).calls:
                calls += gone
                await self._pause()
        if (before := await self._logs_before(calls_before)) is not None:
            logs = await self._remove_logs(before)
        if self._limits.audit_s is not None:
            while await self._datastore.remove_events(self._ago(self._limits.audit_s), AT_ONCE):
                await self._pause()
        if self._limits.dead_letters_s is not None:
            while await self._datastore.remove_dead_letters(self._ago(self._limits.dead_letters_s), AT_ONCE):
                await self._pause()
        while await self._datastore.shrink():
            await self._pause()
        return Removed(calls=calls, logs=logs)

    async def look(self) -> Removed:
        """Count what a sweep would remove now; of logs in the datastore, those whose calls stay."""
        calls = logs = 0
        calls_before = await self._calls_before()
        if calls_before is not None:
            calls = (await self._datastore.count_calls(calls_before)).calls
        if (before := await self._logs_before(calls_before)) is not None:
            if self._logs is None:
                logs = (await self._datastore.count_logs(before, calls_before)).logs
            else:
                async for count in self._logs.remove_logs(before, dry_run=True):
                    logs += count
        return Removed(calls=calls, logs=logs)

    async def _remove_logs(self, before: dt.datetime) -> int:
        removed = 0
        if self._logs is None:
            while gone := (await self._datastore.remove_logs(before, AT_ONCE)).logs:
                removed += gone
                await self._pause()
        else:
            async for gone in self._logs.remove_logs(before):
                removed += gone
                await self._pause()
        return removed

    async def _calls_before(self) -> dt.datetime | None:
        bounds = [] if self._limits.calls_s is None else [self._ago(self._limits.calls_s)]
        if self._limits.calls is not None and (nth := await self._datastore.nth_newest_call(self._limits.calls)):
            bounds.append(nth)
        return max(bounds, default=None)

    async def _logs_before(self, calls_before: dt.datetime | None) -> dt.datetime | None:
        """Return the time before which logs are removed; in a store of their own, also those of removed calls."""
        bounds = [] if self._limits.logs_s is None else [self._ago(self._limits.logs_s)]
        if self._limits.logs_bytes is not None:
            store = self._datastore if self._logs is None else self._logs
            if beyond := await store.time_beyond(self._limits.logs_bytes):
                bounds.append(beyond)
        if self._logs is not None and calls_before is not None:
            bounds.append(calls_before)
        return max(bounds, default=None)

    def _ago(self, seconds: float) -> dt.datetime:
        return self._clock.now() - dt.timedelta(seconds=seconds)

    async def _pause(self) -> None:
        await pause(self._clock, PAUSE_S)

    async def _run(self) -> None:
        await pause(self._clock, _FIRST_S * (1 + random.random()))  # nodes that start together do not sweep together
        while True:
            try:
                removed = await self.sweep()
            except (HearthError, OSError) as exc:
                _log.warning("old calls or logs not removed", error=str(exc))
            except Exception as exc:  # the boundary of this task: the next sweep may succeed
                _log.error("old calls or logs not removed", exc_info=exc)
            else:
                if removed.calls or removed.logs:
                    _log.info("old calls removed", calls=removed.calls, logs=removed.logs)
            try:
                if self._also is not None:
                    await self._also()
            except (HearthError, OSError) as exc:
                _log.warning("old builds not removed", error=str(exc))
            except Exception as exc:  # the boundary of this task, too
                _log.error("old builds not removed", exc_info=exc)
            await pause(self._clock, self._every_s)
