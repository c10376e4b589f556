"""A thin client of a server's API v1."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import httpx

from hearth.cli.connecting import TlsOptions, base_url, connection_options, tls_failure
from hearth.cli.fields import encoded
from hearth.cli.local_server import LocalServer, find, is_local
from hearth.cli.output import CommandError, note

#: An app, a route or a call, as the API writes it.
Record = dict[str, Any]

_PAGE: Final = 100
_CONNECT_S: Final = 10.0
#: The server answers definitions at once; this is for one that hangs.
_API_S: Final = 60.0
#: A function ends when the server says so: the client's limit would only hide that.
_CALL: Final = httpx.Timeout(None, connect=_CONNECT_S)
_FAILURES: Final = (httpx.HTTPError, httpx.InvalidURL)
#: Header of a result: the status of its call. Other answers are the server's own.
CALL_STATUS: Final = "fn-call-status"


class ServerError(CommandError):
    """The server refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """A token, and the only server that may get it, if it is a node's of this machine."""

    token: str = ""
    server: LocalServer | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The header that shows the token."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def extensions(self, *, asynchronous: bool = False) -> dict[str, Any]:
        """Return the extensions of a request with a token, which make sure that nobody else gets it."""
        if self.server is None or not self.token:
            return {}
        return {"trace": self.server.check_async if asynchronous else self.server.check}


class Client:
    """Speaks to one server; to be closed by its user.

    Args:
        url: Of the server; a path in it goes before those of the API. ``unix:/path`` for a Unix socket.
        token: Sent to the API as ``Authorization: Bearer`` unless empty; to functions only if asked for. Without one, a
            node of this machine that asks for a token gets the one that lies in its data folder.
        tls: For a server with TLS.
    """

    def __init__(self, url: str, token: str = "", tls: TlsOptions | None = None) -> None:
        self.url = url
        self.tls = tls
        self.credentials = Credentials(token)
        self._warned = False
        self._base = base_url(url)
        self._http = self._opened()

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

    # --- tokens ---------------------------------------------------------------------------------------------------

    def tokens(self, limit: int) -> Iterator[Record]:
        """Yield tokens without their values, oldest first, page by page."""
        return self._pages("/v1/tokens", "tokens", limit)

    def create_token(self, token: Record) -> Record:
        """Create a token; only this answer has its value."""
        return self._record("POST", "/v1/tokens", "token", {"token": token})

    def delete_token(self, token_id: str) -> None:
        """Revoke a token."""
        self._json("DELETE", f"/v1/tokens/{quote(token_id, safe='')}")

    def check_token(self) -> None:
        """Ask for something that needs a valid token, of whichever role.

        Raises:
            ServerError: The server does not know the token.
        """
        try:
            self._json("GET", "/v1/apps", params={"per_page": "1"})
        except ServerError as exc:
            if exc.status != httpx.codes.FORBIDDEN:
                raise

    # --- nodes ----------------------------------------------------------------------------------------------------

    def nodes(self) -> list[Record]:
        """Return the nodes of the fleet, the server first."""
        found: list[Record] = self._member(self._json("GET", "/v1/nodes"), "nodes", list)
        return found

    def drain_node(self, node_id: str) -> Record:
        """Let a node drain; return it."""
        return self._record("POST", f"/v1/nodes/{quote(node_id, safe='')}/drain", "node")

    # --- versions -------------------------------------------------------------------------------------------------

    def versions(self, app: str, path: str) -> list[Record]:
        """Return the versions of a route, newest first."""
        answer = self._json("GET", f"{_app(app)}/versions", params={"function": _slashed(path)})
        found: list[Record] = self._member(answer, "versions", list)
        return found

    # --- secrets --------------------------------------------------------------------------------------------------

    def secrets(self, app: str) -> list[Record]:
        """Return names, versions and times of an app's secrets."""
        found: list[Record] = self._member(self._json("GET", f"{_app(app)}/secrets"), "secrets", list)
        return found

    def put_secret(self, app: str, name: str, value: str) -> Record:
        """Store a secret; return its name, version and time."""
        return self._record("PUT", f"{_app(app)}/secrets/{quote(name, safe='')}", "secret", {"value": value})

    def logins(self, app: str) -> list[Record]:
        """Return registries, versions and times of an app's logins."""
        found: list[Record] = self._member(self._json("GET", f"{_app(app)}/registries"), "registries", list)
        return found

    def put_login(self, app: str, registry: str, username: str, password: str) -> Record:
        """Store a login at a registry; return its registry, version and time."""
        path = f"{_app(app)}/registries/{quote(registry, safe='')}"
        return self._record("PUT", path, "registry", {"username": username, "password": password})

    def delete_login(self, app: str, registry: str) -> None:
        """Delete a login at a registry."""
        self._json("DELETE", f"{_app(app)}/registries/{quote(registry, safe='')}")

    def delete_secret(self, app: str, name: str) -> None:
        """Delete a secret."""
        self._json("DELETE", f"{_app(app)}/secrets/{quote(name, safe='')}")

    # --- schedules ------------------------------------------------------------------------------------------------

    def schedules(self, app: str) -> list[Record]:
        """Return an app's schedules by name."""
        found: list[Record] = self._member(self._json("GET", f"{_app(app)}/schedules"), "schedules", list)
        return found

    def schedule(self, app: str, name: str) -> Record:
        """Return a schedule."""
        return self._record("GET", _schedule(app, name), "schedule")

    def create_schedule(self, app: str, schedule: Record) -> Record:
        """Create a schedule."""
        return self._record("POST", f"{_app(app)}/schedules", "schedule", {"schedule": schedule})

    def put_schedule(self, app: str, name: str, schedule: Record) -> Record:
        """Create or replace a schedule."""
        return self._record("PUT", _schedule(app, name), "schedule", {"schedule": schedule})

    def delete_schedule(self, app: str, name: str) -> None:
        """Delete a schedule."""
        self._json("DELETE", _schedule(app, name))

    def run_schedule(self, app: str, name: str) -> str:
        """Call the function of a schedule now; return the ID of the call."""
        call_id: str = self._member(self._json("POST", f"{_schedule(app, name)}/run"), "call_id", str)
        return call_id

    # --- routes ---------------------------------------------------------------------------------------------------

    def routes(self, app: str, limit: int, image: str = "") -> Iterator[Record]:
        """Yield the routes of an app by path, page by page."""
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
        """Yield calls, newest first. Filters: ``path``, ``cursor``, ``from_time``, ``to_time`` (Unix seconds)."""
        return self._pages(f"{_app(app)}/calls", "calls", limit, **filters)

    def call(self, app: str, call_id: str) -> Record:
        """Return the record of one call."""
        return self._record("GET", f"{_app(app)}/calls/{quote(call_id, safe='')}", "call")

    def cancel_call(self, app: str, call_id: str) -> Record:
        """End a call that has not ended; return its record."""
        return self._record("POST", f"{_app(app)}/calls/{quote(call_id, safe='')}/cancel", "call")

    def dead_letters(self, app: str, limit: int, *, route: str, since: str) -> Iterator[Record]:
        """Yield dead letters of an app, those of the newest calls first, page by page."""
        return self._pages(f"{_app(app)}/dead-letters", "calls", limit, **{"route": route, "from": since})

    def dead_letter(self, app: str, call_id: str) -> Record:
        """Return a dead letter with its headers."""
        return self._record("GET", _dead_letter(app, call_id), "call")

    def payload_of_dead_letter(self, app: str, call_id: str) -> bytes:
        """Return the payload of a dead letter, byte for byte."""
        return self._checked(self._send("GET", f"{_dead_letter(app, call_id)}/payload")).content

    def redrive(self, app: str, call_id: str) -> str:
        """Make a new call of a dead letter; return its id."""
        found: str = self._member(self._json("POST", f"{_dead_letter(app, call_id)}/redrive"), "call_id", str)
        return found

    def redrive_many(self, app: str, *, route: str, since: str) -> tuple[int, int]:
        """Make new calls of dead letters; return how many, and how many dead letters were skipped."""
        redriven = skipped = 0
        for page in self._batches("POST", f"{_app(app)}/dead-letters/redrive", route, since):
            redriven += self._member(page, "redriven", int)
            skipped += self._member(page, "skipped", int)
        return redriven, skipped

    def remove_dead_letter(self, app: str, call_id: str) -> None:
        """Remove a dead letter."""
        self._json("DELETE", _dead_letter(app, call_id))

    def remove_dead_letters(self, app: str, *, route: str, since: str) -> int:
        """Remove dead letters; return how many."""
        pages = self._batches("DELETE", f"{_app(app)}/dead-letters", route, since)
        return sum(self._member(page, "removed", int) for page in pages)

    def _batches(self, method: str, path: str, route: str, since: str) -> Iterator[Record]:
        asked = {"route": route, "from": since, "cursor": ""}
        while True:
            page = self._json(method, path, params={name: value for name, value in asked.items() if value})
            yield page
            cursor = self._member(page, "next_cursor", str)
            if not cursor or cursor == asked["cursor"]:
                return
            asked["cursor"] = cursor

    def result(self, app: str, call_id: str, wait_s: float) -> httpx.Response:
        """Return the answer of an async call, or 202 if it has not ended within some seconds."""
        path = f"{_app(app)}/calls/{quote(call_id, safe='')}/result"
        timeout = httpx.Timeout(_API_S + wait_s, connect=_CONNECT_S)
        answer = self._send("GET", path, params={"wait": f"{wait_s:g}"}, timeout=timeout, headers={"Accept": "*/*"})
        if CALL_STATUS in answer.headers:
            return answer
        return self._checked(answer)

    def log(self, app: str, call_id: str) -> bytes:
        """Return the log of one call, byte for byte."""
        path = f"{_app(app)}/calls/{quote(call_id, safe='')}/log"
        return self._checked(self._send("GET", path, headers={"Accept": "text/plain"})).content

    def log_if_any(self, app: str, call_id: str) -> bytes:
        """Return the log of one call; empty if it wrote nothing."""
        try:
            return self.log(app, call_id)
        except ServerError as exc:
            if exc.status != httpx.codes.NOT_FOUND:
                raise
            return b""

    # --- the rest -------------------------------------------------------------------------------------------------

    def version(self) -> httpx.Response:
        """Return the answer of ``/version``."""
        return self._send("GET", "/version")

    def warnings(self) -> list[str]:
        """Return what the server says its operator should know; nothing if it does not say."""
        try:
            found = self._send("GET", "/readyz").json().get("warnings", [])
        except (CommandError, ValueError, AttributeError):
            return []
        return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []

    def registry(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Return the answer of the server's registry, which may be an error."""
        return self._send(method, path, params=params, content=content, headers=headers)

    def log_in(self) -> None:
        """Have the server ask for a token, if it needs one.

        Raises:
            ServerError: It needs one, and there is none that it accepts.
        """
        answer = self._send("GET", "/v1/apps", params={"per_page": "1"})
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._checked(answer)

    @contextmanager
    def invoke(
        self,
        app: str,
        path: str,
        method: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | Iterator[bytes] | None,
        *,
        auth: bool = False,
    ) -> Iterator[httpx.Response]:
        """Call a function; its answer may be read piece by piece. With ``auth`` its code can read the token."""
        credentials = self._used() if auth else Credentials()
        sent = [*credentials.headers.items(), *headers]
        url = f"{self._base}/r/{quote(app, safe='')}{quote(_slashed(path))}"
        options: dict[str, Any] = {"content": body, "timeout": _CALL, "extensions": credentials.extensions()}
        try:
            with self._http.stream(method, url, headers=encoded(sent), **options) as answer:
                yield answer
        except _FAILURES as exc:
            raise self._unreachable(exc) from exc

    def _pages(self, path: str, key: str, limit: int, /, cursor: str = "", **query: str) -> Iterator[Record]:
        while limit > 0:
            asked = {"per_page": str(min(limit, _PAGE)), "cursor": cursor, **query}
            page = self._json("GET", path, params={name: value for name, value in asked.items() if value})
            records = self._member(page, key, list)
            yield from records[:limit]
            limit -= len(records)
            if not (cursor := page.get("next_cursor", "")):
                return

    def _record(self, method: str, path: str, key: str, body: Record | None = None) -> Record:
        found: Record = self._member(self._json(method, path, body=body), key, dict)
        return found

    def _member(self, answer: Record, key: str, kind: type) -> Any:
        if not isinstance(answer, dict) or not isinstance(answer.get(key), kind):
            raise CommandError(f"{self.url}: answered without {key!r}; is this a Hearth server?")
        return answer[key]

    def _json(
        self, method: str, path: str, *, params: dict[str, str] | None = None, body: Record | None = None
    ) -> Record:
        answer = self._checked(self._send(method, path, params=params, json=body))
        try:
            decoded: Record = answer.json()
        except ValueError as exc:
            raise CommandError(
                f"{answer.url}: answered {answer.status_code} without JSON; is this a Hearth server?"
            ) from exc
        return decoded

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        """Return the answer.

        Raises:
            ServerError: It is an error.
        """
        if answer.status_code >= 400:
            message = error_message(answer.content) or f"status {answer.status_code}"
            hint = (
                "; set FN_TOKEN to a token of this server, or use hearth login"
                if answer.status_code == httpx.codes.UNAUTHORIZED
                else ""
            )
            raise ServerError(answer.status_code, f"{message}{hint}")
        return answer

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = self._send_once(method, path, **options)
        if answer.status_code == httpx.codes.UNAUTHORIZED and self._find_credentials():
            answer = self._send_once(method, path, **options)
        return answer

    def _send_once(
        self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        credentials = self._used()
        sent = {**credentials.headers, **(headers or {})}
        try:
            return self._http.request(
                method, self._base + path, headers=sent, extensions=credentials.extensions(), **options
            )
        except _FAILURES as exc:
            raise self._unreachable(exc) from exc

    def _find_credentials(self) -> bool:
        """Look for the token that a node of this machine keeps; return whether it is to be tried."""
        if self.credentials.token:
            return False
        server = find(self.url)
        self.credentials = Credentials(server.token() if server else "", server)
        # Open connections were made before the server was known.
        self._http.close()
        self._http = self._opened()
        return bool(self.credentials.token)

    def _opened(self) -> httpx.Client:
        timeout = httpx.Timeout(_API_S, connect=_CONNECT_S)
        options = connection_options(self.url, self.tls)
        return httpx.Client(headers={"Accept": "application/json"}, timeout=timeout, **options)

    def _used(self) -> Credentials:
        """Return the credentials for a request; warn, once, if others can read them on their way."""
        if self.credentials.token and not self._warned and self.url.startswith("http://") and not is_local(self.url):
            self._warned = True
            note(f"hearth: warning: the token is sent to {self.url} unencrypted; use https://")
        return self.credentials

    def _unreachable(self, exc: Exception) -> CommandError:
        if failure := tls_failure(exc):
            return CommandError(f"{self.url}: {failure}")
        if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
            return CommandError(
                f"no server answers at {self.url}; start one with hearth start, or name another with --api-url, "
                "FN_API_URL or hearth use context"
            )
        return CommandError(f"{self.url}: {exc or type(exc).__name__}")


def error_message(body: bytes) -> str:
    """Return the text of an error's body on one line, in the form of API v1, v2 or a registry; empty if in none."""
    try:
        decoded = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(decoded, dict):
        return ""
    listed = decoded.get("errors")
    for level in (decoded.get("error"), *(listed if isinstance(listed, list) else ()), decoded):
        if isinstance(level, dict) and isinstance(level.get("message"), str):
            return " ".join(level["message"].split())
    return ""


def _app(name: str) -> str:
    return f"/v1/apps/{quote(name, safe='')}"


def _dead_letter(app: str, call_id: str) -> str:
    return f"{_app(app)}/dead-letters/{quote(call_id, safe='')}"


def _schedule(app: str, name: str) -> str:
    return f"{_app(app)}/schedules/{quote(name, safe='')}"


def _route(app: str, path: str) -> str:
    # Escaped with its first slash: nothing else names the root route in a GET.
    return f"{_app(app)}/routes/{quote(_slashed(path), safe='')}"


def _slashed(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"
