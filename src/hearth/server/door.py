"""Check every request but function calls, before any extension sees it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hearth.authorize.authenticator import Authenticator, bearer, password
from hearth.authorize.rules import OPEN, Action, authorize, entry_point
from hearth.models.errors import ApiError, ControlElsewhere, IssuerUnavailable, RunnerApiClosed, TokensUnavailable
from hearth.models.principal import ANONYMOUS, LOCAL, AuthMode, Principal, Role
from hearth.server import errors
from hearth.server.audit import AuditLog
from hearth.server.browsers import Hosts, check_content_type, check_host, check_origin
from hearth.server.endpoints import Endpoints
from hearth.server.registry.paths import is_registry, is_upload

_KEY: Final = "hearth.principal"
#: Set where only what needs no token is served.
_OPEN_ONLY: Final = "hearth.open_only"
#: Set where a request is let through because it shows a token of one result, which its handler checks.
_SHOWN_FOR_RESULT: Final = "hearth.shown_for_result"
#: Statuses of requests that were refused because of their sender. A 404 of the door is an app that is out of reach.
_REFUSALS: Final = frozenset({401, 403, 404, 429})
#: The paths of results.
_RESULT: Final = re.compile(r"/(?:v1/apps|v2/fns)/[^/]+/calls/[^/]+/result")
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NOT_AUDITED: Final = OPEN | {Action.RUNNER_WORK, Action.DASHBOARD_CALL}
_WANTED: Final = frozenset(
    {
        *(b"authorization", b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode"),
        *(b"content-type", b"content-length", b"transfer-encoding"),
    }
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The access rules of a node.

    Attributes:
        tokens: Finds the sender of a request by its token.
        hosts: Names under which it may be reached.
        origins: Of web pages that may use it, in lower case; ``*`` for all.
    """

    mode: AuthMode
    tokens: Authenticator
    hosts: Hosts
    origins: frozenset[str] = frozenset()


class Door:
    """Lets a request through to an application if its sender is authorized.

    Args:
        endpoints: The endpoints of extensions, if there are any.
        serves_runners: Whether the application serves /v1/runner.
        audit: Notes changes and refused requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        endpoints: Endpoints | None = None,
        *,
        serves_runners: bool = True,
        audit: AuditLog | None = None,
    ) -> None:
        self._app = app
        self._access = access
        self._endpoints = endpoints
        self._serves_runners = serves_runners
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        action, resource = Action.UNKNOWN, ""
        try:
            action, resource = self._entry_point(scope["method"], scope["path"])
            scope[_KEY] = principal = await self._admit(scope, action, resource)
        except ApiError as exc:
            if self._audit is not None and exc.code in _REFUSALS and not isinstance(exc, ControlElsewhere):
                self._audit.refused(scope, principal_of(scope), action, resource, exc.code)
            await errors.response(exc, scope["path"])(scope, receive, send)
            return
        if self._audit is not None and _is_change(scope["method"], action, scope["path"]):
            send = _audited(self._audit, scope, principal, action, resource, send)
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, action: Action, resource: str) -> Principal:
        if action is Action.CALLS_READ and _shows_result_token(scope):
            scope[_SHOWN_FOR_RESULT] = True
            return ANONYMOUS
        if is_open_only(scope):
            if action not in OPEN:
                raise ControlElsewhere
            if action is Action.PROBE:
                return ANONYMOUS
        if action in OPEN and action is not Action.PROBE:
            return ANONYMOUS
        headers = _headers(scope)
        scope[_KEY] = principal = await self._find(scope, headers, action)
        is_runner = principal.role is Role.RUNNER
        if action is Action.RUNNER_WORK and not is_runner and not self._access.tokens.has_runner_token:
            raise RunnerApiClosed
        try:
            self._check_browser(headers, action, principal)
        except ApiError:
            if action is Action.PROBE:
                return ANONYMOUS  # web pages may probe, too, but see no details
            raise
        if principal == ANONYMOUS and self._access.mode is not AuthMode.REQUIRED:
            principal = LOCAL
        authorize(principal, action, resource)
        return principal

    def _entry_point(self, method: str, path: str) -> tuple[Action, str]:
        if self._endpoints is not None and (found := self._endpoints.find(method, path)) is not None:
            return Action.EXTENSION_PUBLIC if found.public else Action.EXTENSION, found.app
        action, resource = entry_point(method, path)
        if action is Action.RUNNER_WORK and not self._serves_runners:
            action = Action.UNKNOWN
        return action, resource

    async def _find(self, scope: Scope, headers: Mapping[str, str], action: Action) -> Principal:
        """Return the principal of the request's token. An unknown one counts as wrong only where one is needed."""
        shown = headers.get("authorization", "")
        token = bearer(shown)
        if not token and is_registry(scope["path"]):  # docker and others know no token: it is their password
            token = password(shown)
        if not token:
            return ANONYMOUS
        try:
            found = await self._access.tokens.find(token)
        except (TokensUnavailable, IssuerUnavailable):
            if action is Action.PROBE:
                return ANONYMOUS
            raise
        if found is not None:
            return found
        if self._access.mode is AuthMode.REQUIRED or action is Action.RUNNER_WORK:
            self._access.tokens.note_wrong(scope["client"][0] if scope.get("client") else "")
        return ANONYMOUS

    def _check_browser(self, headers: Mapping[str, str], action: Action, principal: Principal) -> None:
        check_host(headers, self._access.hosts)
        reads_docs = action is Action.DOCS_READ
        # A page of a function has the same origin as the API, so only a token tells other pages from it.
        shows_token = principal != ANONYMOUS
        check_origin(
            headers,
            self._access.origins,
            from_own_pages=shows_token or reads_docs,
            as_page=reads_docs,
        )
        check_content_type(headers)


def open_only(app: ASGIApp) -> ASGIApp:
    """Return the application behind a door that lets through only what needs no token, whatever a request shows.

    For the listener of function calls on a node whose API has a listener of its own.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, _OPEN_ONLY: True}, receive, send)

    return answer


def is_open_only(scope: Scope) -> bool:
    """Return whether a request came to a listener that serves only what needs no token."""
    return bool(scope.get(_OPEN_ONLY, False))


def _is_change(method: str, action: Action, path: str) -> bool:
    """Return whether a request may change what is stored.

    The work of runners is no administration, and of an image only its manifest says what it is.
    """
    if action is Action.IMAGES_WRITE and is_upload(path):
        return False
    return action is Action.SYSTEM_STOP or (method not in _READS and action not in _NOT_AUDITED)


def _audited(audit: AuditLog, scope: Scope, principal: Principal, action: Action, app: str, send: Send) -> Send:
    """Return what sends an answer once the change is noted."""

    async def noted(message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            if status < 400 or status >= 500:  # what fails may have changed something before
                await audit.changed(scope, principal, action, app, status)
            elif status == 403:
                audit.refused(scope, principal, action, app, status)
        await send(message)

    return noted


def is_by_result_token(scope: Scope) -> bool:
    """Return whether nothing but a token of one result lets a request through."""
    return bool(scope.get(_SHOWN_FOR_RESULT, False))


def _shows_result_token(scope: Scope) -> bool:
    if _RESULT.fullmatch(scope["path"]) is None:  # a call may have the id "result"
        return False
    return any(part.startswith(b"token=") for part in scope["query_string"].split(b"&"))


def principal_of(scope: Scope) -> Principal:
    """Return the sender of a request."""
    found: Principal = scope.get(_KEY, ANONYMOUS)
    return found


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers that are checked. The values of a repeated header are joined, so that they match nothing."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name in _WANTED:
            key, text = name.decode(), value.decode("latin-1")
            found[key] = f"{found[key]}, {text}" if key in found else text
    return found
