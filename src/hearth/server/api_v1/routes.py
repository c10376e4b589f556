"""The routes of an app: /v1/apps/:app/routes."""

from __future__ import annotations

import contextlib
from typing import Any

from hearth.clock import Clock
from hearth.datastore.base import Datastore, RouteFilter
from hearth.models.app import App, validate_app_name
from hearth.models.errors import (
    AppsAlreadyExists,
    AppsNotFound,
    RoutesAlreadyExists,
    RoutesInvalidPath,
    RoutesMissingPath,
    RoutesNotFound,
    RoutesPathImmutable,
)
from hearth.models.patch import RoutePatch, new_route
from hearth.models.route import Route, RouteLimits, clean_path, validate_route
from hearth.server.api_v1 import decode
from hearth.server.api_v1.encode import key_cursor, route_json
from hearth.server.api_v1.request import ApiRequest
from hearth.server.listeners import ListenedApps


class Routes:
    """The operations on routes.

    Args:
        apps: Makes the app of a route, if there is none.
        limits: The most that a route may ask for.
    """

    def __init__(self, datastore: Datastore, apps: ListenedApps, clock: Clock, limits: RouteLimits) -> None:
        self._datastore = datastore
        self._apps = apps
        self._clock = clock
        self._limits = limits

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """A page of an app's routes."""
        page = decode.per_page(request.query("per_page"))
        which = RouteFilter(cursor=decode.cursor(request.query("cursor")), per_page=page, image=request.query("image"))
        found = await self._datastore.get_routes(request.app, which)
        if not found:
            await self._datastore.get_app(request.app)
        return {
            "message": "Successfully listed routes",
            "next_cursor": key_cursor([route.path for route in found], page),
            "routes": [route_json(route) for route in found],
        }

    async def create(self, request: ApiRequest) -> dict[str, Any]:
        """A new route; its app, too, if there is none."""
        patch = decode.route_patch(await request.body())
        if not patch.path:
            raise RoutesMissingPath
        if patch.path.startswith("/") and not set("?#") & set(patch.path):
            patch.path = clean_path(patch.path)
        return _created(await self._create(request.app, patch))

    async def put(self, request: ApiRequest) -> dict[str, Any]:
        """A new route, or changes to the one that is there."""
        patch = self._patch_for(request.route, await request.body())
        while True:
            try:
                return _updated(await self._update(request.app, request.route, patch))
            except RoutesNotFound:
                patch.path = request.route
            try:
                return _created(await self._create(request.app, patch))
            except RoutesAlreadyExists:
                continue  # somebody else made it in between: then this is a change

    async def patch(self, request: ApiRequest) -> dict[str, Any]:
        """Changes to a route."""
        patch = self._patch_for(request.route, await request.body())
        return _updated(await self._update(request.app, request.route, patch))

    async def get(self, request: ApiRequest) -> dict[str, Any]:
        """One route."""
        route = await self._datastore.get_route(request.app, request.route)
        return {"message": "Successfully loaded route", "route": route_json(route)}

    async def remove(self, request: ApiRequest) -> dict[str, Any]:
        """A route; its calls stay."""
        await self._datastore.remove_route(request.app, request.route)
        return {"message": "Route deleted"}

    def _patch_for(self, path: str, body: bytes) -> RoutePatch:
        patch = decode.route_patch(body)
        if patch.path and patch.path != path:
            raise RoutesPathImmutable
        return patch

    async def _update(self, app_name: str, path: str, patch: RoutePatch) -> Route:
        return await self._datastore.update_route(app_name, path, patch, self._clock.now(), self._check)

    async def _create(self, app_name: str, patch: RoutePatch) -> Route:
        now = self._clock.now()
        route = new_route(app_name, patch, now)
        try:
            await self._datastore.get_app(app_name)
        except AppsNotFound:
            validate_app_name(app_name)  # a name that cannot be made comes before what is wrong with the route
            self._check(route)
            with contextlib.suppress(AppsAlreadyExists):
                await self._apps.create(App(name=app_name, created_at=now, updated_at=now))
        self._check(route)
        return await self._datastore.insert_route(route)

    def _check(self, route: Route) -> None:
        validate_route(route, self._limits)
        if clean_path(route.path) != route.path:  # it could never be invoked
            raise RoutesInvalidPath


def _created(route: Route) -> dict[str, Any]:
    return {"message": "Route successfully created", "route": route_json(route)}


def _updated(route: Route) -> dict[str, Any]:
    return {"message": "Route successfully updated", "route": route_json(route)}
