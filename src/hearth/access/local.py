"""Definitions, records and accepted calls in this process's own stores."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Final

import msgspec

from hearth.access.base import AlreadyStarted, DataAccess, EndedCall
from hearth.batch import GroupCommit, write_apart
from hearth.clock import Clock, pause
from hearth.datastore.base import Datastore
from hearth.logstores.base import Log, LogsLost, LogStore
from hearth.models.app import App
from hearth.models.call import RUNNING, Call
from hearth.models.errors import HearthError, StoreRefused
from hearth.models.route import Route
from hearth.queues.base import Backlog, Queue, Reserved
from hearth.telemetry import metrics
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import span

#: Seconds that a client waits for the record of its accepted call, if the datastore fails; 202 comes all the same.
_RECORD_WAIT_S: Final = 5.0
_RECORD_AGAIN_S: Final = 0.5
#: Accepted calls whose records may wait for the datastore; of those beyond, the start makes the record.
_MAX_LATE: Final = 10_000

_log = get_logger(__name__)
_lost_logs = metrics.counter("hearth_logs_lost")


class LocalAccess(DataAccess):
    """Straight to the datastore and the queue, many calls in one transaction.

    Args:
        datastore: Where definitions and records are.
        queue: Where accepted calls are.
        logs: Where logs are kept, if not with the records.

    Attributes:
        lost_logs: Logs that the log store did not take; their calls' records are stored all the same.
    """

    def __init__(self, datastore: Datastore, queue: Queue, clock: Clock, logs: LogStore | None = None) -> None:
        self._datastore = datastore
        self._queue = queue
        self._clock = clock
        self._closing = False
        self._logs = logs
        self.lost_logs = 0
        self._accepted = GroupCommit(self._enqueue)
        self._late = GroupCommit(self._record_late)
        self._starting = GroupCommit(self._start_many)
        self._settled = GroupCommit(self._settle)

    async def close(self) -> None:
        """Wait until all is written. The stores are closed by whoever opened them."""
        self._closing = True
        for group in (self._accepted, self._late, self._starting, self._settled):
            await group.close()

    async def get_app(self, name: str) -> App:
        """The app."""
        return await self._datastore.get_app(name)

    async def get_route(self, app_name: str, path: str) -> Route:
        """The route."""
        return await self._datastore.get_route(app_name, path)

    async def finish_many(self, ended: list[EndedCall]) -> None:
        """Store records and logs: in one transaction, or the records first if the logs are kept elsewhere.

        Of a call that has ended twice, because more of its log came, the last is stored.
        """
        ended = list({one.call.id: one for one in ended}.values())
        if self._logs is None:
            _tell(ended, await self._datastore.put_calls([(one.call, one.log) for one in ended]))
            return
        stored = await self._datastore.put_calls([(one.call, None) for one in ended])
        _tell(ended, stored)
        logs = [Log(one.call.app_name, one.call.id, one.log) for one, ours in zip(ended, stored, strict=True) if ours]
        try:
            await self._logs.put_logs(logs)
        except LogsLost as exc:
            self.lost_logs += exc.lost
            _lost_logs.add(exc.lost)
            _log.error("error uploading log", lost=exc.lost, error=str(exc))

    @property
    def visibility_s(self) -> float:
        """The queue's visibility timeout."""
        return self._queue.visibility_s

    async def enqueue(self, call: Call) -> None:
        """Have the message, then the record."""
        if await self._accepted.put(call) or self._late.waiting >= _MAX_LATE:
            return
        late = self._late.put(msgspec.structs.replace(call, payload=b"", config={}, headers={}))
        await asyncio.wait([late], timeout=_RECORD_WAIT_S)

    async def dequeue(self, limit: int) -> list[Reserved]:
        """Wait for the queue, then take."""
        while True:
            await self._queue.wait()
            with span("mq_reserve"):
                reserved = await self._queue.reserve(limit)
            if reserved:
                return reserved

    async def start(self, call: Call) -> None:
        """Compare and swap in the datastore."""
        found = await self._starting.put(call)
        if isinstance(found, Exception):
            raise found
        if found:
            raise AlreadyStarted(found)

    async def settle(self, leases: list[str]) -> list[bool]:
        """Delete the messages."""
        return await self._settled.put(leases)

    async def renew(self, leases: list[str]) -> list[bool]:
        """Renew the leases."""
        return await self._queue.renew(leases)

    async def release(self, lease: str, delay_s: float = 0.0) -> None:
        """Give the message back."""
        await self._queue.release(lease, delay_s)

    async def backlog(self) -> Backlog | None:
        """Ask the queue."""
        return await self._queue.backlog()

    async def interrupted(self, call: Call) -> None:
        """Complete the stored record, if it still says running."""
        stored = await self._datastore.get_call(call.app_name, call.id)
        if stored.status != RUNNING:
            return
        call.created_at, call.started_at = stored.created_at, stored.started_at
        await self.finish_many([EndedCall(call, b"")])

    async def _start_many(self, calls: list[Call]) -> list[str | Exception]:
        """For each the status that kept it from being started, or why the datastore does not take its start."""
        return await write_apart(self._datastore.start_calls, calls, refused=lambda _, exc: exc)

    async def _settle(self, batches: list[list[str]]) -> Sequence[list[bool]]:
        with span("mq_delete"):
            found = iter(await self._queue.settle([lease for leases in batches for lease in leases]))
        return [list(itertools.islice(found, len(leases))) for leases in batches]

    async def _enqueue(self, calls: list[Call]) -> Sequence[bool]:
        """For each call whether its record, too, is stored."""
        # The message comes first: a message without a record still runs, a record without a message never would.
        with span("mq_push"):
            await self._queue.push(calls)
        return [await self._recorded(calls)] * len(calls)

    async def _record_late(self, calls: list[Call]) -> Sequence[None]:
        """Keep trying; what has been started meanwhile has its record, which stays."""
        while not await self._recorded(calls) and not self._closing:
            await pause(self._clock, _RECORD_AGAIN_S)
        return [None] * len(calls)

    async def _recorded(self, calls: list[Call]) -> bool:
        """Whether nothing is left to be tried again: of one that the datastore refuses, nothing is."""
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


def _not_recorded(call: Call, exc: Exception) -> bool:
    """Nothing of it is left to be tried again."""
    _log.error("accepted call refused by the datastore, not recorded", call_id=call.id, error=str(exc))
    return True


def _tell(ended: list[EndedCall], stored: list[bool]) -> None:
    for one, ours in zip(ended, stored, strict=True):
        if not ours:
            _log.warning(
                "the end of a call was recorded by another node before",
                call_id=one.call.id,
                status=one.call.status,
                error=one.call.error,
            )
