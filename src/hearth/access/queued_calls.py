"""The limits of accepted async calls that have not started: checked before a call is accepted, never afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from hearth.access.quota_cache import CachedQuotas
from hearth.aio.clock import Clock
from hearth.models.call import Call
from hearth.models.errors import QuotaExceeded, TooManyQueued
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
_MAX_COUNTS: Final = 10_000


@dataclasses.dataclass(slots=True)
class _Count:
    """The queued calls of an app, or of one of its functions.

    Attributes:
        stored: The number in the datastore when they were counted, and those that were accepted here since.
        coming: Calls that are being accepted here.
        counted_at: Loop time of the count.
    """

    stored: int = 0
    coming: int = 0
    counted_at: float = float("-inf")


class QueuedCalls:
    """Counts the queued calls of apps with such a quota, and of functions with such a limit.

    The count is of all nodes that share the datastore. Between two counts a node knows only of calls that it accepts
    itself, so several nodes together may accept some more.

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
        self._counts: OrderedDict[tuple[str, str, str], _Count] = OrderedDict()

    def __repr__(self) -> str:
        return f"<QueuedCalls counts={len(self._counts)}>"

    async def place(self, call: Call) -> contextlib.AbstractContextManager[object]:
        """Return the place of a call in its app's quota and in the limit of its function; inside it, it is accepted.

        Raises:
            QuotaExceeded: There is none in the quota.
            TooManyQueued: There is none in the limit.
        """
        own = await self._quotas.of(call.app_name, call.app_id)
        quota = own.over(self._defaults).queued_calls
        with contextlib.ExitStack() as places:
            if quota is not None:
                if (count := await self._room(call, quota)) is None:
                    self._refusals.series(call.app_name).value += 1
                    raise QuotaExceeded(call.app_name, "queued_calls", quota, _AGAIN_S)
                places.enter_context(_coming(count))
            if call.max_queued:
                if (count := await self._room(call, call.max_queued, call.path)) is None:
                    raise TooManyQueued(call.app_name, call.path, call.max_queued, _AGAIN_S)
                places.enter_context(_coming(count))
            return places.pop_all()

    async def _room(self, call: Call, most: int, path: str = "") -> _Count | None:
        """Return the count of an app, or of one of its functions, if it is below a limit."""
        key = (call.app_name, call.app_id, path)
        count = self._counts.setdefault(key, _Count())
        self._counts.move_to_end(key)
        if len(self._counts) > _MAX_COUNTS:
            self._counts.popitem(last=False)
        age_s = self._clock.monotonic() - count.counted_at
        if age_s >= (_FULL_S if count.stored + count.coming >= most else _TTL_S):
            count.counted_at = self._clock.monotonic()  # before the count: others use the last one meanwhile
            count.stored = await self._datastore.count_queued(call.app_name, most, path)
        return count if count.stored + count.coming < most else None


@contextlib.contextmanager
def _coming(count: _Count) -> Iterator[None]:
    """Count a call that is being accepted, and as stored once it is."""
    count.coming += 1
    try:
        yield
        count.stored += 1
    finally:
        count.coming -= 1
