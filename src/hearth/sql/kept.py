"""Connections that are kept for who sends often, and for whom the pool's care of each use costs more than the use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hearth.sql.failures import failures

#: Connections that are kept while nobody uses them.
_KEPT: Final = 2
#: Seconds without use after which a connection is asked whether its server is still there.
_REST_S: Final = 0.1


class _Kept(NamedTuple):
    pooled: AsyncConnection
    driver: Any
    used_at: float


class KeptConnections:
    """Connections of an engine's pool, as their driver has them.

    Args:
        engine: What has the pool.
        ping: Asks the server of a connection; raises what the driver raises if it is gone.
    """

    def __init__(self, engine: AsyncEngine, ping: Callable[[Any], Awaitable[None]]) -> None:
        self._engine = engine
        self._ping = ping
        self._resting: list[_Kept] = []

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Any]:
        """The driver's connection, outside of a transaction, for this use alone.

        It is closed if the use does not come to its end: the server then undoes what was begun.
        """
        kept = await self._take()
        try:
            yield kept.driver
        except BaseException:
            _discard(kept)
            raise
        if len(self._resting) < _KEPT:
            self._resting.append(kept._replace(used_at=asyncio.get_running_loop().time()))
        else:
            await kept.pooled.close()

    async def close(self) -> None:
        """Give those that rest back to the pool."""
        while self._resting:
            await self._resting.pop().pooled.close()

    async def _take(self) -> _Kept:
        now = asyncio.get_running_loop().time()
        while self._resting:
            kept = self._resting.pop()
            if now - kept.used_at < _REST_S or await self._lives(kept):
                return kept
        pooled = await self._engine.connect()  # the pool looks whether it lives
        return _Kept(pooled, (await pooled.get_raw_connection()).driver_connection, now)

    async def _lives(self, kept: _Kept) -> bool:
        try:
            await self._ping(kept.driver)
        except BaseException as exc:
            _discard(kept)
            if not isinstance(exc, failures()):
                raise
            return False
        return True


def _discard(kept: _Kept) -> None:
    """Without a word to the server, which may not answer."""
    connection = kept.pooled.sync_connection
    assert connection is not None
    connection.invalidate()
    connection.close()
