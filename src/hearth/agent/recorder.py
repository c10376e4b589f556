"""Keeps the records and logs of ended calls: many calls, one commit (nodes specification 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from hearth.access.base import DataAccess, EndedCall
from hearth.batch import GroupCommit
from hearth.telemetry.logs import get_logger

#: Calls that may wait for the database; beyond that, records are dropped and counted rather than memory filled.
_MAX_WAITING: Final = 10_000
_FAILED: Final = "error finalizing call on datastore/mq"

_log = get_logger(__name__)


class Recorder:
    """Group commit of ended calls.

    Args:
        access: Where they go.
        limit_s: How long a call waits for its record to be stored before it is answered all the same.
    """

    def __init__(self, access: DataAccess, *, limit_s: float = 10.0) -> None:
        self._access = access
        self._limit_s = limit_s
        self._commits = GroupCommit(self._store)
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Recorder waiting={self._commits.waiting} dropped={self.dropped}>"

    def add(self, ended: EndedCall) -> asyncio.Future[None] | None:
        """Have it stored, some time soon; ``None`` if too many wait already."""
        if self._commits.waiting >= _MAX_WAITING:
            self.dropped += 1
            _log.error(_FAILED, call_id=ended.call.id, error="too many calls wait")
            return None
        return self._commits.put(ended)

    async def record(self, ended: EndedCall) -> bool:
        """Have it stored, and wait until it is: stored first, then the response ends. Whether it was stored."""
        stored = self.add(ended)
        if stored is None:
            return False
        _, late = await asyncio.wait([stored], timeout=self._limit_s)
        if late:
            _log.error("call answered before its record was stored", call_id=ended.call.id, waited_s=self._limit_s)
        return not late and stored.exception() is None

    async def close(self) -> None:
        """Wait until all is stored."""
        await self._commits.close()

    async def _store(self, ended: list[EndedCall]) -> Sequence[None]:
        try:
            await self._access.finish_many(ended)
        except Exception as exc:
            self.dropped += len(ended)
            _log.error(_FAILED, calls=len(ended), error=str(exc), exc_info=exc)
            raise
        return [None] * len(ended)
