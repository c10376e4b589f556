"""Find the functions that keep containers ready (``min_instances``), and what has changed about them."""

from __future__ import annotations

import asyncio
from typing import Final

from hearth.access.base import ReadySource
from hearth.access.cache import CachedDefinitions
from hearth.access.fn_cache import CachedFns
from hearth.aio.background import BackgroundService
from hearth.aio.clock import Clock
from hearth.models.errors import HearthError
from hearth.server.api_v1.functions import Functions
from hearth.server.api_v2.functions import FnFunctions
from hearth.telemetry.logs import get_logger

#: Seconds between two looks: a change that another node has made is noticed as late as by the calls of a function. A
#: look costs one query for the names, and what one call of each of these functions would look up.
_PERIOD_S: Final = 5.0

#: App and path of a route, or the id of a fn.
Name = tuple[str, str] | str

_log = get_logger(__name__)


class KeptReadyFunctions(BackgroundService):
    """Looks for the functions that keep containers ready, while this async context manager is entered.

    Args:
        source: Names them.
        definitions: Finds the routes among them.
        fns: Finds the fns.
        functions: Hears of each route.
        fn_functions: Hears of each fn.
    """

    def __init__(
        self,
        source: ReadySource,
        definitions: CachedDefinitions,
        fns: CachedFns,
        functions: Functions,
        fn_functions: FnFunctions,
        clock: Clock,
    ) -> None:
        super().__init__(lambda exc: _log.error("no container is kept ready any more", exc_info=exc))
        self._source = source
        self._definitions = definitions
        self._fns = fns
        self._functions = functions
        self._fn_functions = fn_functions
        self._clock = clock
        self._known: set[Name] = set()
        self._refused: set[Name] = set()
        self._failing = False
        self._woken = asyncio.Event()

    def look_soon(self) -> None:
        """Look now: a function has changed."""
        self._woken.set()

    async def look(self) -> None:
        """Let the pool hear of each function as it is now; of those that are not named any more, too."""
        try:
            found = await self._source.kept_ready()
        except HearthError as exc:
            if not self._failing:
                _log.warning("functions that keep containers ready are not known, the last ones count", error=str(exc))
            self._failing = True
            return
        self._failing = False
        named: set[Name] = {*found.routes, *found.fns}
        unsettled = {known for known in self._known - named if not await self._look_again(known)}
        for one in named:
            await self._present(one)
        self._known = named | unsettled

    async def _present(self, one: Name) -> None:
        try:
            if isinstance(one, str):
                self._fn_functions.of_fn(await self._fns.by_id(one))
            else:
                definition = await self._definitions.get(*one)
                self._functions.of_route(definition.app, definition.route, definition.secrets)
        except HearthError as exc:
            if one not in self._refused:
                _log.warning("no container is kept ready of a function", function=one, error=str(exc))
            self._refused.add(one)
            await self._look_again(one)
        else:
            self._refused.discard(one)

    async def _look_again(self, one: Name) -> bool:
        """Let a function go if it is gone, or keep as many containers as it wants now; false if that is not known."""
        if isinstance(one, str):
            return await self._fn_functions.refresh_fn(one)
        return await self._functions.refresh(*one)

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            timer = self._clock.call_at(self._clock.monotonic() + _PERIOD_S, self._woken.set)
            try:
                await self.look()
                await self._woken.wait()
            finally:
                timer.cancel()
