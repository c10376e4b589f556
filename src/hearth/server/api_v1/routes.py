"""The routes of an app: /v1/apps/:app/routes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from hearth.aio.clock import Clock
from hearth.authorize.rules import Action, is_allowed
from hearth.models.app import App, validate_app_name
from hearth.models.config import validate_config
from hearth.models.errors import (
    AppsAlreadyExists,
    AppsNotFound,
    ImageNotPinned,
    InvalidCPUs,
    RoutesAlreadyExists,
    RoutesInvalidPath,
    RoutesMissingPath,
    RoutesNotFound,
    RoutesPathImmutable,
    SecretsUnknown,
)
from hearth.models.image import is_pinned
from hearth.models.patch import RoutePatch, new_route
from hearth.models.route import Route, RouteLimits, clean_path, validate_route
from hearth.server.api_v1 import decode
from hearth.server.api_v1.apps import check_secrets_exist
from hearth.server.api_v1.encode import key_cursor, route_json
from hearth.server.api_v1.request import ApiRequest
from hearth.server.api_v1.versions import Versions
from hearth.server.audit import concerns
from hearth.server.listeners import ListenedApps
from hearth.stores.datastore import Datastore
from hearth.stores.definitions.base import RouteFilter


class Routes:
    """The operations on routes.

    Args:
        apps: Creates the app of a route if it does not exist.
        limits: The most that a route may ask for.
        versions: Finds out what images mean, and notes each deploy.
    """

    def __init__(
        self, datastore: Datastore, apps: ListenedApps, clock: Clock, limits: RouteLimits, versions: Versions
    ) -> None:
        self._datastore = datastore
        self._apps = apps
        self._clock = clock
        self._limits = limits
        self._versions = versions

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """Return a page of an app's routes."""
        page = decode.per_page(request.query("per_page"))
        which = RouteFilter(cursor=decode.cursor(request.query("cursor")), per_page=page, image=request.query("image"))
        found = await self._datastore.get_routes(request.app, which)
        if not found:
            await self._datastore.get_app(request.app)
        return {
            "message": "Successfully listed routes",
            "next_cursor": key_cursor([route.path for route in found], page),
            "routes": [_shown(request, route) for route in found],
        }

    async def create(self, request: ApiRequest) -> dict[str, Any]:
        """Create a route, and its app if it does not exist."""
        patch = _patch(request, await request.body())
        if not patch.path:
            raise RoutesMissingPath
        if patch.path.startswith("/") and not set("?#") & set(patch.path):
            patch.path = clean_path(patch.path)
        concerns(request.http.scope, app=request.app, name=patch.path)
        patch.digest = await self._versions.digest(patch.image)
        return await self._noted(request, patch, await self._create(request.app, patch), _created)

    async def put(self, request: ApiRequest) -> dict[str, Any]:
        """Create a route, or change the existing one."""
        patch = await self._patch_for(request)
        while True:
            try:
                found = await self._update(request.app, request.route, patch)
                return await self._noted(request, patch, found, _updated)
            except RoutesNotFound:
                patch.path = request.route
            try:
                return await self._noted(request, patch, await self._create(request.app, patch), _created)
            except RoutesAlreadyExists:
                continue  # created by another request in between: change it

    async def patch(self, request: ApiRequest) -> dict[str, Any]:
        """Change a route."""
        patch = await self._patch_for(request)
        found = await self._update(request.app, request.route, patch)
        return await self._noted(request, patch, found, _updated)

    async def get(self, request: ApiRequest) -> dict[str, Any]:
        """Return a route."""
        route = await self._datastore.get_route(request.app, request.route)
        return {"message": "Successfully loaded route", "route": _shown(request, route)}

    async def remove(self, request: ApiRequest) -> dict[str, Any]:
        """Delete a route; its calls stay."""
        await self._datastore.remove_route(request.app, request.route)
        return {"message": "Route deleted"}

    async def _noted(
        self,
        request: ApiRequest,
        patch: RoutePatch,
        route: Route,
        answer: Callable[[ApiRequest, Route], dict[str, Any]],
    ) -> dict[str, Any]:
        """Add what was deployed to the route's history; return the answer."""
        if patch.image:
            await self._versions.note(request.principal, route.app_name, route.path, route)
        return answer(request, route)

    async def _patch_for(self, request: ApiRequest) -> RoutePatch:
        patch = _patch(request, await request.body())
        if patch.path and patch.path != request.route:
            raise RoutesPathImmutable
        patch.digest = await self._versions.digest(patch.image)
        return patch

    async def _update(self, app_name: str, path: str, patch: RoutePatch) -> Route:
        self._check_cpus(patch)
        await self._check_secrets(app_name, patch)
        return await self._datastore.update_route(app_name, path, patch, self._clock.now(), self._check)

    async def _create(self, app_name: str, patch: RoutePatch) -> Route:
        self._check_cpus(patch)
        now = self._clock.now()
        route = new_route(app_name, patch, now)
        validate_config(route.config)
        try:
            await self._datastore.get_app(app_name)
        except AppsNotFound:
            validate_app_name(app_name)  # an invalid app name is reported before errors of the route
            self._check(route)
            await self._check_secrets(app_name, patch)
            with contextlib.suppress(AppsAlreadyExists):
                await self._apps.create(App(name=app_name, created_at=now, updated_at=now))
        self._check(route)
        await self._check_secrets(app_name, patch)
        return await self._datastore.insert_route(route)

    def _check_cpus(self, patch: RoutePatch) -> None:
        """Refuse a limit that this node cannot enforce. A stored limit does not prevent other changes."""
        if patch.cpu_milli and self._limits.no_cpus:
            raise InvalidCPUs(f"Cpus is invalid. {self._limits.no_cpus}")

    async def _check_secrets(self, app_name: str, patch: RoutePatch) -> None:
        """Refuse names of secrets that the app does not have. A stored name does not prevent other changes."""
        names = patch.secrets or ()
        if patch.signature is not None:
            names = (*names, patch.signature.secret)
        if names:
            try:
                await check_secrets_exist(self._datastore, app_name, names)
            except AppsNotFound:
                raise SecretsUnknown(app_name, names[0]) from None

    def _check(self, route: Route) -> None:
        validate_route(route, self._limits)
        if clean_path(route.path) != route.path:  # such a route could never be invoked
            raise RoutesInvalidPath


def _patch(request: ApiRequest, body: bytes) -> RoutePatch:
    """Return the route of a request.

    A tag belongs to nobody: through it a principal of some apps could run the code of others.
    """
    patch = decode.route_patch(body)
    if patch.image and request.principal.apps and not is_pinned(patch.image):
        raise ImageNotPinned
    return patch


def _created(request: ApiRequest, route: Route) -> dict[str, Any]:
    return {"message": "Route successfully created", "route": _shown(request, route)}


def _updated(request: ApiRequest, route: Route) -> dict[str, Any]:
    return {"message": "Route successfully updated", "route": _shown(request, route)}


def _shown(request: ApiRequest, route: Route) -> dict[str, Any]:
    return route_json(route, shows_config=is_allowed(request.principal, Action.CONFIG_READ, route.app_name))
