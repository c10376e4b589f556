"""Keeps the records and logs of ended calls: many calls, one commit (nodes specification 5).

A store that is gone for a while costs memory, which is bounded, and no call its answer: until the store is back, calls
are answered before their records are stored. What is lost in the end is counted, and logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from hearth.access.base import DataAccess, EndedCall
from hearth.batch import GroupCommit
from hearth.clock import Clock, SystemClock, pause
from hearth.models.errors import StoreUnavailable
from hearth.telemetry import metrics
from hearth.telemetry.logs import get_logger, is_debug

#: What may wait for the database, in calls and in bytes of their logs; beyond that, records are dropped and counted
#: rather than memory filled.
_MAX_WAITING: Final = 10_000
_MAX_WAITING_BYTES: Final = 256 * 1024 * 1024
_FIRST_RETRY_S: Final = 0.1
_MAX_RETRY_S: Final = 2.0
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
    """

    def __init__(
        self, access: DataAccess, *, limit_s: float = 10.0, retry_s: float = 60.0, clock: Clock | None = None
    ) -> None:
        self._access = access
        self._limit_s = limit_s
        self._retry_s = retry_s
        self._clock = clock or SystemClock()
        self._commits = GroupCommit(self._store)
        self._waiting_bytes = 0
        self._waiters: set[asyncio.Future[None]] = set()
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
        size = len(ended.log)
        self._waiting_bytes += size
        _waiting.add(1)
        stored = self._commits.put(ended)
        stored.add_done_callback(lambda _: self._release(size))
        return stored

    async def record(self, ended: EndedCall) -> bool:
        """Have it stored, and wait until it is: stored first, then the response ends. Whether it was stored.

        While the store is known to be gone, nobody waits for it.
        """
        stored = self.add(ended)
        if stored is None:
            return False
        if not self._failing:
            await self._wait(stored)
        if not stored.done():
            _log.error("call answered before its record was stored", call_id=ended.call.id)
            return False
        return stored.result()

    async def close(self) -> None:
        """Wait until all is stored; what the store does not take now is lost."""
        self._closing = True
        await self._commits.close()

    async def _wait(self, stored: asyncio.Future[bool]) -> None:
        """Wait until it is stored, or the store shows that it is gone, or the limit is reached."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        stored.add_done_callback(lambda _: _wake(waiter))
        timer = self._clock.call_at(self._clock.monotonic() + self._limit_s, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    async def _store(self, ended: list[EndedCall]) -> Sequence[bool]:
        try:
            await self._finish(ended)
        except StoreUnavailable as exc:
            self._lose(ended, str(exc), exc)
        except Exception as exc:  # whatever it is, the calls of other batches are still to be stored
            if len(ended) > 1:  # the store does not like one of them; the others shall not be lost with it
                half = len(ended) // 2
                return [*await self._store(ended[:half]), *await self._store(ended[half:])]
            self._lose(ended, str(exc), exc)
        else:
            return [True] * len(ended)
        return [False] * len(ended)

    async def _finish(self, ended: list[EndedCall]) -> None:
        """Store a batch, trying again while the store is gone."""
        give_up, delay_s = self._clock.monotonic() + self._retry_s, _FIRST_RETRY_S
        while True:
            try:
                await self._access.finish_many(ended)
            except StoreUnavailable as exc:
                self._failing = True
                for waiter in self._waiters:
                    _wake(waiter)
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

    def _release(self, size: int) -> None:
        self._waiting_bytes -= size
        _waiting.add(-1)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
