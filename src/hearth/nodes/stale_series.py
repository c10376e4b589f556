"""Remove the series of metrics of deleted apps, routes and fns, so that their number stays bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from hearth.access.base import Definitions, FnDefinitions
from hearth.aio.background import BackgroundService
from hearth.aio.clock import Clock, pause
from hearth.models.errors import AppsNotFound, HearthError, RoutesNotFound
from hearth.models.fn_errors import FnNotFound
from hearth.telemetry.logs import get_logger
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.series import Labels

_PERIOD_S: Final = 60.0
#: Pairs of app and route that are looked up per period, in turn.
_AT_ONCE: Final = 100

_log = get_logger(__name__)


class StaleSeries(BackgroundService):
    """Looks once a minute for series of deleted apps, routes and fns, while this async context manager is entered.

    It also finds what was deleted through another node. Prometheus has fetched the last values before.

    Args:
        definitions: Looked up to find what exists.
        fns: Likewise.
        metrics: The metrics whose series are removed.
        let_go: Drops what this node keeps of an app and a function; returns false while any of it still runs.
    """

    def __init__(
        self,
        definitions: Definitions,
        fns: FnDefinitions,
        clock: Clock,
        metrics: Metrics,
        let_go: Callable[[str, str], bool] = lambda app, path: True,
    ) -> None:
        super().__init__(lambda exc: _log.error("stale series are no longer removed", exc_info=exc))
        self._metrics = metrics
        self._definitions = definitions
        self._fns = fns
        self._clock = clock
        self._let_go = let_go
        self._turns: deque[Labels] = deque()

    async def look(self) -> None:
        """Look up the next pairs and remove the series of those that do not exist."""
        if not self._turns:
            self._turns.extend(sorted(self._metrics.labels()))
        for _ in range(min(_AT_ONCE, len(self._turns))):
            app, path = self._turns.popleft()
            if await self._is_gone(app, path) and self._let_go(app, path):
                self._metrics.forget(app, path)

    async def _is_gone(self, app: str, path: str) -> bool:
        try:
            found = await self._definitions.get_app(app)
            if path.startswith("/"):
                await self._definitions.get_route(app, path)
            elif path:
                await self._fns.get_fn_named(found.id, path)
        except (AppsNotFound, RoutesNotFound, FnNotFound):
            return True
        except HearthError:
            return False  # not known now
        return False

    async def _run(self) -> None:
        while True:
            await pause(self._clock, _PERIOD_S)
            await self.look()
