"""Secrets that are kept in memory for some seconds, for accepted calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from hearth.access.base import SecretSource
from hearth.aio.clock import Clock
from hearth.models.errors import HearthError, SecretUnavailable
from hearth.models.secret import NO_SECRETS, SecretValues
from hearth.telemetry.logs import get_logger

_TTL_S: Final = 5.0
_MAX_ENTRIES: Final = 1000

_log = get_logger(__name__)

Key = tuple[str, str, tuple[str, ...]]


class CachedSecrets:
    """Keeps the secrets of functions for 5 s. A secret that does not exist is looked up again.

    Args:
        inner: Asked when nothing fresh is kept.
        stale_s: Seconds beyond the 5 for which what is kept serves if ``inner`` fails.
    """

    def __init__(self, inner: SecretSource, clock: Clock, *, stale_s: float = 0.0) -> None:
        self._inner = inner
        self._clock = clock
        self._stale_s = stale_s
        self._kept: OrderedDict[Key, tuple[float, SecretValues]] = OrderedDict()
        self._forgotten = 0

    async def values(self, app_name: str, app_id: str, names: Iterable[str]) -> SecretValues:
        """Return some secrets of an app.

        Raises:
            SecretUnavailable: One of them does not exist or cannot be decrypted.
        """
        key = (app_name, app_id, tuple(names))
        if not key[2]:
            return NO_SECRETS
        until, kept = self._kept.get(key, (0.0, NO_SECRETS))
        now, forgotten = self._clock.monotonic(), self._forgotten
        if now < until:
            return kept
        try:
            found = await self._inner.values(*key)
        except SecretUnavailable:
            self._kept.pop(key, None)
            raise
        except HearthError as exc:
            if now < until + self._stale_s and key in self._kept:
                _log.warning("secrets not loaded, old ones serve", app_name=app_name, error=str(exc))
                return kept
            raise
        if forgotten != self._forgotten:  # it may have been read before the change
            return found
        self._kept[key] = (self._clock.monotonic() + _TTL_S, found)
        if len(self._kept) > _MAX_ENTRIES:
            self._kept.popitem(last=False)
        return found

    def forget(self, app_name: str) -> None:
        """Drop what is kept of an app that has changed."""
        self._forgotten += 1
        for key in [key for key in self._kept if key[0] == app_name]:
            del self._kept[key]
