"""Keeps the records and logs of ended calls: many calls, one commit (nodes specification 5).

What arrives while a commit runs is stored by the next one, so that a slow database makes batches larger, not queues
longer.
"""

from __future__ import annotations

import asyncio
from typing import Final

from hearth.access.base import DataAccess, EndedCall
from hearth.models.errors import HearthError
from hearth.telemetry.logs import get_logger

#: Calls that may wait for the database; beyond that, records are dropped and counted rather than memory filled.
_MAX_WAITING: Final = 10_000
_MAX_BATCH: Final = 500

_log = get_logger(__name__)


class Recorder:
    """Group commit of ended calls. :meth:`run` is its one task.

    Args:
        access: Where they go.
        limit_s: How long a call waits for its record to be stored before it is answered all the same.
    """

    def __init__(self, access: DataAccess, *, limit_s: float = 10.0) -> None:
        self._access = access
        self._limit_s = limit_s
        self._waiting: list[tuple[EndedCall, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Recorder waiting={len(self._waiting)} dropped={self.dropped}>"

    def add(self, ended: EndedCall) -> asyncio.Future[None]:
        """Have it stored; the future is done when it is, or when it failed for good."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= _MAX_WAITING:
            self.dropped += 1
            _log.error("error finalizing call on datastore/mq", call_id=ended.call.id, error="too many calls wait")
            stored.set_result(None)
            return stored
        self._waiting.append((ended, stored))
        self._wake.set()
        return stored

    async def record(self, ended: EndedCall) -> None:
        """Have it stored, and wait until it is: stored first, then the response ends."""
        stored = self.add(ended)
        _, late = await asyncio.wait([stored], timeout=self._limit_s)
        if late:
            _log.error("call answered before its record was stored", call_id=ended.call.id, waited_s=self._limit_s)

    async def run(self) -> None:
        """Store what comes until :meth:`close`, then the rest."""
        while True:
            while self._waiting:
                batch = self._waiting[:_MAX_BATCH]
                del self._waiting[:_MAX_BATCH]
                await self._store(batch)
            if self._closing:
                return
            self._wake.clear()
            await self._wake.wait()

    def close(self) -> None:
        """End :meth:`run` once all that waits is stored. Nothing may be added afterwards."""
        self._closing = True
        self._wake.set()

    async def _store(self, batch: list[tuple[EndedCall, asyncio.Future[None]]]) -> None:
        try:
            await self._access.finish_many([ended for ended, _ in batch])
        except HearthError as exc:
            self.dropped += len(batch)
            _log.error("error finalizing call on datastore/mq", calls=len(batch), error=str(exc), exc_info=exc)
        finally:
            for _, stored in batch:
                if not stored.done():
                    stored.set_result(None)
