"""Data that only the dashboard shows: numbers of the last hour, live numbers, lists of calls across apps, the backlog.

It stands behind the door: each request has a principal, and sees of this what the principal's apps are.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth import FN_VERSION, __version__
from hearth.aio.clock import Clock, next_turn
from hearth.authorize.rules import Action, is_allowed
from hearth.contracts.base import HOP_BY_HOP
from hearth.models.call import QUEUED
from hearth.models.errors import AppsNotFound, CallsInvalidDuration, PathNotFound, TooManyWatchers
from hearth.models.principal import Principal, Role
from hearth.models.times import format_time
from hearth.server import errors
from hearth.server.api_v1 import decode
from hearth.server.api_v1.encode import key_cursor
from hearth.server.door import principal_of
from hearth.server.ui.calls import Wanted, list_calls
from hearth.server.ui.gateway import cut
from hearth.server.ui.recent import Recent
from hearth.stores.datastore import Datastore
from hearth.stores.definitions.base import AppFilter
from hearth.stores.records.base import CallFilter
from hearth.telemetry.series import Labels

_DATA: Final = "/ui/data/"
_LIVE: Final = "live"
_CALL: Final = "/ui/call"
_CALLS: Final = ("/r/", "/t/", "/invoke/")
#: Begins the names of headers that are for the function. The framing of the request is not: it would no longer be true.
_OF_CALL: Final = b"x-hearth-call-"
_NOT_OF_CALL: Final = frozenset(
    _OF_CALL + name.lower().encode() for name in ("", "Host", "Content-Length", *HOP_BY_HOP)
)
#: A browser that shows the answer of a function as a page runs nothing of it.
_INERT: Final = ((b"content-security-policy", b"sandbox"), (b"x-content-type-options", b"nosniff"))
#: Pages that receive live numbers at a time.
MAX_WATCHERS: Final = 64
#: Functions in the list of the busiest ones, and names in one question.
_BUSIEST: Final = 10
_MAX_NAMES: Final = 100
#: Queued calls of one app that are read to find its backlog.
_MAX_QUEUED: Final = 500
_AT_ONCE: Final = 100
#: What pages hide or show.
_SHOWN: Final = {
    "config": Action.CONFIG_READ,
    "edit_apps": Action.APPS_WRITE,
    "edit_routes": Action.ROUTES_WRITE,
    "edit_fns": Action.FNS_WRITE,
    "call": Action.DASHBOARD_CALL,
    "apps": Action.APPS_READ,
    "calls": Action.CALLS_READ,
    "edit_calls": Action.CALLS_WRITE,
    "dead_letters": Action.DEAD_LETTERS_READ,
    "secrets": Action.SECRETS_READ,
    "schedules": Action.SCHEDULES_READ,
    "edit_schedules": Action.SCHEDULES_WRITE,
    "tokens": Action.TOKENS_READ,
    "edit_tokens": Action.TOKENS_WRITE,
    "audit": Action.AUDIT_READ,
    "system": Action.SYSTEM_READ,
}

Query = dict[str, list[str]]


class Data:
    """Answers ``/ui/data/*`` and ``/ui/call/*``, before an application.

    Args:
        datastore: The apps and the records of calls.
        recent: The last hour.
        about: Facts of the node that pages show: its type, its driver, its mode of access.

    Attributes:
        front: Answers function calls.
    """

    def __init__(self, datastore: Datastore, recent: Recent, clock: Clock, about: dict[str, Any]) -> None:
        self._datastore = datastore
        self._recent = recent
        self._clock = clock
        self._about = {"version": __version__, "fn_version": FN_VERSION, **about}
        self._watchers = 0
        self.front: ASGIApp = _no_calls
        self._pages: dict[str, Callable[[Principal, Query], Awaitable[dict[str, Any]]]] = {
            "me": self._me,
            "history": self._history,
            "activity": self._activity,
            "busiest": self._busiest,
            "calls": self._calls,
            "async": self._async,
        }

    def entry_points(self) -> Iterator[tuple[str, str]]:
        """Yield the method and the path of each page of data."""
        for name in (*self._pages, _LIVE):
            yield "GET", f"{_DATA}{name}"

    def before(self, app: ASGIApp) -> ASGIApp:
        """Return an application that answers these, too."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            path: str = scope["path"]
            if path.startswith(f"{_CALL}/"):
                await self._forward(scope, receive, send)
            elif path.startswith(_DATA):
                await self._answer(scope, receive, send)
            else:
                await app(scope, receive, send)

        return answer

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call a function as a stranger would: it gets nothing of the session."""
        try:
            cut(scope, _CALL)
            if not scope["path"].startswith(_CALLS):
                raise PathNotFound.of(scope["path"])
        except PathNotFound as exc:
            await errors.response(exc, scope["path"])(scope, receive, send)
            return
        headers = scope["headers"]
        scope["headers"] = [
            (name.removeprefix(_OF_CALL), value)
            for name, value in headers
            if name != b"authorization" and name not in _NOT_OF_CALL
        ]

        async def without_cookies(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"set-cookie"]
                message = {**message, "headers": [*given, *_INERT]}
            await send(message)

        await self.front(scope, receive, without_cookies)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"].removeprefix(_DATA)
        principal = principal_of(scope)
        query = parse_qs(scope["query_string"].decode("latin-1"))
        answer: Response
        try:
            if scope["method"] != "GET":
                raise PathNotFound.of(scope["path"])
            if name == _LIVE:
                answer = self._live(principal, query)
            elif (page := self._pages.get(name)) is not None:
                answer = Response(
                    errors.escape(msgspec.json.encode(await page(principal, query))),
                    headers={"Content-Type": errors.JSON_TYPE, "Cache-Control": "no-store"},
                )
            else:
                raise PathNotFound.of(scope["path"])
        except Exception as exc:  # errors.answer tells those that clients may see from those they may not
            answer = errors.response(exc, scope["path"])
        await answer(scope, receive, send)

    # -- pages --------------------------------------------------------------------------------------------------------

    async def _me(self, principal: Principal, query: Query) -> dict[str, Any]:
        app = min(principal.apps, default="")
        return {
            **self._about,
            "role": principal.role.value,
            "name": principal.name,
            "apps": sorted(principal.apps),
            "is_logged_in": principal.role is not Role.LOCAL,
            "can": {name: _can(principal, action, app) for name, action in _SHOWN.items()},
        }

    async def _history(self, principal: Principal, query: Query) -> dict[str, Any]:
        if (labels := _labels(principal, query)) is not None:
            return {"function": self._recent.function_history(labels), "now": self._recent.function_now(labels)}
        if not is_allowed(principal, Action.SYSTEM_READ):
            return {"node": None}
        return {"node": self._recent.node_history(), "now": self._recent.node_now()}

    async def _activity(self, principal: Principal, query: Query) -> dict[str, Any]:
        """Return the last hour of some functions of an app, or of some apps as a whole."""
        apps = [app for app in query.get("app", ())[:_MAX_NAMES] if principal.reaches(app)]
        if paths := query.get("path", ())[:_MAX_NAMES]:
            found = {path: self._recent.activity((app, path)) for app in apps[:1] for path in paths}
            return {"functions": found, "containers": {p: self._recent.containers((apps[0], p)) for p in found}}
        return {"apps": {app: await self._sum(self._recent.functions(app)) for app in apps}}

    async def _sum(self, functions: Iterable[Labels]) -> dict[str, Any] | None:
        calls: list[float] = []
        errors_, worst = 0.0, 0.0
        for place, labels in enumerate(functions):
            if place % _AT_ONCE == _AT_ONCE - 1:
                await next_turn()
            if (one := self._recent.activity(labels)) is not None:
                minutes = one["calls_per_minute"]
                calls = [old + new for old, new in zip(calls, minutes, strict=True)] if calls else minutes
                errors_, worst = errors_ + one["errors"], max(worst, one["p95_ms"])
        return {"calls_per_minute": calls, "calls": sum(calls), "errors": errors_, "p95_ms": worst} if calls else None

    async def _busiest(self, principal: Principal, query: Query) -> dict[str, Any]:
        """Return the functions with most calls in the last hour."""
        found = []
        for place, labels in enumerate(self._recent.functions()):
            if place % _AT_ONCE == _AT_ONCE - 1:
                await next_turn()
            if principal.reaches(labels[0]) and (one := self._recent.activity(labels)) is not None:
                found.append({"app": labels[0], "path": labels[1], **one})
                if len(found) > _BUSIEST * 2:
                    found = _most_calls(found)
        return {"functions": _most_calls(found)}

    async def _calls(self, principal: Principal, query: Query) -> dict[str, Any]:
        app = _one(query, "app")
        if app and not principal.reaches(app):
            raise AppsNotFound
        if not app and len(principal.apps) == 1:
            (app,) = principal.apps
        from_time, to_time = decode.bounds(_one(query, "from_time"), _one(query, "to_time"))
        wanted = Wanted(
            apps=principal.apps,
            app=app,
            path=_one(query, "path"),
            status=decode.status(_one(query, "status")),
            error=_one(query, "error"),
            min_ms=_milliseconds(_one(query, "min_ms")),
            from_time=from_time,
            to_time=to_time,
            cursor=_one(query, "cursor"),
            per_page=decode.per_page(_one(query, "per_page")),
        )
        return await list_calls(self._datastore, wanted)

    async def _async(self, principal: Principal, query: Query) -> dict[str, Any]:
        """Return the accepted calls that have not started, by function, for a page of apps, and all dead letters."""
        page = decode.per_page(_one(query, "per_page"))
        which = AppFilter(
            cursor=decode.cursor(_one(query, "cursor")), per_page=page, name_in=sorted(principal.apps) or None
        )
        apps = await self._datastore.get_apps(which)
        functions = [one for app in apps for one in await self._backlog(app.name)]
        now = self._recent.node_now()
        node = {name: now[name] for name in ("queue_length", "queue_oldest_age_s")}
        return {
            "functions": sorted(functions, key=lambda one: (-one["queued"], one["app"], one["path"])),
            "apps": len(apps),
            "next_cursor": key_cursor([app.name for app in apps], page),
            "node": node if is_allowed(principal, Action.SYSTEM_READ) else None,
            "dead_letters": [
                {"app": one.app_name, "count": one.count, "oldest_at": format_time(one.oldest)}
                for one in await self._datastore.count_dead_letters()
                if is_allowed(principal, Action.DEAD_LETTERS_READ, one.app_name)
            ],
        }

    async def _backlog(self, app: str) -> list[dict[str, Any]]:
        calls = await self._datastore.get_calls(CallFilter(app_name=app, status=QUEUED, per_page=_MAX_QUEUED))
        is_cut = len(calls) == _MAX_QUEUED
        waiting: dict[str, tuple[int, dt.datetime]] = {}
        for call in calls:
            count, oldest = waiting.get(call.path, (0, call.created_at))
            waiting[call.path] = count + 1, min(oldest, call.created_at)
        return [
            {"app": app, "path": path, "queued": count, "oldest_at": format_time(oldest), "is_cut": is_cut}
            for path, (count, oldest) in waiting.items()
        ]

    # -- live ---------------------------------------------------------------------------------------------------------

    def _live(self, principal: Principal, query: Query) -> Response:
        labels = _labels(principal, query)
        sees_node = is_allowed(principal, Action.SYSTEM_READ)
        if self._watchers >= MAX_WATCHERS:
            raise TooManyWatchers

        async def events() -> AsyncIterator[bytes]:
            self._watchers += 1
            try:
                async for _ in self._recent.looks():
                    told = {
                        "node": self._recent.node_now() if sees_node else None,
                        "function": None if labels is None else self._recent.function_now(labels),
                    }
                    yield b"data: %b\n\n" % msgspec.json.encode(told)
            finally:
                self._watchers -= 1

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


async def _no_calls(scope: Scope, receive: Receive, send: Send) -> None:
    raise PathNotFound.of(scope["path"])


def _labels(principal: Principal, query: Query) -> Labels | None:
    """Return the function that a request is about; ``None``: about the node.

    Raises:
        AppsNotFound: The principal does not reach it.
    """
    app, path = _one(query, "app"), _one(query, "path")
    if not app:
        return None
    if not principal.reaches(app):
        raise AppsNotFound
    return app, path


def _can(principal: Principal, action: Action, app: str) -> bool:
    return is_allowed(principal, action, app) or is_allowed(principal, action)


def _one(query: Query, name: str) -> str:
    return query.get(name, [""])[0]


def _milliseconds(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise CallsInvalidDuration
    return int(text)


def _most_calls(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda one: (-one["calls"], one["app"], one["path"]))[:_BUSIEST]
