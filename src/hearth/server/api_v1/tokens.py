"""The stored tokens of the API: /v1/tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from hearth.aio.clock import Clock
from hearth.authorize.rules import Action
from hearth.authorize.tokens import digest, new_token
from hearth.models.errors import Forbidden, TokensNotFound
from hearth.models.principal import Principal
from hearth.models.token import Token, validate_token
from hearth.server.api_v1 import decode
from hearth.server.api_v1.encode import key_cursor, token_json
from hearth.server.api_v1.request import ApiRequest
from hearth.server.audit import concerns
from hearth.stores.tokens.base import TokenFilter, TokenStore


class Tokens:
    """The operations on tokens. Administrators of some apps see and create tokens of these apps only.

    Args:
        next_id: Returns a new id.
        forget: Awaited with the id of a token that was revoked: from then on this node refuses it.
    """

    def __init__(
        self, store: TokenStore, clock: Clock, next_id: Callable[[], str], forget: Callable[[str], Awaitable[None]]
    ) -> None:
        self._store = store
        self._clock = clock
        self._next_id = next_id
        self._forget = forget

    async def list(self, request: ApiRequest) -> dict[str, Any]:
        """Return a page of tokens, oldest first, without their values."""
        page = decode.per_page(request.query("per_page"))
        found: list[Token] = []
        async for token in self._seen(request.principal, decode.cursor(request.query("cursor")), page):
            found.append(token)
            if len(found) == page:
                break
        return {
            "message": "Successfully listed tokens",
            "next_cursor": key_cursor([token.id for token in found], page),
            "tokens": [token_json(token) for token in found],
        }

    async def _seen(self, principal: Principal, cursor: str, page: int) -> AsyncIterator[Token]:
        while True:
            stored = await self._store.get_tokens(TokenFilter(cursor=cursor, per_page=page))
            for token in stored:
                if _reaches(principal, token):
                    yield token
            if len(stored) < page:
                return
            cursor = stored[-1].id

    async def create(self, request: ApiRequest) -> dict[str, Any]:
        """Create a token. Only this answer has its value."""
        value = new_token()
        asked = decode.token(await request.body())
        token = Token(
            id=self._next_id(),
            name=asked.name,
            role=asked.role,
            apps=tuple(sorted(set(asked.apps))),
            digest=digest(value.encode()),
            created_at=self._clock.now(),
            expires_at=asked.expires_at,
        )
        validate_token(token)
        if not _reaches(request.principal, token):
            raise Forbidden(request.principal.role, Action.TOKENS_WRITE, request.principal.apps)
        await self._store.insert_token(token)
        concerns(request.http.scope, name=token.id)
        shown = token_json(token)
        del shown["last_used_at"]
        return {"message": "Token successfully created", "token": {**shown, "value": value}}

    async def remove(self, request: ApiRequest) -> dict[str, Any]:
        """Revoke a token: at once on this node, within 5 s on others."""
        if not _reaches(request.principal, await self._store.get_token(request.token)):
            raise TokensNotFound
        await self._store.remove_token(request.token)
        await self._forget(request.token)
        return {"message": "Token revoked"}


def _reaches(principal: Principal, token: Token) -> bool:
    """Return whether a token has no more apps than a principal."""
    return not principal.apps or (bool(token.apps) and principal.apps.issuperset(token.apps))
