"""Definitions kept for some seconds, each loaded by one caller at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from hearth.access.base import DataAccess
from hearth.clock import Clock
from hearth.models.app import App
from hearth.models.errors import AppsNotFound, RoutesNotFound
from hearth.models.route import Route
from hearth.telemetry.logs import get_logger

_TTL_S: Final = 5.0
_MAX_ENTRIES: Final = 10_000

#: How long a call waits for a new definition while there is an old one.
_PATIENCE_S: Final = 1.0
_GONE: Final = (AppsNotFound, RoutesNotFound)

Pair = tuple[App, Route]

_log = get_logger(__name__)


class Definitions:
    """Keeps an app with one of its routes for 5 s. What does not exist is not kept.

    Args:
        inner: Asked when nothing fresh is kept.
        stale_s: Seconds beyond the 5 for which what is kept serves if ``inner`` fails, or is slow.
    """

    def __init__(
        self, inner: DataAccess, clock: Clock, *, max_entries: int = _MAX_ENTRIES, stale_s: float = 0.0
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._max_entries = max_entries
        self._stale_s = stale_s
        self._failing = False
        self._pairs: OrderedDict[tuple[str, str], tuple[float, Pair]] = OrderedDict()
        self._loads: dict[tuple[str, str], asyncio.Task[Pair]] = {}
        self._loading: set[asyncio.Task[Pair]] = set()

    def get_nowait(self, app_name: str, path: str) -> Pair | None:
        """What is kept and fresh, without waiting."""
        kept = self._pairs.get((app_name, path))
        if kept is None or kept[0] <= self._clock.monotonic():
            return None
        return kept[1]

    async def get(self, app_name: str, path: str) -> Pair:
        """An app and its route; many who ask at once share one load.

        Raises:
            AppsNotFound: There is no such app.
            RoutesNotFound: The app has no such route.
        """
        if (pair := self.get_nowait(app_name, path)) is not None:
            return pair
        key = (app_name, path)
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = asyncio.get_running_loop().create_task(self._load(key))
            self._loading.add(load)
            load.add_done_callback(lambda done: self._loaded(key, done))
        if (stale := self._stale(key)) is not None:
            return await self._load_or(stale, load)
        return await asyncio.shield(load)  # one who gives up does not take the load from the others

    def _stale(self, key: tuple[str, str]) -> Pair | None:
        kept = self._pairs.get(key)
        if kept is None or kept[0] + self._stale_s <= self._clock.monotonic():
            return None
        return kept[1]

    async def _load_or(self, stale: Pair, load: asyncio.Task[Pair]) -> Pair:
        """What is loaded, if that comes soon and does not fail; nobody waits for what just failed, or was slow."""
        if not self._failing:
            await asyncio.wait([load], timeout=_PATIENCE_S)
        if not load.done() or load.cancelled():
            self._failing = True
            return stale
        if (error := load.exception()) is None:
            return load.result()
        if isinstance(error, _GONE):
            raise error
        return stale

    def forget(self, app_name: str, path: str | None = None) -> None:
        """A route, or a whole app, has changed: what is kept, or is being loaded, of it is not to be used again."""
        for kept in (self._pairs, self._loads):
            keys = [(app_name, path)] if path is not None else [key for key in kept if key[0] == app_name]
            for key in keys:
                kept.pop(key, None)

    async def close(self) -> None:
        """End the loads that still run."""
        for load in self._loading:
            load.cancel()
        if self._loading:
            await asyncio.wait(self._loading)

    async def _load(self, key: tuple[str, str]) -> Pair:
        app = await self._inner.get_app(key[0])
        return app, await self._inner.get_route(*key)

    def _loaded(self, key: tuple[str, str], load: asyncio.Task[Pair]) -> None:
        self._loading.discard(load)
        is_current = self._loads.get(key) is load
        if is_current:
            del self._loads[key]
        if load.cancelled() or not is_current:
            return
        error = load.exception()
        self._failing = error is not None and not isinstance(error, _GONE)
        if error is not None:
            if isinstance(error, _GONE):
                self._pairs.pop(key, None)
            elif key in self._pairs:
                _log.warning("definition not loaded, an old one serves", app_name=key[0], path=key[1], error=str(error))
            return
        self._pairs[key] = (self._clock.monotonic() + _TTL_S, load.result())
        self._pairs.move_to_end(key)
        if len(self._pairs) > self._max_entries:
            self._pairs.popitem(last=False)
