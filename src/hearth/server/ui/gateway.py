"""The way of a browser to the node: pages, sessions, and requests that a session makes.

The gateway checks the browser, then turns the session into the token behind it and hands the request on. From there it
is a request like any other: the door decides about it, and the audit log names its principal.

=====================  ==================================================================
``/ui/``               the page
``/ui/static/*``       its files
``/ui/login``          begins a session, ``/ui/logout`` ends it
``/ui/api/*``          the rest of the path is a path of the API
``/ui/data/*``         data that only the dashboard shows
``/ui/call/*``         the rest of the path is the path of a function call
=====================  ==================================================================

Pages of functions have the same origin as the dashboard if both are served at one address. The page key keeps them
out: only the page contains it, a script cannot fetch that page, and no other window may hold it (ADR 31).
"""

from __future__ import annotations

import dataclasses
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hearth.authorize.rules import Action, authorize, entry_point
from hearth.authorize.sessions import LIFE_S, Sessions
from hearth.models.errors import (
    ApiError,
    BodyTooLarge,
    ControlElsewhere,
    LoginInvalid,
    PageKeyWrong,
    PageNotFetched,
    PathNotFound,
    Unauthenticated,
)
from hearth.server import errors
from hearth.server.browsers import check_host
from hearth.server.door import Access, is_open_only
from hearth.server.ui.assets import assets, page

COOKIE: Final = "hearth_session"
PAGE_KEY: Final = b"x-hearth-page"
_HOME: Final = "/ui/"
_STATIC: Final = "/ui/static/"
#: The beginning of paths whose rest is another path of the node.
_API: Final = "/ui/api"
_API_PATHS: Final = ("/v1/", "/v2/", "/readyz", "/version")
#: No page uses the API for runners, and what stands before a fleet keeps it from clients by its path.
_RUNNERS: Final = "/v1/runner/"
_MAX_LOGIN_BYTES: Final = 16 * 1024
#: Headers of browsers that the gateway has checked. What is behind it sees a client with a token.
_CHECKED: Final = frozenset({b"cookie", PAGE_KEY, b"origin", b"referer"})
_SECURITY: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Browser:
    """The parts of a request that a gateway checks."""

    headers: dict[bytes, str]
    session_id: str

    @property
    def is_one(self) -> bool:
        """Return whether a browser sent the request, as far as it tells."""
        return bool(self.session_id) or b"origin" in self.headers or b"sec-fetch-site" in self.headers


class Gateway:
    """Serves the dashboard before an application.

    Args:
        app: Answers all other requests, and those that sessions make.
        access: Finds the principal of a token that logs in, and says under which names the node may be reached.
    """

    def __init__(self, app: ASGIApp, access: Access, sessions: Sessions) -> None:
        self._app = app
        self._access = access
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope.get("path", "")
        if scope["type"] != "http" or not (path == "/ui" or path.startswith(_HOME)):
            await self._app(scope, receive, send)
            return
        try:
            answer = await self._answer(scope, receive)
        except ApiError as exc:
            answer = _secured(errors.response(exc, path))
        await (answer or self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> ASGIApp | None:
        """Return what answers a request of the dashboard; ``None``: the application, with the changed scope."""
        if is_open_only(scope):
            raise ControlElsewhere
        browser = _browser(scope)
        check_host({"host": browser.headers.get(b"host", "")}, self._access.hosts)
        method, path = scope["method"], scope["path"]
        if path == "/ui" and method in ("GET", "HEAD"):
            return _secured(RedirectResponse(_HOME, 308))
        if entry_point("GET" if method == "HEAD" else method, path)[0] is not Action.DASHBOARD_OPEN:
            self._hand_on(scope, browser)
            return None
        if path == _HOME:
            return self._page(browser)
        if path.startswith(_STATIC):
            return _file(path.removeprefix(_STATIC), browser)
        self._check_page_key(browser)
        if path == "/ui/login":
            return await self._log_in(Request(scope, receive))
        return self._log_out(scope, browser)

    def _page(self, browser: _Browser) -> Response:
        mode = browser.headers.get(b"sec-fetch-mode", "navigate")
        if mode != "navigate" or browser.headers.get(b"sec-fetch-dest", "document") != "document":
            raise PageNotFetched
        text = page(self._sessions.page_key(browser.session_id))
        answer = Response(text, media_type="text/html", headers={"Cache-Control": "no-store"})
        return _secured(answer)

    async def _log_in(self, request: Request) -> Response:
        token = await _token(request)
        principal = await self._access.tokens.find(token)
        if principal is None:
            self._access.tokens.note_wrong(request.client.host if request.client else "")
            raise Unauthenticated
        authorize(principal, Action.DASHBOARD_READ)
        answer = _json({"message": "Logged in"})
        answer.set_cookie(COOKIE, self._sessions.begin(token), max_age=LIFE_S, **_cookie(request.scope))
        return answer

    def _log_out(self, scope: Scope, browser: _Browser) -> Response:
        self._sessions.end(browser.session_id)
        answer = _json({"message": "Logged out"})
        answer.delete_cookie(COOKIE, **_cookie(scope))
        return answer

    def _hand_on(self, scope: Scope, browser: _Browser) -> None:
        """Make the request of a page one of the token behind its session.

        A client that shows a token of its own is no page: it is handed on as it is.
        """
        if b"authorization" not in browser.headers:
            if browser.is_one:
                self._check_page_key(browser)
            headers = [
                pair for pair in scope["headers"] if pair[0] not in _CHECKED and not pair[0].startswith(b"sec-fetch-")
            ]
            if token := self._sessions.token(browser.session_id):
                headers.append((b"authorization", b"Bearer " + token))
            scope["headers"] = headers
        if scope["path"].startswith(f"{_API}/"):
            cut(scope, _API)
            if not scope["path"].startswith(_API_PATHS) or scope["path"].startswith(_RUNNERS):
                raise PathNotFound.of(scope["path"])

    def _check_page_key(self, browser: _Browser) -> None:
        if not self._sessions.is_page_key(browser.session_id, browser.headers.get(PAGE_KEY, "")):
            raise PageKeyWrong


def cut(scope: Scope, prefix: str) -> None:
    """Remove the beginning of the path of a request.

    Raises:
        PathNotFound: The client has encoded it in an unusual way, so where the rest begins is not certain.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    if not raw.startswith(prefix.encode()):
        raise PathNotFound.of(scope["path"])
    scope["path"] = scope["path"].removeprefix(prefix)
    scope["raw_path"] = raw.removeprefix(prefix.encode())


def _browser(scope: Scope) -> _Browser:
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        separator = "; " if name == b"cookie" else ", "
        headers[name] = f"{headers[name]}{separator}{text}" if name in headers else text
    return _Browser(headers, _session_id(headers.get(b"cookie", "")))


def _session_id(cookies: str) -> str:
    try:
        found = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _cookie(scope: Scope) -> dict[str, Any]:
    """Return the attributes of the cookie: no script reads it, and no other site makes a browser send it."""
    return {"path": "/ui", "secure": scope.get("scheme") == "https", "httponly": True, "samesite": "strict"}


async def _token(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_LOGIN_BYTES:
            raise BodyTooLarge(len(body), _MAX_LOGIN_BYTES)
    try:
        token = msgspec.json.decode(body, type=dict[str, str])["token"].strip()
    except (ValueError, KeyError):  # also a text that is not UTF-8
        raise LoginInvalid from None
    if not token:
        raise LoginInvalid
    return token.encode()


def _file(name: str, browser: _Browser) -> Response:
    asset = assets().get(name)
    if asset is None or name == "index.html":
        raise PathNotFound.of(f"{_STATIC}{name}")
    headers = {"Cache-Control": "no-cache", "ETag": asset.tag}
    if browser.headers.get(b"if-none-match") == asset.tag:
        return _secured(Response(status_code=304, headers=headers))
    return _secured(Response(asset.data, headers={**headers, "Content-Type": asset.media_type}))


def _json(fields: dict[str, Any]) -> Response:
    body = errors.escape(msgspec.json.encode(fields)) + b"\n"
    return _secured(Response(body, headers={"Content-Type": errors.JSON_TYPE, "Cache-Control": "no-store"}))


def _secured(response: Response) -> Response:
    response.headers.update(_SECURITY)
    return response
