"""The quota of accepted async calls that have not started: checked before a call is accepted, never afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from hearth.access.quota_cache import CachedQuotas
from hearth.aio.clock import Clock
from hearth.models.call import Call
from hearth.models.errors import QuotaExceeded
from hearth.models.quotas import NO_QUOTAS, Quotas
from hearth.stores.datastore import Datastore
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.names import QUOTA_REFUSALS

#: Seconds for which a count is used while it is below the quota: other nodes may accept calls of the app, too.
_TTL_S: Final = 5.0
#: Seconds for which a count is used that leaves no room: each count reads as many rows as the quota allows.
_FULL_S: Final = 0.1
#: Seconds after which a refused call may try again: nobody knows when the next one starts.
_AGAIN_S: Final = 1
_MAX_APPS: Final = 10_000


@dataclasses.dataclass(slots=True)
class _Count:
    """The queued calls of an app.

    Attributes:
        stored: The number in the datastore when they were counted, and those that were accepted here since.
        coming: Calls that are being accepted here.
        counted_at: Loop time of the count.
    """

    stored: int = 0
    coming: int = 0
    counted_at: float = float("-inf")


class QueuedCalls:
    """Counts the queued calls of apps with such a quota. The count is of all nodes that share the datastore.

    Args:
        quotas: The quotas of apps.
        defaults: The quotas of apps that have none of their own.
        metrics: Count refusals.
    """

    def __init__(
        self, datastore: Datastore, quotas: CachedQuotas, clock: Clock, defaults: Quotas, metrics: Metrics
    ) -> None:
        self._datastore = datastore
        self._quotas = quotas
        self._clock = clock
        self._defaults = NO_QUOTAS.over(defaults)
        self._refusals = metrics.counter(QUOTA_REFUSALS["queued_calls"])
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()

    def __repr__(self) -> str:
        return f"<QueuedCalls apps={len(self._counts)}>"

    async def place(self, call: Call) -> contextlib.AbstractContextManager[None]:
        """Return the place of a call in its app's quota; inside it, the call is accepted.

        Raises:
            QuotaExceeded: There is none.
        """
        own = await self._quotas.of(call.app_name, call.app_id)
        quota = own.over(self._defaults).queued_calls
        if quota is None:
            return contextlib.nullcontext()
        key = (call.app_name, call.app_id)
        count = self._counts.setdefault(key, _Count())
        self._counts.move_to_end(key)
        if len(self._counts) > _MAX_APPS:
            self._counts.popitem(last=False)
        age_s = self._clock.monotonic() - count.counted_at
        if age_s >= (_FULL_S if count.stored + count.coming >= quota else _TTL_S):
            count.counted_at = self._clock.monotonic()  # before the count: others use the last one meanwhile
            count.stored = await self._datastore.count_queued(call.app_name, quota)
        if count.stored + count.coming >= quota:
            self._refusals.series(call.app_name).value += 1
            raise QuotaExceeded(call.app_name, "queued_calls", quota, _AGAIN_S)
        count.coming += 1
        return _coming(count)


@contextlib.contextmanager
def _coming(count: _Count) -> Iterator[None]:
    """Count a call that is being accepted, and as stored once it is."""
    try:
        yield
        count.stored += 1
    finally:
        count.coming -= 1
