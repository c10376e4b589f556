"""The functions of API v1 on one node: the names of routes on one side, the agent's functions on the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Final

import msgspec

from hearth.access.base import NO_SECRET_SOURCE, Definitions, SecretSource
from hearth.access.cache import secret_names
from hearth.agent.pool import Pool
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import AppsNotFound, HearthError, RoutesNotFound, SecretUnavailable
from hearth.models.function import ASYNC, SYNC, FunctionSpec
from hearth.models.route import LIMITS, MAX_ASYNC_TIMEOUT_S, Route, RouteLimits
from hearth.models.secret import NO_SECRETS, SecretValues
from hearth.server.api_v1.compile import compile_call, compile_route
from hearth.telemetry.logs import get_logger

#: Routes whose function is kept: compiling takes 15 us, finding 0.1 us. If a route was pushed out and then changes, the
#: idle containers of its old version stay until their idle timeout.
MAX_ROUTES: Final = 10_000
MAX_ACCEPTED: Final = 1000

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Version:
    app: App
    route: Route
    secrets: SecretValues
    spec: FunctionSpec


class Functions:
    """Compiles each version of a route once, and tells the pool which versions are outdated.

    Args:
        definitions: Finds apps and routes as they are now.
        limits: The most that a route may ask for.
        secrets: Finds secrets as they are now, or as they were seconds ago.
    """

    def __init__(
        self,
        pool: Pool,
        definitions: Definitions,
        limits: RouteLimits = LIMITS,
        secrets: SecretSource = NO_SECRET_SOURCE,
    ) -> None:
        self._pool = pool
        self._definitions = definitions
        self._secrets = secrets
        self._limits = limits
        self._routes: dict[tuple[str, str], _Version] = {}
        self._accepted: dict[Hashable, FunctionSpec] = {}

    def __repr__(self) -> str:
        return f"<Functions routes={len(self._routes)}>"

    def of_route(self, app: App, route: Route, secrets: SecretValues = NO_SECRETS) -> FunctionSpec:
        """Return the function of a route. From now on this is the route's present version.

        Raises:
            ApiError: The stored route is not valid.
        """
        key = (app.name, route.path)
        known = self._routes.get(key)
        if known is not None and known.app is app and known.route is route and known.secrets is secrets:
            return known.spec
        spec = compile_route(app, route, self._limits, secrets)
        if known is not None and known.spec.hot_key != spec.hot_key:
            self._pool.retire(known.spec)
        self._pool.present(spec)
        self._keep(key, _Version(app, route, secrets, spec))
        return spec

    def detached(self, app: App, route: Route, secrets: SecretValues) -> FunctionSpec | None:
        """Return the function of a sync route for calls that nobody waits for.

        ``None`` if the route is async, or lets calls run for longer than an async one may.
        """
        if route.type != SYNC or route.timeout > MAX_ASYNC_TIMEOUT_S:
            return None
        bounds = route.instances.changed({"min_instances": 0})  # the containers for sync calls are those kept ready
        queued = msgspec.structs.replace(route, type=ASYNC, instances=bounds)
        return compile_route(app, queued, self._limits, secrets)

    async def of_call(self, call: Call) -> FunctionSpec:
        """Return the function of an accepted call, with its secrets as they are now.

        Raises:
            ApiError: The stored fields are not valid, or a secret is not there.
        """
        secrets = NO_SECRETS
        if call.secrets:
            secrets = await self._secrets.values(call.app_name, call.app_id, call.secrets)
        shape = _shape(call, secrets)
        spec = self._accepted.get(shape)
        if spec is None:
            spec = compile_call(call, self._limits, secrets)
            if len(self._accepted) >= MAX_ACCEPTED:
                self._accepted.clear()
            self._accepted[shape] = spec
        return spec

    async def refresh(self, app_name: str, path: str | None = None) -> bool:
        """Look up the definition of a route, or of all routes of an app, again.

        Where a definition is gone, or shapes its containers in another way, or its image was rebuilt under the same
        name, idle containers end now, busy ones after their call. Returns false if nothing can be said about one now.
        """
        keys = [key for key in self._routes if key[0] == app_name] if path is None else [(app_name, path)]
        return all([await self._refresh(*key) for key in keys if key in self._routes])

    async def _refresh(self, app_name: str, path: str) -> bool:
        try:
            app = await self._definitions.get_app(app_name)
            route = await self._definitions.get_route(app_name, path)
            secrets = await self._secrets.values(app_name, app.id, secret_names(app, route))
            spec = self.of_route(app, route, secrets)
            await self._pool.retire_stale(spec)
        except (AppsNotFound, RoutesNotFound, SecretUnavailable):
            if (gone := self._routes.pop((app_name, path), None)) is not None:
                self._pool.retire(gone.spec)
        except HearthError as exc:
            _log.warning("definition not looked at again", app_name=app_name, path=path, error=str(exc))
            return False
        return True

    def forget(self, app_name: str, path: str) -> bool:
        """Forget a route that was deleted; false while something of it is still here, or has just been ended."""
        names = (app_name, path)
        if not self._pool.forget(names):
            return False
        self._routes.pop(names, None)
        self._accepted.clear()
        return True

    def _keep(self, key: tuple[str, str], version: _Version) -> None:
        self._routes.pop(key, None)
        self._routes[key] = version
        if len(self._routes) > MAX_ROUTES:
            del self._routes[next(iter(self._routes))]


def _shape(call: Call, secrets: SecretValues) -> Hashable:
    """Return what is equal for calls of the same function."""
    return (
        *(call.app_id, call.app_name, call.path, call.image, call.type, call.format),
        *(call.timeout, call.idle_timeout, call.memory, call.cpu_milli, call.syslog_url, call.max_instances),
        *(call.secrets_as, frozenset(secrets.versions.items())),
        frozenset(call.config.items()),
    )
