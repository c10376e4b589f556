"""Bearer tokens: who may use the API, and who may call functions, are two questions.

Tokens come from variables, separated by commas, or from a file with a line ``api TOKEN`` or ``call TOKEN`` for each:

* ``BEARER_API_TOKENS``: for all that is under /v1
* ``BEARER_CALL_TOKENS``: for /r
* ``BEARER_TOKENS_FILE``: the file

If there is no token for one of the two, that one is closed. What is neither (/version, /healthz, ...) is open.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from starlette.responses import JSONResponse, Response

from hearth.server.extensions import Server
from hearth.server.middleware import IncomingRequest, Middleware, Next, middleware

SCOPES = ("api", "call")


class Bearer:
    """The extension."""

    name = "hearth/bearer"

    def setup(self, server: Server) -> None:
        """Read the tokens, and stand before both doors."""
        tokens = read_tokens()
        if not any(tokens.values()):
            raise ValueError("no tokens: set BEARER_API_TOKENS, BEARER_CALL_TOKENS or BEARER_TOKENS_FILE")
        server.add_root_middleware(guard("/r/", tokens["call"]))
        server.add_api_middleware(guard("/", tokens["api"]))


def read_tokens() -> dict[str, frozenset[bytes]]:
    """The digests of the tokens of each scope. Tokens themselves are not kept."""
    found: dict[str, set[str]] = {
        scope: set(os.environ.get(f"BEARER_{scope.upper()}_TOKENS", "").split(",")) for scope in SCOPES
    }
    if path := os.environ.get("BEARER_TOKENS_FILE"):
        for number, line in enumerate(Path(path).read_text().splitlines(), 1):
            scope, _, token = line.partition(" ")
            if not line.strip() or line.startswith("#"):
                continue
            if scope not in SCOPES or not token.strip():
                raise ValueError(f"BEARER_TOKENS_FILE={path}: line {number}: want 'api TOKEN' or 'call TOKEN'")
            found[scope].add(token)
    return {scope: frozenset(digest(token) for token in tokens if token.strip()) for scope, tokens in found.items()}


def digest(token: str) -> bytes:
    """What is compared: how long that takes tells nothing about a token."""
    return hashlib.sha256(token.strip().encode()).digest()


def guard(beginning: str, tokens: frozenset[bytes]) -> Middleware:
    """Let requests pass whose path begins otherwise, or that bring one of the tokens."""

    @middleware
    async def handle(request: IncomingRequest, call_next: Next) -> Response | None:
        if request.scope["path"].startswith(beginning):
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or digest(token) not in tokens:
                error = {"error": {"message": "a valid bearer token is needed"}}
                return JSONResponse(error, 401, {"WWW-Authenticate": "Bearer"})
            # The function shall not see who its caller's key is.
            headers = [pair for pair in request.scope["headers"] if pair[0] != b"authorization"]
            request = IncomingRequest({**request.scope, "headers": headers}, request.receive)
        await call_next(request)
        return None

    return handle
