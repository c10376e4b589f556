"""Records and accepted calls in the stores of this process. Its datastore itself is the definitions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from hearth.access.base import AcceptedCalls, AlreadyStarted, CallRecords, EndedCall, Submit
from hearth.access.queued_calls import QueuedCalls
from hearth.access.quota_cache import CachedQuotas
from hearth.access.stored_bytes import StoredBytes
from hearth.aio.clock import Clock, pause
from hearth.aio.group_commit import GroupCommit, write_apart
from hearth.models.call import FINAL, RUNNING, Call
from hearth.models.destination import callback_id, callback_of
from hearth.models.errors import CallNotFound, CallTooLarge, HearthError, StoreRefused, StoreUnavailable
from hearth.models.idempotency import Claim, KeyEnd, StoredKey
from hearth.queues.base import Queue, Reserved
from hearth.stores.datastore import Datastore
from hearth.stores.logs.base import Log, LogsLost, LogStore
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.tracing import Tracing

#: Seconds that a client waits for the record of its accepted call while the datastore fails. The answer is 202 anyway.
RECORD_WAIT_S: Final = 5.0
_RECORD_AGAIN_S: Final = 0.5
#: Accepted calls whose records may wait for the datastore. Beyond that, the start of a call creates its record.
_MAX_LATE: Final = 10_000
#: Apps whose weights are remembered.
_MAX_WEIGHTS: Final = 10_000
#: The function of a call without a readable message and without a record: no function has this name.
UNKNOWN: Final = "?"
#: Seconds until such a call is taken again while the datastore fails.
_UNREADABLE_AGAIN_S: Final = 1.0
#: Bytes of a payload above which a call is pushed to the queue alone.
_LARGE_BYTES: Final = 1 << 20

_log = get_logger(__name__)


class LocalCallRecords(CallRecords):
    """Records in the datastore, logs with them or in a store of their own; many calls in one transaction.

    Args:
        datastore: Stores records, and logs unless ``logs`` does.
        logs: Stores logs; ``None`` if the datastore does.
        metrics: Count the logs that are lost.

    Attributes:
        lost_logs: Logs that the log store did not take; the records of their calls are stored all the same.
    """

    def __init__(self, datastore: Datastore, logs: LogStore | None = None, metrics: Metrics | None = None) -> None:
        self._lost_logs = (metrics or Metrics()).counter("hearth_logs_lost")
        self._datastore = datastore
        self._logs = logs
        self.lost_logs = 0
        self._starting = GroupCommit(self._start_many)

    async def close(self) -> None:
        """Wait until all starts are stored. The stores stay open."""
        await self._starting.close()

    @property
    def submit(self) -> Submit | None:
        """Return the datastore's own, if that is all that stores."""
        return self._datastore.submit if self._logs is None else None

    async def start(self, call: Call) -> None:
        """Compare and swap in the datastore."""
        found = await self._starting.put(call)
        if isinstance(found, Exception):
            raise found
        if found:
            raise AlreadyStarted(found)

    async def finish_many(self, ended: list[EndedCall]) -> None:
        """Store records and logs: in one transaction, or the records first if a log store keeps the logs.

        A call whose end came twice, because more of its log arrived, is stored as it came last.
        """
        ended = list({one.call.id: one for one in ended}.values())
        if self._logs is None:
            stored = await self._datastore.put_calls(ended)
            if not all(stored):
                _log_refused(ended, stored)
            return
        stored = await self._datastore.put_calls([(one.call, None) for one in ended])
        _log_refused(ended, stored)
        logs = [Log(one.call.app_name, one.call.id, one.log) for one, ours in zip(ended, stored, strict=True) if ours]
        try:
            await self._logs.put_logs(logs)
        except LogsLost as exc:
            self.lost_logs += exc.lost
            self._lost_logs.add(exc.lost)
            _log.error("error uploading log", lost=exc.lost, error=str(exc))

    async def cancelled(self, call_ids: list[str]) -> set[str]:
        """Ask the datastore."""
        return await self._datastore.cancelled(call_ids)

    async def interrupted(self, call: Call) -> None:
        """Complete the stored record if its status is still running."""
        stored = await self._datastore.get_call(call.app_name, call.id)
        if stored.status != RUNNING:
            return
        call.created_at, call.started_at = stored.created_at, stored.started_at
        call.completed_at = call.not_before(call.completed_at)
        await self.finish_many([EndedCall(call, b"")])

    async def _start_many(self, calls: list[Call]) -> list[str | Exception]:
        """Return for each call the status that prevents its start, or why the datastore refuses it; else nothing.

        Of several starts of one call only the first is written: the datastore cannot tell them apart.
        """
        first = {call.id: call for call in reversed(calls)}
        found: list[str | Exception] = await write_apart(
            self._datastore.start_calls, [*first.values()], refused=lambda _, exc: exc
        )
        outcomes = dict(zip(first, found, strict=True))
        return [outcomes[call.id] if outcomes[call.id] or first[call.id] is call else RUNNING for call in calls]


class LocalIdempotencyKeys:
    """Idempotency keys in the datastore, by the clock of this node."""

    def __init__(self, datastore: Datastore, clock: Clock) -> None:
        self._datastore = datastore
        self._clock = clock

    async def claim(self, claim: Claim) -> StoredKey:
        """Claim in the datastore."""
        return await self._datastore.claim_key(claim, self._clock.now())

    async def renew(self, held: Sequence[tuple[str, str]]) -> None:
        """Renew in the datastore."""
        await self._datastore.renew_keys(held, self._clock.now())

    async def end(self, end: KeyEnd) -> bool:
        """Store the end in the datastore."""
        return await self._datastore.end_key(end, self._clock.now())


class LocalAcceptedCalls(AcceptedCalls):
    """Messages in the queue, records of accepted calls in the datastore; many calls in one transaction.

    Args:
        queued: Limits the accepted calls of apps; ``None`` for no limit.
        stored: Limits the stored bytes of apps; ``None`` for no limit.
        quotas: The weights of apps; ``None`` if all weigh the same.
        public_url: Begins the addresses of results in what is sent to destinations.
    """

    leaves_out = True

    def __init__(
        self,
        queue: Queue,
        datastore: Datastore,
        clock: Clock,
        tracing: Tracing | None = None,
        queued: QueuedCalls | None = None,
        stored: StoredBytes | None = None,
        quotas: CachedQuotas | None = None,
        public_url: str = "",
    ) -> None:
        self._public_url = public_url.rstrip("/")
        self._quotas = quotas
        self._weights: OrderedDict[str, int] = OrderedDict()
        self._queued = queued
        self._stored = stored
        self._span = (tracing or Tracing(Metrics())).span
        self._queue = queue
        self._datastore = datastore
        self._clock = clock
        self._closing = False
        self._accepted: GroupCommit[Call, bool | Exception] = GroupCommit(self._enqueue_many)
        self._late = GroupCommit(self._record_late)
        self._acknowledged = GroupCommit(self._acknowledge_many)

    async def close(self) -> None:
        """Wait until everything is written. The stores stay open."""
        self._closing = True
        for group in (self._accepted, self._late, self._acknowledged):
            await group.close()

    @property
    def visibility_s(self) -> float:
        """The visibility timeout of the queue."""
        return self._queue.visibility_s

    async def enqueue(self, call: Call) -> None:
        """Store the message, then the record."""
        with contextlib.nullcontext() if self._queued is None else await self._queued.place(call):
            if self._stored is not None:
                await self._stored.admit(call)
            if self._quotas is not None:
                await self._weigh(self._quotas, call)
            await self._enqueue(call)

    async def _weigh(self, quotas: CachedQuotas, call: Call) -> None:
        """Tell the queue the weight of an app, once and after each change."""
        app, weight = call.app_name, (await quotas.of(call.app_name, call.app_id)).weight or 1
        if weight == self._weights.get(app):
            return
        await self._queue.weigh(app, weight)
        self._weights[app] = weight
        if len(self._weights) > _MAX_WEIGHTS:
            self._weights.popitem(last=False)

    async def _enqueue(self, call: Call) -> None:
        outcome = await self._accepted.put(call)
        if isinstance(outcome, StoreRefused):
            raise CallTooLarge(len(call.payload)) from outcome
        if isinstance(outcome, Exception):
            raise outcome
        if outcome or self._late.waiting >= _MAX_LATE:
            return
        late = self._late.put(_without_request(call))
        await asyncio.wait([late], timeout=RECORD_WAIT_S)

    async def dequeue(self, limit: int, without: frozenset[str] = frozenset()) -> list[Reserved]:
        """Wait for the queue, then reserve."""
        while True:
            await self._queue.wait(without)
            with self._span("mq_reserve"):
                reserved = await self._queue.reserve(limit, without)
            if any(not one.call.path for one in reserved):
                reserved = [one for one in reserved if one.call.path or await self._is_known(one)]
            if reserved:
                return reserved

    async def _is_known(self, reserved: Reserved) -> bool:
        """Complete a call whose message cannot be read from its record; give it back while that cannot be read."""
        call = reserved.call
        try:
            stored = await self._datastore.get_call(call.app_name, call.id)
        except CallNotFound:
            call.path = UNKNOWN
            return True
        except HearthError as exc:
            _log.error("record of an unreadable call not read yet", call_id=call.id, error=str(exc))
            await self._queue.release(reserved.lease, _UNREADABLE_AGAIN_S)
            return False
        call.path, call.app_id, call.created_at = stored.path, stored.app_id, stored.created_at
        call.attempt, call.attempts, call.result_digest = stored.attempt, stored.attempts, stored.result_digest
        return True

    async def acknowledge(self, leases: list[str]) -> list[bool]:
        """Delete the messages."""
        return await self._acknowledged.put(leases)

    async def renew(self, leases: list[str]) -> list[bool]:
        """Renew the leases."""
        return await self._queue.renew(leases)

    async def release(self, lease: str, delay_s: float = 0.0) -> None:
        """Release the message."""
        await self._queue.release(lease, delay_s)

    async def retry(self, lease: str, again: EndedCall, delay_s: float) -> bool:
        """Replace the message, then the record: a message of a later attempt runs, whatever its record says."""
        call = again.call
        with self._span("mq_push"):
            is_ours = await self._queue.replace(lease, call, delay_s)
        if not is_ours and not await self._is_replaced(call):
            return False
        try:
            await self._datastore.retry_calls([(_without_request(call), again.log)])
        except HearthError as exc:
            _log.error("next attempt of a call not recorded", call_id=call.id, error=str(exc))
        return True

    async def _is_replaced(self, call: Call) -> bool:
        """Return whether an earlier try, whose answer was lost, has recorded this attempt."""
        try:
            stored = await self._datastore.get_call(call.app_name, call.id)
        except CallNotFound:
            return False
        return stored.attempt >= call.attempt

    async def discard(self, call_id: str) -> None:
        """Delete the message of a call that will not run, unless a node holds it: that node deletes it then."""
        with self._span("mq_delete"):
            await self._queue.discard(call_id)

    async def call_back(self, call: Call) -> None:
        """Queue the call once the record is final. No quota limits it: the app has had its call."""
        try:
            record = await self._datastore.get_call(call.app_name, call.id)
        except CallNotFound:  # its app is gone
            return
        if record.status not in FINAL or await self._exists(call.app_name, callback_id(call.id)):
            return
        result = await self._datastore.get_result(call.app_name, call.id)
        callback = callback_of(call, record, result, self._clock.now(), self._public_url)
        if callback is not None:
            await self._enqueue(callback)

    async def _exists(self, app_name: str, call_id: str) -> bool:
        try:
            await self._datastore.get_call(app_name, call_id)
        except CallNotFound:
            return False
        return True

    async def _acknowledge_many(self, batches: list[list[str]]) -> Sequence[list[bool]]:
        with self._span("mq_delete"):
            found = iter(await self._queue.acknowledge([lease for leases in batches for lease in leases]))
        return [list(itertools.islice(found, len(leases))) for leases in batches]

    async def _enqueue_many(self, calls: list[Call]) -> Sequence[bool | Exception]:
        """Store calls; return for each whether its record is stored, too, or why the queue refuses its message."""
        # The message comes first: a message without a record still runs, a record without a message never would.
        outcomes = [outcome for some in _apart(calls) for outcome in await self._pushed(some)]
        kept = [call for call, outcome in zip(calls, outcomes, strict=True) if outcome is None]
        recorded = await self._recorded(kept)
        return [recorded if outcome is None else outcome for outcome in outcomes]

    async def _pushed(self, calls: list[Call]) -> Sequence[Exception | None]:
        """Push messages; return for each why the queue refuses it. A refused message fails alone."""
        try:
            return await write_apart(self._push, calls, refused=lambda _, exc: exc, is_refusal=_is_of_message)
        except StoreUnavailable as exc:
            return [exc] * len(calls)

    async def _push(self, calls: list[Call]) -> Sequence[Exception | None]:
        with self._span("mq_push"):
            await self._queue.push(calls)
        return [None] * len(calls)

    async def _record_late(self, calls: list[Call]) -> Sequence[None]:
        """Store records until it succeeds. The record of a call that was started meanwhile stays."""
        while not await self._recorded(calls) and not self._closing:
            await pause(self._clock, _RECORD_AGAIN_S)
        return [None] * len(calls)

    async def _recorded(self, calls: list[Call]) -> bool:
        """Return true if nothing is left to try again. A record that the datastore refuses is not tried again."""
        return all(await write_apart(self._add, calls, refused=_not_recorded))

    async def _add(self, calls: list[Call]) -> list[bool]:
        try:
            await self._datastore.add_calls(calls)
        except StoreRefused:
            raise
        except HearthError as exc:
            _log.error("accepted calls not recorded yet", calls=len(calls), error=str(exc))
            return [False] * len(calls)
        return [True] * len(calls)


def _without_request(call: Call) -> Call:
    """Return what the record needs of a call."""
    return msgspec.structs.replace(call, payload=b"", config={}, headers={})


def _apart(calls: list[Call]) -> list[list[Call]]:
    """Split calls, in their order. A large one goes alone: it may break the connection to the queue."""
    parts: list[list[Call]] = []
    joined = False
    for call in calls:
        is_small = len(call.payload) <= _LARGE_BYTES
        if is_small and joined:
            parts[-1].append(call)
        else:
            parts.append([call])
        joined = is_small
    return parts


def _is_of_message(exc: Exception) -> bool:
    return not isinstance(exc, StoreUnavailable)


def _not_recorded(call: Call, exc: Exception) -> bool:
    """Log it; nothing is left to try again."""
    _log.error("accepted call refused by the datastore, not recorded", call_id=call.id, error=str(exc))
    return True


def _log_refused(ended: list[EndedCall], stored: list[bool]) -> None:
    for one, ours in zip(ended, stored, strict=True):
        if not ours:
            _log.warning(
                "the end of a call was recorded by another node before",
                call_id=one.call.id,
                status=one.call.status,
                error=one.call.error,
            )
