"""A thin client of a server's API v1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import httpx

from hearth.cli.fields import encoded
from hearth.cli.output import CommandError

#: An app, a route or a call, as the API writes it.
Record = dict[str, Any]

_PAGE: Final = 100
_CONNECT_S: Final = 10.0
#: The server answers definitions at once; this is for one that hangs.
_API_S: Final = 60.0
#: A function ends when the server says so: the client's limit would only hide that.
_CALL: Final = httpx.Timeout(None, connect=_CONNECT_S)
_FAILURES: Final = (httpx.HTTPError, httpx.InvalidURL)


class ServerError(CommandError):
    """The server refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """Speaks to one server; to be closed by its user.

    Args:
        url: Of the server; a path in it goes before those of the API.
        token: Sent to the API as ``Authorization: Bearer`` unless empty; to functions only if asked for.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self._authorization = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            headers={"Accept": "application/json"}, timeout=httpx.Timeout(_API_S, connect=_CONNECT_S)
        )

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    # --- apps -----------------------------------------------------------------------------------------------------

    def apps(self, limit: int) -> Iterator[Record]:
        """Apps by name, page by page."""
        return self._pages("/v1/apps", "apps", limit)

    def app(self, name: str) -> Record:
        """One app."""
        return self._record("GET", _app(name), "app")

    def create_app(self, app: Record) -> Record:
        """Make an app."""
        return self._record("POST", "/v1/apps", "app", {"app": app})

    def update_app(self, name: str, changes: Record) -> Record:
        """Change an app; a config value that is empty deletes its key."""
        return self._record("PATCH", _app(name), "app", {"app": changes})

    def delete_app(self, name: str) -> None:
        """Remove an app with its routes, calls and logs."""
        self._json("DELETE", _app(name))

    # --- routes ---------------------------------------------------------------------------------------------------

    def routes(self, app: str, limit: int, image: str = "") -> Iterator[Record]:
        """The routes of an app by path, page by page."""
        return self._pages(f"{_app(app)}/routes", "routes", limit, image=image)

    def route(self, app: str, path: str) -> Record:
        """One route."""
        return self._record("GET", _route(app, path), "route")

    def create_route(self, app: str, route: Record) -> Record:
        """Make a route."""
        return self._record("POST", f"{_app(app)}/routes", "route", {"route": route})

    def put_route(self, app: str, path: str, route: Record) -> Record:
        """Make or change a route; makes its app if there is none."""
        return self._record("PUT", _route(app, path), "route", {"route": route})

    def update_route(self, app: str, path: str, changes: Record) -> Record:
        """Change a route."""
        return self._record("PATCH", _route(app, path), "route", {"route": changes})

    def delete_route(self, app: str, path: str) -> None:
        """Remove a route; the records of its calls stay."""
        self._json("DELETE", _route(app, path))

    # --- calls ----------------------------------------------------------------------------------------------------

    def calls(self, app: str, limit: int, **filters: str) -> Iterator[Record]:
        """Calls, newest first. Filters: ``path``, ``cursor``, ``from_time``, ``to_time`` (Unix seconds)."""
        return self._pages(f"{_app(app)}/calls", "calls", limit, **filters)

    def call(self, app: str, call_id: str) -> Record:
        """The record of one call."""
        return self._record("GET", f"{_app(app)}/calls/{quote(call_id, safe='')}", "call")

    def log(self, app: str, call_id: str) -> str:
        """The log of one call."""
        return str(self._record("GET", f"{_app(app)}/calls/{quote(call_id, safe='')}/log", "log")["log"])

    # --- the rest -------------------------------------------------------------------------------------------------

    def version(self) -> httpx.Response:
        """The answer of ``/version``."""
        return self._send("GET", "/version")

    @contextmanager
    def invoke(
        self,
        app: str,
        path: str,
        method: str,
        headers: dict[str, str],
        body: bytes | Iterator[bytes] | None,
        *,
        auth: bool = False,
    ) -> Iterator[httpx.Response]:
        """Call a function; its answer may be read piece by piece. With ``auth`` its code can read the token."""
        headers = {**(self._authorization if auth else {}), **headers}
        url = f"{self.url}/r/{quote(app, safe='')}{quote(_slashed(path))}"
        try:
            with self._http.stream(method, url, headers=encoded(headers), content=body, timeout=_CALL) as answer:
                yield answer
        except _FAILURES as exc:
            raise self._unreachable(exc) from exc

    def _pages(self, path: str, key: str, limit: int, /, cursor: str = "", **query: str) -> Iterator[Record]:
        while limit > 0:
            asked = {"per_page": str(min(limit, _PAGE)), "cursor": cursor, **query}
            page = self._json("GET", path, params={name: value for name, value in asked.items() if value})
            yield from page[key][:limit]
            limit -= len(page[key])
            if not (cursor := page.get("next_cursor", "")):
                return

    def _record(self, method: str, path: str, key: str, body: Record | None = None) -> Record:
        found: Record = self._json(method, path, body=body)[key]
        return found

    def _json(
        self, method: str, path: str, *, params: dict[str, str] | None = None, body: Record | None = None
    ) -> Record:
        answer = self._send(method, path, params=params, json=body)
        if answer.status_code >= 400:
            raise ServerError(answer.status_code, error_message(answer.content) or f"status {answer.status_code}")
        try:
            decoded: Record = answer.json()
        except ValueError as exc:
            raise CommandError(f"{answer.url}: answered {answer.status_code} without JSON; is this a server?") from exc
        return decoded

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, self.url + path, headers=self._authorization, **options)
        except _FAILURES as exc:
            raise self._unreachable(exc) from exc

    def _unreachable(self, exc: Exception) -> CommandError:
        if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
            return CommandError(
                f"no server answers at {self.url}; start one with hearth start, or name another with --api-url, "
                "FN_API_URL or hearth use context"
            )
        return CommandError(f"{self.url}: {exc or type(exc).__name__}")


def error_message(body: bytes) -> str:
    """The text of an error's body, in the form of API v1 or v2; empty if it is in neither."""
    try:
        decoded = json.loads(body)
    except ValueError:
        return ""
    for level in (decoded.get("error"), decoded) if isinstance(decoded, dict) else ():
        if isinstance(level, dict) and isinstance(level.get("message"), str):
            return str(level["message"])
    return ""


def _app(name: str) -> str:
    return f"/v1/apps/{quote(name, safe='')}"


def _route(app: str, path: str) -> str:
    # Escaped with its first slash: nothing else names the root route in a GET.
    return f"{_app(app)}/routes/{quote(_slashed(path), safe='')}"


def _slashed(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"
