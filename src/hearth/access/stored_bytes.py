"""The quota of the bytes that are stored for an app: checked before a call is accepted, never afterwards.

The bytes are counted now and then, since no table has a total of an app: each call would have to update it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections import OrderedDict
from typing import Final

from hearth.access.quota_cache import CachedQuotas
from hearth.aio.background import Background
from hearth.aio.clock import Clock
from hearth.models.call import Call
from hearth.models.errors import HearthError, QuotaExceeded
from hearth.models.quotas import NO_QUOTAS, Quotas
from hearth.queues.base import Queue
from hearth.stores.datastore import Datastore
from hearth.stores.logs.base import LogStore
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.names import QUOTA_REFUSALS

#: Seconds from one count to the next one.
COUNT_EVERY_S: Final = 30.0
#: A count that took long is repeated after this many times as long: it reads a row of each stored call of the app.
_PAUSES: Final = 20
_MAX_APPS: Final = 10_000

_log = get_logger(__name__)


@dataclasses.dataclass(slots=True)
class _Count:
    """The stored bytes of an app.

    Attributes:
        found: Those of the last count.
        accepted: Payloads that were accepted here since the last count began.
        next_at: Loop time of the next count.
        counting: The count that is in progress.
    """

    found: int = 0
    accepted: int = 0
    next_at: float = float("-inf")
    counting: asyncio.Task[None] | None = None

    @property
    def is_known(self) -> bool:
        return self.next_at > float("-inf")


class StoredBytes:
    """Counts the stored bytes of apps with such a quota. The count is of all nodes that share the stores.

    Args:
        queue: Has accepted calls.
        datastore: Has results, dead letters, answers of keys, and logs unless ``logs`` has them.
        logs: The store of logs, if they have one of their own.
        quotas: The quotas of apps.
        defaults: The quotas of apps that have none of their own.
        metrics: Count refusals.
    """

    def __init__(
        self,
        queue: Queue,
        datastore: Datastore,
        logs: LogStore | None,
        quotas: CachedQuotas,
        clock: Clock,
        defaults: Quotas,
        metrics: Metrics,
    ) -> None:
        self._queue = queue
        self._datastore = datastore
        self._logs = logs
        self._quotas = quotas
        self._clock = clock
        self._defaults = NO_QUOTAS.over(defaults)
        self._refusals = metrics.counter(QUOTA_REFUSALS["stored_bytes"])
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()
        self._background = Background()

    def __repr__(self) -> str:
        return f"<StoredBytes apps={len(self._counts)}>"

    async def close(self) -> None:
        """End the counts that are in progress. The stores stay open."""
        await self._background.cancel()

    async def admit(self, call: Call) -> None:
        """Count the payload of a call that is accepted next.

        Waits for a count only if there was none, or if the call would be refused because of an old one.

        Raises:
            QuotaExceeded: The app has no room for it.
        """
        own = await self._quotas.of(call.app_name, call.app_id)
        quota = own.over(self._defaults).stored_bytes
        if quota is None:
            return
        key, size = (call.app_name, call.app_id), len(call.payload)
        count = self._counts.setdefault(key, _Count())
        self._counts.move_to_end(key)
        if len(self._counts) > _MAX_APPS:
            self._counts.popitem(last=False)
        if count.counting is None and self._clock.monotonic() >= count.next_at:
            count.counting = self._background.start(self._measure(call.app_name, count, quota))
        if count.counting is not None and (not count.is_known or count.found + count.accepted + size > quota):
            await asyncio.wait([count.counting])
        if count.found + count.accepted + size > quota:
            self._refusals.series(call.app_name).value += 1
            again_s = max(1, math.ceil(count.next_at - self._clock.monotonic()))
            raise QuotaExceeded(call.app_name, "stored_bytes", quota, None if size > quota else again_s)
        count.accepted += size

    async def _measure(self, app_name: str, count: _Count, quota: int) -> None:
        """Count once. If this fails, the last count stays in use."""
        began_at, before = self._clock.monotonic(), count.accepted
        try:
            found = await self._queue.bytes_of(app_name)
            found += await self._datastore.stored_bytes(app_name, quota)
            found += await self._datastore.key_bytes(app_name, quota)
            if self._logs is not None:
                found += await self._logs.stored_bytes(app_name, quota)
        except HearthError as exc:
            _log.warning("stored bytes of an app not counted", app_name=app_name, error=str(exc))
        else:
            count.found, count.accepted = found, count.accepted - before
        finally:
            now = self._clock.monotonic()
            count.next_at = now + max(COUNT_EVERY_S, _PAUSES * (now - began_at))
            count.counting = None
