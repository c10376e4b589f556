"""Keeps the records and logs of ended calls: many calls, one commit (nodes specification 5).

A store that is gone for a while costs memory, which is bounded, and no call its answer: until the store is back, calls
are answered before their records are stored. What is lost in the end is counted, and logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from hearth.access.base import DataAccess, EndedCall
from hearth.batch import GroupCommit, write_apart
from hearth.clock import Clock, SystemClock, pause
from hearth.expiry import Expiries
from hearth.models.errors import StoreUnavailable
from hearth.telemetry import metrics
from hearth.telemetry.logs import get_logger, is_debug

#: What may wait for the database, in calls and in bytes of their logs; beyond that, records are dropped and counted
#: rather than memory filled.
_MAX_WAITING: Final = 10_000
_MAX_WAITING_BYTES: Final = 256 * 1024 * 1024
_FIRST_RETRY_S: Final = 0.1
_MAX_RETRY_S: Final = 2.0
_ANSWERED: Final = "call answered before its record was stored"
_FAILED: Final = "error finalizing call on datastore/mq"

_log = get_logger(__name__)
_waiting = metrics.gauge("hearth_records_waiting")
_lost = metrics.counter("hearth_records_lost")


class Recorder:
    """Group commit of ended calls.

    Args:
        access: Where they go.
        limit_s: How long a call waits for its record to be stored before it is answered all the same.
        retry_s: How long a batch is tried again whose store is gone. A repeated one replaces itself: storing twice is
            storing once.
        clock: What waits.
        running: How many calls have not been answered yet: a batch may wait a moment for theirs.
    """

    def __init__(
        self,
        access: DataAccess,
        *,
        limit_s: float = 10.0,
        retry_s: float = 60.0,
        clock: Clock | None = None,
        running: Callable[[], int] = lambda: 0,
    ) -> None:
        self._access = access
        self._retry_s = retry_s
        self._clock = clock or SystemClock()
        self._commits = GroupCommit(self._write, under_way=running)
        self._waiting_bytes = 0
        self._waiters: dict[asyncio.Future[bool], str] = {}
        self._limits = Expiries(self._clock, limit_s)
        self._failing = False
        self._closing = False
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Recorder waiting={self._commits.waiting} dropped={self.dropped}>"

    def add(self, ended: EndedCall) -> asyncio.Future[bool] | None:
        """Have it stored, some time soon: whether it was. ``None`` if too many wait already."""
        if self._commits.waiting >= _MAX_WAITING or self._waiting_bytes >= _MAX_WAITING_BYTES:
            self._lose([ended], "too many calls wait")
            return None
        self._waiting_bytes += len(ended.log)
        _waiting.add(1)
        return self._commits.put(ended)

    async def record(self, ended: EndedCall) -> bool:
        """Have it stored, and wait until it is: stored first, then the response ends. Whether it was stored.

        While the store is known to be gone, nobody waits for it.
        """
        stored = self.add(ended)
        if stored is None:
            return False
        call_id = ended.call.id
        if self._failing:
            _log.error(_ANSWERED, call_id=call_id)
            return False
        self._waiters[stored] = call_id
        limit = self._limits.add(lambda: self._give_up(stored, call_id))
        try:
            return await stored
        finally:
            self._limits.discard(limit)
            del self._waiters[stored]

    async def close(self) -> None:
        """Wait until all is stored; what the store does not take now is lost."""
        self._closing = True
        await self._commits.close()
        self._limits.close()

    async def _write(self, ended: list[EndedCall]) -> Sequence[bool]:
        try:
            return await write_apart(self._store, ended, refused=self._refused, is_refusal=lambda _: True)
        finally:
            self._waiting_bytes -= sum([len(one.log) for one in ended])
            _waiting.add(-len(ended))

    async def _store(self, ended: list[EndedCall]) -> Sequence[bool]:
        try:
            await self._finish(ended)
        except StoreUnavailable as exc:
            self._lose(ended, str(exc), exc)
            return [False] * len(ended)
        return [True] * len(ended)

    def _refused(self, ended: EndedCall, exc: Exception) -> bool:
        """Whatever it is, the calls of other batches are still to be stored."""
        self._lose([ended], str(exc), exc)
        return False

    async def _finish(self, ended: list[EndedCall]) -> None:
        """Store a batch, trying again while the store is gone."""
        give_up, delay_s = self._clock.monotonic() + self._retry_s, _FIRST_RETRY_S
        while True:
            try:
                await self._access.finish_many(ended)
            except StoreUnavailable as exc:
                self._failing = True
                for stored, call_id in self._waiters.items():
                    self._give_up(stored, call_id)
                if self._closing or self._clock.monotonic() + delay_s > give_up:
                    raise
                _log.warning("records not stored yet, trying again", calls=len(ended), error=str(exc))
            else:
                self._failing = False
                if is_debug():
                    for one in ended:
                        _log.debug("call recorded", call_id=one.call.id, status=one.call.status)
                return
            await pause(self._clock, delay_s)
            delay_s = min(2 * delay_s, _MAX_RETRY_S)

    def _lose(self, ended: Sequence[EndedCall], reason: str, cause: Exception | None = None) -> None:
        self.dropped += len(ended)
        _lost.add(len(ended))
        _log.error(_FAILED, calls=len(ended), call_id=ended[0].call.id, error=reason, exc_info=cause)

    @staticmethod
    def _give_up(stored: asyncio.Future[bool], call_id: str) -> None:
        """Let a call be answered; its record is stored all the same, if it can be."""
        if not stored.done():
            _log.error(_ANSWERED, call_id=call_id)
            stored.set_result(False)
