"""Fns that are kept for some seconds, found by their id or by a trigger."""

from __future__ import annotations

from hearth.access.base import NO_SECRET_SOURCE, FnDefinitions, SecretSource
from hearth.access.cache import DefinitionCache, Kept, Key
from hearth.aio.clock import Clock
from hearth.models.app import App
from hearth.models.errors import AppsNotFound
from hearth.models.fn import Fn
from hearth.models.fn_errors import FnNotFound
from hearth.models.secret import NO_SECRETS, SecretValues
from hearth.models.trigger import HTTP

#: In place of the name of an app: the other name is the id of a fn.
_BY_ID = ""


class FnDefinition(Kept, eq=False):
    """An app with one of its fns.

    Attributes:
        secrets: The secrets that the fn gets: those of its app.
        trigger_id: The trigger by which it was found; empty if it was found by its id.
    """

    app: App
    fn: Fn
    secrets: SecretValues
    trigger_id: str = ""

    @property
    def labels(self) -> tuple[str, str]:
        """The names of the app and of the function."""
        return self.app.name, self.fn.name


class CachedFns(DefinitionCache[FnDefinition]):
    """Keeps fns with their apps.

    Args:
        inner: Asked when nothing fresh is kept.
        secrets: The same for secrets.
        stale_s: Seconds beyond the 5 for which what is kept serves if ``inner`` fails, or is slow.
    """

    def __init__(
        self, inner: FnDefinitions, clock: Clock, secrets: SecretSource = NO_SECRET_SOURCE, *, stale_s: float = 0.0
    ) -> None:
        super().__init__(clock, stale_s=stale_s)
        self._inner = inner
        self._secrets = secrets

    async def by_id(self, fn_id: str) -> FnDefinition:
        """Return a fn. Raises ``FnNotFound``, ``SecretUnavailable``."""
        return await self.find((_BY_ID, fn_id))

    async def by_source(self, app_name: str, source: str) -> FnDefinition:
        """Return the fn of a trigger. Raises ``AppsNotFound``, ``TriggerNotFound``, ``SecretUnavailable``."""
        return await self.find((app_name, source))

    def forget(self, app_name: str) -> None:
        """Drop what is kept or being loaded of an app, which has changed."""
        self.drop(lambda key, kept: app_name == (kept.app.name if kept is not None else key[0] or app_name))

    async def _load(self, key: Key) -> FnDefinition:
        app_name, name = key
        trigger_id = ""
        if app_name == _BY_ID:
            fn = await self._inner.get_fn(name)
            try:
                app = await self._inner.get_app_by_id(fn.app_id)
            except AppsNotFound:
                raise FnNotFound from None
        else:
            app = await self._inner.get_app(app_name)
            trigger = await self._inner.get_trigger_by_source(app.id, HTTP, name)
            fn = await self._inner.get_fn(trigger.fn_id)
            trigger_id = trigger.id
        secrets = NO_SECRETS
        if app.secrets:
            secrets = await self._secrets.values(app.name, app.id, app.secrets)
        return FnDefinition(self.fresh_until(), app, fn, secrets, trigger_id)
