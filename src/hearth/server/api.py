"""Everything but invocations: the small endpoints and API v1, as one ASGI application.

Routing is a table of our own: the specification's rules for slashes, unknown paths and wrong methods are exact, and
are not those of a framework.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from hearth import FN_VERSION
from hearth.clock import Clock, pause
from hearth.datastore.base import Datastore
from hearth.models.errors import ApiError, AppsMissingName, PathNotFound
from hearth.models.route import LIMITS, RouteLimits, clean_path
from hearth.server import errors
from hearth.server.about import About
from hearth.server.api_v1.apps import Apps
from hearth.server.api_v1.calls import Calls, GetLog
from hearth.server.api_v1.request import ApiRequest
from hearth.server.api_v1.routes import Routes
from hearth.server.description import DESCRIPTION, PAGE
from hearth.server.endpoints import Found
from hearth.server.extensions import Server
from hearth.server.health import Readiness
from hearth.server.listeners import ListenedApps
from hearth.server.runner_api import RunnerApi
from hearth.server.traced import label
from hearth.telemetry import metrics
from hearth.telemetry.logs import get_logger, is_debug

_log = get_logger(__name__)

#: Told that an app, or one of its routes, was changed or removed.
Changed = Callable[[str, str | None], Awaitable[None]]
Handler = Callable[[ApiRequest], Awaitable["dict[str, Any] | Response"]]
_ALIVE: Final = {"status": "ok"}
_HOME: Final = {"goto": "https://github.com/fnproject/fn", "hello": "world!"}


class Api:
    """The application.

    Args:
        datastore: Where definitions and records are; without it nothing of /v1 is served.
        stats: The node's counts, as /stats shows them.
        changed: Awaited after each change of a definition, before its answer.
        get_log: Finds the log of an app's call; without it, the datastore does.
        about: What ``/version`` tells in its headers.
        readiness: What /readyz tells; without it, that the node is ready.
        server: What extensions have added.
        runners: Serves /v1/runner.
        limits: The most that a route may ask for.
        refused: Paths that nodes of this type do not serve, by their beginning, with the error that says so.
    """

    def __init__(
        self,
        datastore: Datastore | None,
        clock: Clock,
        stats: Callable[[], Mapping[str, Any]],
        changed: Changed | None = None,
        get_log: GetLog | None = None,
        readiness: Readiness | None = None,
        refused: Mapping[str, type[ApiError]] | None = None,
        server: Server | None = None,
        runners: RunnerApi | None = None,
        about: About | None = None,
        limits: RouteLimits = LIMITS,
    ) -> None:
        self._changed = changed
        self._about = about or About()
        self._readiness = readiness
        self._refused = refused or {}
        self._endpoints = server.endpoints if server is not None else None
        self._pages: dict[str, Callable[[], Response]] = {
            "/": lambda: _json(_HOME),
            "/version": lambda: _json({"version": FN_VERSION}),
            "/stats": lambda: _json(stats()),
            "/healthz": lambda: _json(_ALIVE),
            "/metrics": lambda: _metrics(clock),
            "/v1/openapi.json": lambda: _json(DESCRIPTION),
            "/docs": lambda: Response(PAGE, media_type="text/html"),
        }
        self._of_apps: dict[str, Handler] = {}
        self._of_app: dict[str, Handler] = {}
        self._of_routes: dict[str, Handler] = {}
        self._of_route: dict[str, Handler] = {}
        self._of_calls: dict[str, Handler] = {}
        self._of_call: dict[str, Handler] = {}
        self._of_log: dict[str, Handler] = {}
        if datastore is not None:
            store = ListenedApps(datastore, server.app_listeners if server is not None else ())
            self._serve_v1(
                Apps(store, clock),
                Routes(datastore, store, clock, limits),
                Calls(datastore, get_log or datastore.get_log),
            )
        self._runners = runners
        self._of_runner = {} if runners is None else _of_runners(runners)

    def _serve_v1(self, apps: Apps, routes: Routes, calls: Calls) -> None:
        self._of_apps = {"GET": apps.list, "POST": apps.create}
        self._of_app = {"GET": apps.get, "PATCH": apps.update, "DELETE": apps.remove}
        self._of_routes = {"GET": routes.list, "POST": routes.create}
        self._of_route = {"GET": routes.get, "PUT": routes.put, "PATCH": routes.patch, "DELETE": routes.remove}
        self._of_calls = {"GET": calls.list}
        self._of_call = {"GET": calls.get}
        self._of_log = {"GET": calls.log}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except Exception as exc:  # errors.answer tells those that clients may see from those they may not
            response = errors.response(exc)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path: str = request.scope["path"]
        for beginning, error in self._refused.items():
            if path.startswith(beginning):
                raise error
        if request.method == "GET" and (page := self._pages.get(path)) is not None:
            return self._told(request, page())
        if path == "/readyz" and request.method == "GET":
            return await self._ready()
        if (added := self._added(request, path)) is not None:
            answer = await added.handle(request, added.app, added.route)
            return answer if isinstance(answer, Response) else _json(answer)
        if (found := self._find(request, path)) is not None:
            handler, api_request = found
            # Nothing is unbound: what is logged of this request later, its error too, is to say whose it is.
            bind_contextvars(action=handler.__name__, **api_request.names())
            result = await handler(api_request)
            if is_debug():
                _log.debug("request answered")
            label(request.scope, api_request.app, api_request.route)
            if self._changed is not None and api_request.app and request.method not in ("GET", "POST"):
                await self._changed(api_request.app, api_request.route or None)
            return result if isinstance(result, Response) else _json(result)
        if self._is_slash_away(request, path):
            return _redirect(request, path.removesuffix("/"))
        raise PathNotFound.of(path)

    async def _ready(self) -> Response:
        ready, told = (True, {"ready": True}) if self._readiness is None else await self._readiness.look()
        return _json(told, 200 if ready else 503)

    def _added(self, request: Request, path: str) -> Found | None:
        return self._endpoints.find(request.method, path) if self._endpoints is not None else None

    def _told(self, request: Request, response: Response) -> Response:
        if request.scope["path"] == "/version":
            response.headers.update(self._about.headers(request))
        return response

    def _find(self, request: Request, path: str) -> tuple[Handler, ApiRequest] | None:
        match path.split("/"):
            case ["", "v1", "apps"]:
                return self._handler(self._of_apps, request)
            case ["", "v1", "apps", "", _, *_]:
                raise AppsMissingName
            case ["", "v1", "apps", app] if app:
                return self._handler(self._of_app, request, app=app)
            case ["", "v1", "apps", app, "routes"]:
                return self._handler(self._of_routes, request, app=app)
            case ["", "v1", "apps", app, "routes", ""] if request.method in ("GET", "POST"):
                return None  # the list, one slash away
            case ["", "v1", "apps", app, "routes", *parts]:
                return self._handler(self._of_route, request, app=app, route=clean_path("/".join(parts)))
            case ["", "v1", "apps", app, "calls"]:
                return self._handler(self._of_calls, request, app=app)
            case ["", "v1", "apps", app, "calls", call] if call:
                return self._handler(self._of_call, request, app=app, call=call)
            case ["", "v1", "apps", app, "calls", call, "log"] if call:
                return self._handler(self._of_log, request, app=app, call=call)
            case ["", "v1", "runner", name] if self._runners is not None and name in self._of_runner:
                self._runners.check(request)
                return self._handler(self._of_runner[name], request)
        return None

    def _handler(self, table: dict[str, Handler], request: Request, **names: str) -> tuple[Handler, ApiRequest] | None:
        handler = table.get(request.method)
        return None if handler is None else (handler, ApiRequest(request, **names))

    def _is_slash_away(self, request: Request, path: str) -> bool:
        """Whether the path without its last slash is one that is served."""
        shorter = path.removesuffix("/")
        if shorter in ("", path):
            return False
        if request.method == "GET" and shorter in self._pages:
            return True
        if shorter.endswith("/"):
            return False
        return self._added(request, shorter) is not None or self._find(request, shorter) is not None


def _of_runners(runners: RunnerApi) -> dict[str, dict[str, Handler]]:
    return {
        "async": {"GET": runners.dequeue, "PUT": runners.enqueue, "POST": runners.enqueue},
        "start": {"POST": runners.start},
        "finish": {"POST": runners.finish},
        "renew": {"POST": runners.renew},
        "settle": {"POST": runners.settle},
        "release": {"POST": runners.release},
    }


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    body = errors.escape(msgspec.json.encode(value))
    return Response(body, status, headers={"Content-Type": errors.JSON_TYPE})


def _metrics(clock: Clock) -> Response:
    """Written piece by piece; between two of them other requests have their turn."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in metrics.exposition():
            yield piece
            await pause(clock, 0)

    return StreamingResponse(pieces(), headers={"Content-Type": metrics.CONTENT_TYPE})


def _redirect(request: Request, path: str) -> Response:
    status = 301 if request.method == "GET" else 307
    query = request.scope["query_string"].decode("latin-1")
    return RedirectResponse(quote(path) + (f"?{query}" if query else ""), status)
