"""Quotas of apps that are kept in memory for some seconds, for accepted calls."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from hearth.access.base import Definitions
from hearth.aio.clock import Clock
from hearth.models.errors import AppsNotFound, HearthError
from hearth.models.quotas import NO_QUOTAS, Quotas

_TTL_S: Final = 5.0
_MAX_ENTRIES: Final = 10_000


class CachedQuotas:
    """Keeps the quotas of apps for 5 s, and for longer while they cannot be read again.

    Args:
        definitions: Finds apps as they are now.
    """

    def __init__(self, definitions: Definitions, clock: Clock) -> None:
        self._definitions = definitions
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], tuple[float, Quotas]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<CachedQuotas apps={len(self._kept)}>"

    async def of(self, app_name: str, app_id: str) -> Quotas:
        """Return the quotas of an app; none for one that does not exist any more, or was never read."""
        key = (app_name, app_id)
        until, kept = self._kept.get(key, (0.0, NO_QUOTAS))
        if self._clock.monotonic() < until:
            return kept
        try:
            app = await self._definitions.get_app(app_name)
        except AppsNotFound:
            found = NO_QUOTAS
        except HearthError:
            found = kept
        else:
            found = app.quotas if app.id == app_id else NO_QUOTAS
        self._kept[key] = (self._clock.monotonic() + _TTL_S, found)
        if len(self._kept) > _MAX_ENTRIES:
            self._kept.popitem(last=False)
        return found

    def forget(self, app_name: str) -> None:
        """Read the quotas of an app that has changed again."""
        for key in [key for key in self._kept if key[0] == app_name]:
            self._kept[key] = (0.0, self._kept[key][1])
