"""A small OpenID Connect provider: discovery, keys, and tokens for clients that know a secret."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.tls import Authority

AUDIENCE = "hearth"
CLIENT, SECRET = "ci", "s3cret"


def new_key(kid: str, algorithm: str = "ES256") -> Key:
    """A private key for an algorithm."""
    described: Any = {"kid": kid, "alg": algorithm, "use": "sig"}
    if algorithm[:2] == "ES":
        return ECKey.generate_key({"256": "P-256", "384": "P-384"}[algorithm[2:]], described)
    return RSAKey.generate_key(2048, described)


class Provider:
    """The provider.

    Attributes:
        keys: The last one signs; all are published.
        fetched: The paths that were asked for.
        changes: Claims of its tokens that differ from the usual ones.
        documents: What it answers instead of its documents, by the end of their path; a number is a status.
        answers: Clear: no document is answered until it is set.
    """

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.keys: list[Key] = [new_key("first")]
        self.fetched: list[str] = []
        self.changes: dict[str, Any] = {}
        self.documents: dict[str, Any] = {}
        self.answers = threading.Event()
        self.answers.set()
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._discovery),
                Route("/keys", self._keys),
                Route("/token", self._token, methods=["POST"]),
            ]
        )

    def rotate(self, kid: str, algorithm: str = "ES256") -> None:
        """Sign with a new key from now on, and withdraw the others."""
        self.keys = [new_key(kid, algorithm)]

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a valid token; those that are ``None`` are left out."""
        now = int(time.time())
        usual = {"iss": self.issuer, "aud": AUDIENCE, "sub": CLIENT, "iat": now, "exp": now + 300, "roles": ["deploy"]}
        return {name: value for name, value in {**usual, **changes}.items() if value is not None}

    def sign(self, key: Key | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token."""
        key = key or self.keys[-1]
        described = {"alg": key.get("alg"), "kid": key.kid, **(header or {})}
        described = {name: value for name, value in described.items() if value is not None}
        return jwt.encode(described, self.claims(**changes), key, algorithms=[described["alg"]])

    async def _discovery(self, request: Request) -> Response:
        return await self._document(
            request,
            {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/keys",
                "token_endpoint": f"{self.issuer}/token",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            },
        )

    async def _keys(self, request: Request) -> Response:
        return await self._document(request, KeySet(self.keys).as_dict(private=False))

    async def _document(self, request: Request, usual: Any) -> Response:
        self.fetched.append(request.url.path)
        await asyncio.to_thread(self.answers.wait)
        found = self.documents.get(request.url.path.rpartition("/")[2], usual)
        if isinstance(found, int):
            return Response(status_code=found, headers={"location": f"{self.issuer}/keys"})
        return Response(found) if isinstance(found, str) else JSONResponse(found)

    async def _token(self, request: Request) -> JSONResponse:
        form = dict(parse_qsl((await request.body()).decode()))
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, SECRET):
            return JSONResponse({"error": "invalid_client"}, 401)
        return JSONResponse({"access_token": self.sign(**self.changes), "token_type": "Bearer", "expires_in": 300})


@contextlib.contextmanager
def running_provider(authority: Authority | None = None) -> Iterator[Provider]:
    """Serve a provider on loopback, in a thread; with TLS if there is an authority."""
    listener = socket.create_server(("127.0.0.1", 0))
    place = f"127.0.0.1:{listener.getsockname()[1]}"
    provider = Provider(f"http://{place}" if authority is None else f"https://{place}")
    cert, key = (None, None) if authority is None else authority.issue("provider")
    config = uvicorn.Config(provider.app, log_level="error", lifespan="off", ssl_certfile=cert, ssl_keyfile=key)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield provider
    finally:
        provider.answers.set()
        server.should_exit = True
        thread.join()
        listener.close()
