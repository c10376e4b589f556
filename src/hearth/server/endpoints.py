"""Endpoints that extensions add to API v1 (operations specification 8.5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from hearth.models.app import App
from hearth.models.errors import AppsMissingName, StartUpError
from hearth.models.route import Route, clean_path
from hearth.stores.datastore import Datastore

Result = Response | Mapping[str, Any]
EndpointHandler = Callable[[Request], Awaitable[Result]]
AppEndpointHandler = Callable[[Request, App], Awaitable[Result]]
RouteEndpointHandler = Callable[[Request, App, Route], Awaitable[Result]]

#: What API v1 itself has directly under /v1.
_OURS: Final = frozenset({"apps", "audit", "runner", "tokens", "openapi.json"})
#: And under an app.
_OURS_OF_APPS: Final = frozenset({("routes",), ("calls",), ("secrets",), ("versions",), ("schedules",)})


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """An endpoint for a request, with the names that stood in its path.

    Attributes:
        public: Whether it is open to everybody, in every mode.
    """

    handle: Callable[[Request, str, str], Awaitable[Result]]
    app: str = ""
    route: str = ""
    public: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Endpoint:
    method: str
    fixed: tuple[str, ...]
    suffix: tuple[str, ...]
    handle: Callable[[Request, str, str], Awaitable[Result]]
    public: bool

    def match(self, method: str, parts: list[str]) -> Found | None:
        """``parts``: what stands between the slashes behind /v1."""
        cut = len(parts) - len(self.suffix)
        if method != self.method or cut < 0 or tuple(parts[cut:]) != self.suffix:
            return None
        match self.fixed, parts[:cut]:
            case (), []:
                return Found(self.handle, public=self.public)
            case ("apps",), ["apps", app]:
                return Found(self.handle, _named(app), public=self.public)
            case ("apps", "routes"), ["apps", app, "routes", _, *_]:
                return Found(self.handle, _named(app), clean_path("/".join(parts[3:cut])), self.public)
        return None


class Endpoints:
    """The added endpoints. Where several fit a path the one with the longest literal end is meant.

    Args:
        datastore: Where the app and the route of an endpoint are.
    """

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._endpoints: list[_Endpoint] = []

    def __len__(self) -> int:
        return len(self._endpoints)

    def add(self, method: str, path: str, handler: EndpointHandler, *, public: bool = False) -> None:
        """Serve ``/v1<path>``.

        Raises:
            StartUpError: The path is taken.
        """
        suffix = _suffix(path)
        if suffix[0] in _OURS:
            raise StartUpError(f"endpoint {method} {path}: API v1 has this path itself; choose another")
        self._add(method, (), suffix, lambda request, app, route: handler(request), public)

    def add_of_app(self, method: str, path: str, handler: AppEndpointHandler, *, public: bool = False) -> None:
        """Serve ``/v1/apps/:app<path>``.

        Raises:
            StartUpError: The path is taken.
        """
        suffix = _suffix(path)
        if suffix in _OURS_OF_APPS:
            raise StartUpError(f"endpoint {method} {path} of apps: API v1 has this path itself; choose another")

        async def handle(request: Request, app: str, route: str) -> Result:
            return await handler(request, await self._datastore.get_app(app))

        self._add(method, ("apps",), suffix, handle, public)

    def add_of_route(self, method: str, path: str, handler: RouteEndpointHandler, *, public: bool = False) -> None:
        """Serve ``/v1/apps/:app/routes/:route<path>``; the route may have several segments.

        Raises:
            StartUpError: The path is taken.
        """

        async def handle(request: Request, app: str, route: str) -> Result:
            found = await self._datastore.get_app(app)
            return await handler(request, found, await self._datastore.get_route(app, route))

        self._add(method, ("apps", "routes"), _suffix(path), handle, public)

    def find(self, method: str, path: str) -> Found | None:
        """Return the endpoint that a request means."""
        if not self._endpoints or not path.startswith("/v1/"):
            return None
        parts = path.split("/")[2:]
        return next((found for one in self._endpoints if (found := one.match(method, parts)) is not None), None)

    def _add(
        self,
        method: str,
        fixed: tuple[str, ...],
        suffix: tuple[str, ...],
        handle: Callable[[Request, str, str], Awaitable[Result]],
        public: bool,
    ) -> None:
        added = _Endpoint(method.upper(), fixed, suffix, handle, public)
        for one in self._endpoints:
            if (one.method, one.fixed, one.suffix) == (added.method, added.fixed, added.suffix):
                raise StartUpError(f"endpoint {added.method} /{'/'.join(suffix)} is added twice")
        self._endpoints.append(added)
        self._endpoints.sort(key=lambda one: len(one.suffix), reverse=True)


def _suffix(path: str) -> tuple[str, ...]:
    first, *parts = path.split("/")
    if first or not parts or "" in parts:
        raise StartUpError(f"endpoint {path!r}: a path begins with a slash, and has no empty parts")
    return tuple(parts)


def _named(app: str) -> str:
    if not app:
        raise AppsMissingName
    return app
