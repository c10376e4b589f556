"""The apps of the API: /v1/apps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hearth.aio.clock import Clock
from hearth.authorize.rules import Action, authorize, is_allowed
from hearth.models.app import App, validate_app_name
from hearth.models.call_auth import INHERITED
from hearth.models.config import validate_config
from hearth.models.errors import AppsNameImmutable, Forbidden, SecretsUnknown
from hearth.models.quotas import NO_QUOTAS
from hearth.server.api_v1 import decode
from hearth.server.api_v1.encode import app_json, key_cursor
from hearth.server.api_v1.request import ApiRequest
from hearth.server.audit import concerns
from hearth.server.listeners import ListenedApps
from hearth.server.removal import check_removal
from hearth.stores.definitions.base import AppFilter
from hearth.stores.secrets.base import SecretStore


class Apps:
    """The operations on apps.

    Args:
        store: The apps.
        secrets: The secrets that apps may name.
    """

    def __init__(self, store: ListenedApps, secrets: SecretStore, clock: Clock) -> None:
        self._store = store
        self._secrets = secrets
        self._clock = clock

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """Return a page of apps."""
        page = decode.per_page(request.query("per_page"))
        found = await self._store.list(
            AppFilter(
                cursor=decode.cursor(request.query("cursor")),
                per_page=page,
                name_in=sorted(request.principal.apps) or None,
            ),
        )
        return {
            "message": "Successfully listed applications",
            "next_cursor": key_cursor([app.name for app in found], page),
            "apps": [self._shown(request, app) for app in found],
        }

    async def create(self, request: ApiRequest) -> dict[str, Any]:
        """Create an app."""
        patch = decode.app_patch(await request.body())
        validate_app_name(patch.name)
        concerns(request.http.scope, app=patch.name)
        if not request.principal.reaches(patch.name):
            raise Forbidden(request.principal.role, Action.APPS_WRITE, request.principal.apps)
        validate_config(patch.config or {})
        if patch.secrets:
            raise SecretsUnknown(patch.name, patch.secrets[0])  # a new app has none
        if patch.quotas:
            authorize(request.principal, Action.QUOTAS_WRITE)
        now = self._clock.now()
        auth = "" if patch.auth == INHERITED else patch.auth
        app = await self._store.create(
            App(
                name=patch.name,
                config=patch.config or {},
                auth=auth,
                created_at=now,
                updated_at=now,
                quotas=NO_QUOTAS.changed(patch.quotas),
            )
        )
        return {"message": "App successfully created", "app": self._shown(request, app)}

    async def get(self, request: ApiRequest) -> dict[str, Any]:
        """Return an app."""
        app = await self._store.get(request.app)
        return {"message": "Successfully loaded app", "app": self._shown(request, app)}

    async def update(self, request: ApiRequest) -> dict[str, Any]:
        """Change an app's configuration, secrets or quotas."""
        patch = decode.app_patch(await request.body())
        if patch.name:  # even if it is the present name
            raise AppsNameImmutable
        if patch.secrets:
            await check_secrets_exist(self._secrets, request.app, patch.secrets)
        if patch.quotas:
            authorize(request.principal, Action.QUOTAS_WRITE)
        app = await self._store.update(request.app, patch, self._clock.now())
        return {"message": "App successfully updated", "app": self._shown(request, app)}

    async def remove(self, request: ApiRequest) -> dict[str, Any]:
        """Delete an app with its routes and calls."""
        if not is_allowed(request.principal, Action.QUOTAS_WRITE):  # others delete apps that cannot be read, too
            check_removal(request.principal, await self._store.get(request.app))
        await self._store.remove(request.app)
        return {"message": "App deleted"}

    def _shown(self, request: ApiRequest, app: App) -> dict[str, Any]:
        return app_json(app, shows_config=is_allowed(request.principal, Action.CONFIG_READ, app.name))


async def check_secrets_exist(secrets: SecretStore, app_name: str, names: Sequence[str]) -> None:
    """Check the names of secrets that an app or a route is to give to functions.

    Raises:
        AppsNotFound: There is no such app.
        SecretsUnknown: The app has no secret of one of these names.
    """
    known = {secret.name for secret in await secrets.list_secrets(app_name)}
    for name in names:
        if name not in known:
            raise SecretsUnknown(app_name, name)
