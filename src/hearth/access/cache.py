"""Definitions that are kept for some seconds; concurrent callers share one load."""

from __future__ import annotations

import abc
import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from hearth.access.base import NO_SECRET_SOURCE, Definitions, SecretSource
from hearth.aio.background import Background
from hearth.aio.clock import Clock
from hearth.models.app import App
from hearth.models.call_auth import SIGNED
from hearth.models.errors import AppsNotFound, RoutesNotFound, SecretUnavailable
from hearth.models.fn_errors import FnNotFound, TriggerNotFound
from hearth.models.route import Route
from hearth.models.secret import NO_SECRETS, SecretValues
from hearth.telemetry.logs import get_logger

#: Names what is kept.
Key = tuple[str, str]
D = TypeVar("D", bound="Kept")

_TTL_S: Final = 5.0
_MAX_ENTRIES: Final = 10_000

#: Seconds that a call waits for a new definition while there is an old one.
_PATIENCE_S: Final = 1.0
_GONE: Final = (AppsNotFound, RoutesNotFound, FnNotFound, TriggerNotFound, SecretUnavailable)
#: The time until which something is fresh that no longer is.
_NEVER: Final = float("-inf")

_log = get_logger(__name__)


class Kept(msgspec.Struct, eq=False):
    """A definition that is kept.

    Attributes:
        until: The loop time until which it is fresh. What has changed before is not fresh any more.
    """

    until: float


class DefinitionCache(abc.ABC, Generic[D]):
    """Keeps definitions for 5 s, by two names each. What does not exist is not kept.

    Args:
        stale_s: Seconds beyond the 5 for which what is kept serves if a load fails, or is slow.
    """

    def __init__(self, clock: Clock, *, max_entries: int = _MAX_ENTRIES, stale_s: float = 0.0) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._stale_s = stale_s
        self._failing = False
        self._kept: OrderedDict[Key, D] = OrderedDict()
        self._loads: dict[Key, asyncio.Task[D]] = {}
        self._background = Background()

    @abc.abstractmethod
    async def _load(self, key: Key) -> D:
        """Load a definition."""

    def find_nowait(self, key: Key) -> D | None:
        """Return what is kept, if it is fresh, without waiting."""
        kept = self._kept.get(key)
        return kept if kept is not None and kept.until > self._clock.monotonic() else None

    async def find(self, key: Key) -> D:
        """Return a definition; concurrent callers share one load, whose errors all get."""
        if (fresh := self.find_nowait(key)) is not None:
            return fresh
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = self._background.start(self._load(key))
            load.add_done_callback(lambda done: self._loaded(key, done))
        kept = self._kept.get(key)
        if kept is not None and kept.until + self._stale_s > self._clock.monotonic():
            return await self._load_or(kept, load)
        return await asyncio.shield(load)  # a cancelled caller does not cancel the load of the others

    def drop(self, has_changed: Callable[[Key, D | None], bool]) -> None:
        """Drop what is kept or being loaded, and has changed; of what is being loaded only the key is known."""
        for key in [key for key, kept in self._kept.items() if has_changed(key, kept)]:
            self._kept.pop(key).until = _NEVER
        for key in [key for key in self._loads if has_changed(key, None)]:
            del self._loads[key]

    async def close(self) -> None:
        """Cancel the loads that still run."""
        await self._background.cancel()

    def fresh_until(self) -> float:
        """Return the loop time until which something is fresh that is loaded now."""
        return self._clock.monotonic() + _TTL_S

    async def _load_or(self, stale: D, load: asyncio.Task[D]) -> D:
        """Return what is loaded, or what is stale if the load fails or is slow; do not wait where it just did."""
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

    def _loaded(self, key: Key, load: asyncio.Task[D]) -> None:
        is_current = self._loads.get(key) is load
        if is_current:
            del self._loads[key]
        if load.cancelled():
            return
        error = load.exception()
        if not is_current:
            if error is None:
                load.result().until = _NEVER
            return
        self._failing = error is not None and not isinstance(error, _GONE)
        if error is not None:
            if isinstance(error, _GONE):
                self._kept.pop(key, None)
            elif key in self._kept:
                _log.warning("definition not loaded, an old one serves", app_name=key[0], path=key[1], error=str(error))
            return
        self._kept[key] = load.result()
        self._kept.move_to_end(key)
        if len(self._kept) > self._max_entries:
            _, oldest = self._kept.popitem(last=False)
            oldest.until = _NEVER


class Definition(Kept, eq=False):
    """An app with one of its routes.

    Attributes:
        secrets: The secrets that the route's function gets.
        key: The key of the signatures that the route asks for, which its function does not get; empty if there is none.
    """

    app: App
    route: Route
    secrets: SecretValues
    key: str

    @property
    def labels(self) -> tuple[str, str]:
        """The names of the app and of the function."""
        return self.app.name, self.route.path


class CachedDefinitions(DefinitionCache[Definition]):
    """Keeps apps with one of their routes each.

    Args:
        inner: Asked when nothing fresh is kept.
        secrets: The same for secrets.
        stale_s: Seconds beyond the 5 for which what is kept serves if ``inner`` fails, or is slow.
    """

    def __init__(
        self,
        inner: Definitions,
        clock: Clock,
        secrets: SecretSource = NO_SECRET_SOURCE,
        *,
        max_entries: int = _MAX_ENTRIES,
        stale_s: float = 0.0,
    ) -> None:
        super().__init__(clock, max_entries=max_entries, stale_s=stale_s)
        self._inner = inner
        self._secrets = secrets

    def get_nowait(self, app_name: str, path: str) -> Definition | None:
        """Return what is kept, if it is fresh, without waiting."""
        return self.find_nowait((app_name, path))

    async def get(self, app_name: str, path: str) -> Definition:
        """Return an app and its route; concurrent callers share one load.

        Raises:
            AppsNotFound: There is no such app.
            RoutesNotFound: The app has no such route.
            SecretUnavailable: One of the function's secrets does not exist or cannot be decrypted.
        """
        return await self.find((app_name, path))

    def forget(self, app_name: str, path: str | None = None) -> None:
        """Drop what is kept or being loaded of a route, or of a whole app, which has changed."""
        self.drop(lambda key, kept: key[0] == app_name and path in (None, key[1]))

    async def _load(self, key: Key) -> Definition:
        app = await self._inner.get_app(key[0])
        route = await self._inner.get_route(*key)
        secrets = NO_SECRETS
        if names := secret_names(app, route):
            secrets = await self._secrets.values(app.name, app.id, names)
        signing_key = await self._signing_key(app, route)
        return Definition(self.fresh_until(), app, route, secrets, signing_key)

    async def _signing_key(self, app: App, route: Route) -> str:
        """Return the key of a route's signatures. Without it calls are refused, and the operator learns why."""
        if route.auth != SIGNED or route.signature is None:
            return ""
        name = route.signature.secret
        try:
            return (await self._secrets.values(app.name, app.id, (name,))).values[name]
        except SecretUnavailable as exc:
            _log.error("signatures cannot be checked", app_name=app.name, path=route.path, error=str(exc))
            return ""


def secret_names(app: App, route: Route) -> tuple[str, ...]:
    """Return the names of the secrets that a route's function gets: its own, and those of its app."""
    return tuple(sorted({*app.secrets, *route.secrets}))
