"""Everything but invocations: the small endpoints and both APIs, as one ASGI application.

Routing is a table of our own: the specification's rules for slashes, unknown paths and wrong methods are exact, and
are not those of a framework.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from hearth import FN_VERSION
from hearth.aio.clock import Clock, pause
from hearth.authorize.rules import Action, is_allowed
from hearth.models.call_result import DEFAULT_TTL_S
from hearth.models.errors import ApiError, AppsMissingName, PathMalformed, PathNotFound
from hearth.models.ids import IdGenerator
from hearth.models.image import Resolve, unresolved
from hearth.models.principal import ANONYMOUS
from hearth.models.route import LIMITS, RouteLimits, clean_path
from hearth.server import errors
from hearth.server.about import About
from hearth.server.api_v1.apps import Apps
from hearth.server.api_v1.audit import Audit
from hearth.server.api_v1.calls import Calls, GetLog
from hearth.server.api_v1.dead_letters import DeadLetters
from hearth.server.api_v1.nodes import Nodes
from hearth.server.api_v1.registries import Registries
from hearth.server.api_v1.request import ApiRequest
from hearth.server.api_v1.routes import Routes
from hearth.server.api_v1.schedules import Schedules
from hearth.server.api_v1.secrets import Secrets
from hearth.server.api_v1.tokens import Tokens
from hearth.server.api_v1.versions import Versions
from hearth.server.api_v2.api import ApiV2
from hearth.server.api_v2.description import DESCRIPTION as DESCRIPTION_V2
from hearth.server.cancels import Cancels
from hearth.server.description import DESCRIPTION, PAGE
from hearth.server.door import principal_of
from hearth.server.endpoints import Found
from hearth.server.extensions import Server
from hearth.server.health import Readiness
from hearth.server.listeners import ListenedApps
from hearth.server.redrives import Redrives
from hearth.server.registry.for_runners import RunnerImages
from hearth.server.registry.paths import is_registry
from hearth.server.registry.registry import Registry
from hearth.server.results import Results
from hearth.server.runner_api import RunnerApi
from hearth.server.traced import label
from hearth.stores.datastore import Datastore
from hearth.stores.secrets.vault import Vault
from hearth.telemetry.logs import get_logger, log_levels
from hearth.telemetry.metrics import CONTENT_TYPE, Metrics

_log = get_logger(__name__)

#: Called when an app, or one of its routes, was changed or removed.
Changed = Callable[[str, str | None], Awaitable[None]]
Handler = Callable[[ApiRequest], Awaitable["dict[str, Any] | Response"]]
_V2: Final = "/v2/"
_ALIVE: Final = {"status": "ok"}
_HOME: Final = {"goto": "https://github.com/fnproject/fn", "hello": "world!"}


async def _forget_nothing(token_id: str) -> None:
    """Forget nothing: no token is remembered."""


class Api:
    """The application. :class:`~hearth.server.door.Door` decides which requests reach it.

    Args:
        datastore: Where definitions and records are; without it nothing of /v1 and /v2 is served.
        stats: The node's counts, as /stats shows them.
        changed: Awaited after each change of a definition, before its answer.
        get_log: Finds the log of an app's call; without it, the datastore does.
        about: What the headers of ``/version`` say.
        readiness: What /readyz says; without it, that the node is ready.
        server: What extensions have added.
        runners: Serves /v1/runner.
        vault: Encrypts the secrets of apps; without it, there are none.
        limits: The most that a route may ask for.
        metrics: What /metrics says.
        next_id: Makes the ids of apps, fns, triggers and tokens.
        forget_token: Awaited with the id of a token that was revoked.
        public_url: The beginning of the addresses at which clients call functions; empty for that of each request.
        registry: Serves images below /v2; without it, there are none.
        images: Serves the images of the data folder to runners.
        result_ttl_s: Seconds for which results are kept.
        cancels: Cancels calls; without it, only their records end.
        redrives: Makes new calls of dead letters; without it, they can only be read and removed.
        resolve: Returns the digest that a reference means on this node.
        schedules: Serves the schedules of apps; without it, there are none.
        nodes: Lists the nodes of the fleet; without it, there are none.
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
        vault: Vault | None = None,
        about: About | None = None,
        limits: RouteLimits = LIMITS,
        metrics: Metrics | None = None,
        next_id: Callable[[], str] | None = None,
        forget_token: Callable[[str], Awaitable[None]] = _forget_nothing,
        public_url: str = "",
        registry: Registry | None = None,
        images: RunnerImages | None = None,
        result_ttl_s: int = DEFAULT_TTL_S,
        cancels: Cancels | None = None,
        redrives: Redrives | None = None,
        resolve: Resolve = unresolved,
        schedules: Schedules | None = None,
        nodes: Nodes | None = None,
    ) -> None:
        metrics = metrics or Metrics()
        next_id = next_id or IdGenerator(0, clock.now_ns)
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
            "/metrics": lambda: _metrics(metrics, clock),
            "/v1/openapi.json": lambda: _json(DESCRIPTION),
            "/v2/openapi.json": lambda: _json(DESCRIPTION_V2),
            "/docs": lambda: Response(PAGE, media_type="text/html"),
        }
        self._v2: ApiV2 | None = None
        self._registry = registry
        self._results: Results | None = None
        self._of_apps: dict[str, Handler] = {}
        self._of_app: dict[str, Handler] = {}
        self._of_routes: dict[str, Handler] = {}
        self._of_route: dict[str, Handler] = {}
        self._of_calls: dict[str, Handler] = {}
        self._of_call: dict[str, Handler] = {}
        self._of_log: dict[str, Handler] = {}
        self._of_result: dict[str, Handler] = {}
        self._of_cancel: dict[str, Handler] = {}
        self._of_dead_letters: dict[str, Handler] = {}
        self._of_dead_letter: dict[str, Handler] = {}
        self._of_payload: dict[str, Handler] = {}
        self._of_redrive: dict[str, Handler] = {}
        self._of_redrives: dict[str, Handler] = {}
        self._of_tokens: dict[str, Handler] = {}
        self._of_token: dict[str, Handler] = {}
        self._of_audit: dict[str, Handler] = {}
        self._of_versions: dict[str, Handler] = {}
        self._of_secrets: dict[str, Handler] = {}
        self._of_secret: dict[str, Handler] = {}
        self._of_registries: dict[str, Handler] = {}
        self._of_registry: dict[str, Handler] = {}
        self._of_schedules: dict[str, Handler] = {}
        self._of_schedule: dict[str, Handler] = {}
        self._of_runs: dict[str, Handler] = {}
        self._of_nodes: dict[str, Handler] = {} if nodes is None else {"GET": nodes.list}
        self._of_drain: dict[str, Handler] = {} if nodes is None else {"POST": nodes.drain}
        if schedules is not None:
            self._of_schedules = {"GET": schedules.list, "POST": schedules.create}
            self._of_schedule = {"GET": schedules.get, "PUT": schedules.put, "DELETE": schedules.remove}
            self._of_runs = {"POST": schedules.run}
        if datastore is not None:
            store = ListenedApps(datastore, server.app_listeners if server is not None else ())
            versions = Versions(datastore, clock, next_id, resolve)
            self._of_versions = {"GET": versions.list}
            results = self._results = Results(datastore, clock, result_ttl_s)
            cancels = cancels or Cancels(datastore, clock, result_ttl_s)
            self._serve_v1(
                Apps(store, datastore, clock),
                Routes(datastore, store, clock, limits, versions),
                Calls(datastore, results, cancels, get_log),
                Tokens(datastore, clock, next_id, forget_token),
            )
            self._serve_dead_letters(DeadLetters(datastore, redrives))
            self._v2 = ApiV2(
                datastore,
                store,
                clock,
                next_id,
                self._app_changed,
                get_log or datastore.get_log,
                limits.memory_mib,
                versions,
                results,
                cancels,
                public_url,
            )
            self._of_audit = {"GET": Audit(datastore).list}
        if vault is not None:
            secrets = Secrets(vault, clock)
            self._of_secrets = {"GET": secrets.list}
            self._of_secret = {"PUT": secrets.put, "DELETE": secrets.remove}
            registries = Registries(vault, clock)
            self._of_registries = {"GET": registries.list}
            self._of_registry = {"PUT": registries.put, "DELETE": registries.remove}
        self._runners = runners
        self._of_runner = {} if runners is None else _of_runners(runners)
        if runners is not None and images is not None:
            self._of_runner |= {"images": {"GET": images.image}, "blobs": {"GET": images.blob}}
        if runners is not None and nodes is not None:
            self._of_runner["report"] = {"POST": nodes.report}

    def _serve_v1(self, apps: Apps, routes: Routes, calls: Calls, tokens: Tokens) -> None:
        self._of_apps = {"GET": apps.list, "POST": apps.create}
        self._of_app = {"GET": apps.get, "PATCH": apps.update, "DELETE": apps.remove}
        self._of_routes = {"GET": routes.list, "POST": routes.create}
        self._of_route = {"GET": routes.get, "PUT": routes.put, "PATCH": routes.patch, "DELETE": routes.remove}
        self._of_calls = {"GET": calls.list}
        self._of_call = {"GET": calls.get}
        self._of_log = {"GET": calls.log}
        self._of_result = {"GET": calls.result}
        self._of_cancel = {"POST": calls.cancel}
        self._of_tokens = {"GET": tokens.list, "POST": tokens.create}
        self._of_token = {"DELETE": tokens.remove}

    def _serve_dead_letters(self, letters: DeadLetters) -> None:
        self._of_dead_letters = {"GET": letters.list, "DELETE": letters.remove_many}
        self._of_dead_letter = {"GET": letters.get, "DELETE": letters.remove}
        self._of_payload = {"GET": letters.payload}
        if letters.can_redrive:
            self._of_redrive = {"POST": letters.redrive}
            self._of_redrives = {"POST": letters.redrive_many}

    def stop(self) -> None:
        """End the waits of requests for results. Idempotent."""
        if self._results is not None:
            self._results.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except Exception as exc:  # errors.answer tells those that clients may see from those they may not
            response = errors.response(exc, scope["path"])
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path: str = request.scope["path"]
        if "\0" in path:  # no stored name contains it, and not every database compares it
            raise PathMalformed
        for beginning, error in self._refused.items():
            if path.startswith(beginning):
                raise error
        if request.method == "GET" and (page := self._pages.get(path)) is not None:
            return self._told(request, page())
        if path == "/readyz" and request.method == "GET":
            return await self._ready(request)
        if (added := self._added(request, path)) is not None:
            answer = await added.handle(request, added.app, added.route)
            return answer if isinstance(answer, Response) else _json(answer)
        if self._registry is not None and is_registry(path):
            return await self._registry.answer(request)
        if path.startswith(_V2):
            return await self._answer_v2(request, path)
        if (found := self._find(request, path)) is not None:
            handler, api_request = found
            # Nothing is unbound: what is logged of this request later, its error too, is to say whose it is.
            bind_contextvars(action=handler.__name__, **api_request.names())
            result = await handler(api_request)
            if log_levels.debug:
                _log.debug("request answered")
            label(request.scope, api_request.app, api_request.route)
            if self._changed is not None and api_request.app and request.method not in ("GET", "POST"):
                await self._changed(api_request.app, api_request.route or None)
            return result if isinstance(result, Response) else _json(result)
        if self._is_slash_away(request, path):
            return _redirect(request, path.removesuffix("/"))
        raise PathNotFound.of(path)

    async def _answer_v2(self, request: Request, path: str) -> Response:
        if self._v2 is None:
            raise PathNotFound.of(f"{request.method} {path}")
        shorter = path.removesuffix("/")
        if shorter != path and not self._v2.knows(path) and self._v2.knows(shorter):
            return _redirect(request, shorter)
        handler, api_request = self._v2.find(request, path)
        bind_contextvars(action=handler.__qualname__, **api_request.names())
        result = await handler(api_request)
        if log_levels.debug:
            _log.debug("request answered")
        return result if isinstance(result, Response) else _json(result)

    async def _app_changed(self, app_name: str) -> None:
        if self._changed is not None:
            await self._changed(app_name, None)

    async def _ready(self, request: Request) -> Response:
        ready, details = (True, {"ready": True}) if self._readiness is None else await self._readiness.look()
        if not is_allowed(principal_of(request.scope), Action.SYSTEM_READ):
            details = {"ready": ready}
        return _json(details, 200 if ready else 503)

    def entry_points(self) -> Iterator[tuple[str, str]]:
        """Yield the method and the path of all that this node serves, extensions' endpoints left out."""
        for path in [*self._pages, "/readyz"]:
            yield "GET", path
        tables = {
            "/v1/apps": self._of_apps,
            "/v1/apps/:app": self._of_app,
            "/v1/apps/:app/routes": self._of_routes,
            "/v1/apps/:app/routes/:route": self._of_route,
            "/v1/apps/:app/versions": self._of_versions,
            "/v1/apps/:app/secrets": self._of_secrets,
            "/v1/apps/:app/secrets/:secret": self._of_secret,
            "/v1/apps/:app/registries": self._of_registries,
            "/v1/apps/:app/registries/:registry": self._of_registry,
            "/v1/apps/:app/schedules": self._of_schedules,
            "/v1/apps/:app/schedules/:schedule": self._of_schedule,
            "/v1/apps/:app/schedules/:schedule/run": self._of_runs,
            "/v1/apps/:app/calls": self._of_calls,
            "/v1/apps/:app/calls/:call": self._of_call,
            "/v1/apps/:app/calls/:call/log": self._of_log,
            "/v1/apps/:app/calls/:call/result": self._of_result,
            "/v1/apps/:app/calls/:call/cancel": self._of_cancel,
            "/v1/apps/:app/dead-letters": self._of_dead_letters,
            "/v1/apps/:app/dead-letters/redrive": self._of_redrives,
            "/v1/apps/:app/dead-letters/:call": self._of_dead_letter,
            "/v1/apps/:app/dead-letters/:call/payload": self._of_payload,
            "/v1/apps/:app/dead-letters/:call/redrive": self._of_redrive,
            "/v1/tokens": self._of_tokens,
            "/v1/tokens/:token": self._of_token,
            "/v1/audit": self._of_audit,
            "/v1/nodes": self._of_nodes,
            "/v1/nodes/:node/drain": self._of_drain,
            **{f"/v1/runner/{name}": table for name, table in self._of_runner.items()},
        }
        for path, table in tables.items():
            for method in table:
                yield method, path
        if self._v2 is not None:
            yield from self._v2.entry_points()
        if self._registry is not None:
            yield from self._registry.entry_points()

    def _added(self, request: Request, path: str) -> Found | None:
        return self._endpoints.find(request.method, path) if self._endpoints is not None else None

    def _told(self, request: Request, response: Response) -> Response:
        if request.scope["path"] == "/version" and principal_of(request.scope) != ANONYMOUS:
            response.headers.update(self._about.headers())
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
            case ["", "v1", "apps", app, "versions"]:
                return self._handler(self._of_versions, request, app=app)
            case ["", "v1", "apps", app, "secrets"]:
                return self._handler(self._of_secrets, request, app=app)
            case ["", "v1", "apps", app, "secrets", secret] if secret:
                return self._handler(self._of_secret, request, app=app, secret=secret)
            case ["", "v1", "apps", app, "registries"]:
                return self._handler(self._of_registries, request, app=app)
            case ["", "v1", "apps", app, "registries", registry] if registry:
                return self._handler(self._of_registry, request, app=app, registry=registry)
            case ["", "v1", "apps", app, "schedules"]:
                return self._handler(self._of_schedules, request, app=app)
            case ["", "v1", "apps", app, "schedules", schedule] if schedule:
                return self._handler(self._of_schedule, request, app=app, schedule=schedule)
            case ["", "v1", "apps", app, "schedules", schedule, "run"] if schedule:
                return self._handler(self._of_runs, request, app=app, schedule=schedule)
            case ["", "v1", "apps", app, "calls"]:
                return self._handler(self._of_calls, request, app=app)
            case ["", "v1", "apps", app, "calls", call] if call:
                return self._handler(self._of_call, request, app=app, call=call)
            case ["", "v1", "apps", app, "calls", call, "log"] if call:
                return self._handler(self._of_log, request, app=app, call=call)
            case ["", "v1", "apps", app, "calls", call, "result"] if call:
                return self._handler(self._of_result, request, app=app, call=call)
            case ["", "v1", "apps", app, "calls", call, "cancel"] if call:
                return self._handler(self._of_cancel, request, app=app, call=call)
            case ["", "v1", "apps", app, "dead-letters", *rest]:
                return self._find_dead_letters(request, app, rest)
            case ["", "v1", "audit"]:
                return self._handler(self._of_audit, request)
            case ["", "v1", "nodes"]:
                return self._handler(self._of_nodes, request)
            case ["", "v1", "nodes", node, "drain"] if node:
                return self._handler(self._of_drain, request, node=node)
            case ["", "v1", "tokens"]:
                return self._handler(self._of_tokens, request)
            case ["", "v1", "tokens", token] if token:
                return self._handler(self._of_token, request, token=token)
            case ["", "v1", "runner", name] if self._runners is not None and name in self._of_runner:
                return self._handler(self._of_runner[name], request)
        return None

    def _find_dead_letters(self, request: Request, app: str, rest: list[str]) -> tuple[Handler, ApiRequest] | None:
        match rest:
            case []:
                return self._handler(self._of_dead_letters, request, app=app)
            case ["redrive"] if request.method == "POST":
                return self._handler(self._of_redrives, request, app=app)
            case [call] if call:
                return self._handler(self._of_dead_letter, request, app=app, call=call)
            case [call, "payload"] if call:
                return self._handler(self._of_payload, request, app=app, call=call)
            case [call, "redrive"] if call:
                return self._handler(self._of_redrive, request, app=app, call=call)
        return None

    def _handler(self, table: dict[str, Handler], request: Request, **names: str) -> tuple[Handler, ApiRequest] | None:
        handler = table.get(request.method)
        return None if handler is None else (handler, ApiRequest(request, **names))

    def _is_slash_away(self, request: Request, path: str) -> bool:
        """Return whether the path without its last slash is one that is served."""
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
        "keys": {"POST": runners.keys},
        "callback": {"POST": runners.callback},
        "release": {"POST": runners.release},
        "retry": {"POST": runners.retry},
        "secrets": {"POST": runners.secrets},
        "tokens": {"POST": runners.tokens},
        "cancelled": {"POST": runners.cancelled},
        "pin": {"POST": runners.pin},
        "ready": {"GET": runners.ready},
    }


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    body = errors.escape(msgspec.json.encode(value))
    return Response(body, status, headers={"Content-Type": errors.JSON_TYPE})


def _metrics(metrics: Metrics, clock: Clock) -> Response:
    """Written piece by piece; between two of them other requests have their turn."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in metrics.exposition():
            yield piece
            await pause(clock, 0)

    return StreamingResponse(pieces(), headers={"Content-Type": CONTENT_TYPE})


def _redirect(request: Request, path: str) -> Response:
    status = 301 if request.method == "GET" else 307
    query = request.scope["query_string"].decode("latin-1")
    return RedirectResponse(quote(path) + (f"?{query}" if query else ""), status)
