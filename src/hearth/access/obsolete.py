"""Series of metrics whose app or route was deleted: dropped, so that their number does not grow for ever."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol

from hearth.clock import Clock, pause
from hearth.models.app import App
from hearth.models.errors import AppsNotFound, HearthError, RoutesNotFound
from hearth.models.route import Route
from hearth.telemetry import metrics, tracing

_PERIOD_S: Final = 60.0
#: Pairs of app and route that are looked up in a period: they take turns.
_AT_ONCE: Final = 100


class Source(Protocol):
    """Where definitions are looked up."""

    async def get_app(self, name: str) -> App:
        """An app that exists."""

    async def get_route(self, app_name: str, path: str) -> Route:
        """A route that exists."""


class ObsoleteSeries:
    """Looks once a minute for series of what is no more. An async context manager: it looks while it is entered.

    What was deleted through another node is found, too. Prometheus has fetched the last values by then.

    Args:
        source: Says what exists.
        let_go: Drops what this node keeps of an app and a path; false while something of it still runs.
    """

    def __init__(
        self, source: Source, clock: Clock, let_go: Callable[[str, str], bool] = lambda app, path: True
    ) -> None:
        self._source = source
        self._clock = clock
        self._let_go = let_go
        self._turns: deque[metrics.Labels] = deque()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ObsoleteSeries:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def look(self) -> None:
        """Look at those whose turn it is."""
        if not self._turns:
            self._turns.extend(sorted(metrics.labels()))
        for _ in range(min(_AT_ONCE, len(self._turns))):
            app, path = self._turns.popleft()
            if await self._is_gone(app, path) and self._let_go(app, path):
                tracing.forget(app, path)
                metrics.forget(app, path)

    async def _is_gone(self, app: str, path: str) -> bool:
        try:
            await self._source.get_app(app)
            if path:
                await self._source.get_route(app, path)
        except (AppsNotFound, RoutesNotFound):
            return True
        except HearthError:
            return False  # nobody knows now
        return False

    async def _run(self) -> None:
        while True:
            await pause(self._clock, _PERIOD_S)
            await self.look()
