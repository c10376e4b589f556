"""Tokens in SQL."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from hearth.models.errors import StoreUnavailable, TokensNotFound
from hearth.models.principal import Role
from hearth.models.times import format_time
from hearth.models.token import Token
from hearth.sql.coalesce import Coalescer, padded
from hearth.sql.database import Database, Read, Steps, Write
from hearth.sql.fields import Fields
from hearth.sql.query import ALL, Query, Row, number, param
from hearth.sql.schema.tables import tokens
from hearth.stores.tokens.base import TokenFilter, TokenStore
from hearth.telemetry.node import Telemetry

_IS: Final = tokens.c.id == param("key_id")
_INSERT: Final = Query(sa.insert(tokens))
_DELETE: Final = Query(sa.delete(tokens).where(_IS))
_USE: Final = Query(
    sa.update(tokens)
    .where(_IS, tokens.c.last_used_at < param("last_used_at"))
    .values(last_used_at=param("last_used_at"))
)
_ONE: Final = Query(sa.select(tokens).where(_IS))
_ONE_LOCKED: Final = Query(sa.select(tokens.c.id).where(_IS).with_for_update())
_PAGE: Final = Query(sa.select(tokens).where(tokens.c.id > param("cursor")).order_by(tokens.c.id).limit(number("most")))
_APPS: Final = msgspec.json.Decoder(tuple[str, ...])
_APPS_JSON: Final = msgspec.json.Encoder()


class SqlTokens(TokenStore):
    """Tokens in one database. Digests that are asked for at the same time are read together."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._span = telemetry.tracing.span
        self._database = database
        self._digests: Coalescer[str, Token | None] = Coalescer(self._load_tokens)

    async def finish(self) -> None:
        """Wait for what was asked for."""
        await self._digests.close()

    async def insert_token(self, token: Token) -> None:
        """Store a new token."""

        def steps() -> Steps[None]:
            yield Write(_INSERT, [_from_token(token)])

        with self._span("ds_insert_token"):
            await self._database.transaction(steps)

    async def find_token(self, digest: str) -> Token | None:
        """Read the token of a digest, together with others."""
        if "\0" in digest:  # PostgreSQL takes no such text, and refuses it together with the others
            return None
        with self._span("ds_get_token"):
            return await self._digests.run(digest)

    async def _load_tokens(self, digests: list[str]) -> Sequence[Token | Exception | None]:
        wanted = padded(digests)
        params = {f"d{n}": digest for n, digest in enumerate(wanted)}
        found = {row["digest"]: _read(row) for row in await self._database.query(_by_digest(len(wanted)), **params)}
        return [found.get(digest) for digest in digests]

    async def get_token(self, token_id: str) -> Token:
        """Read a token."""
        with self._span("ds_get_token"):
            found = await self._database.query(_ONE, key_id=token_id)
        if not found:
            raise TokensNotFound
        return _to_token(found[0])

    async def get_tokens(self, which: TokenFilter) -> list[Token]:
        """Read tokens by id."""
        with self._span("ds_get_tokens"):
            found = await self._database.query(_PAGE, cursor=which.cursor, most=which.per_page or ALL)
        return [_to_token(row) for row in found]

    async def remove_token(self, token_id: str) -> None:
        """Delete a token."""

        def steps() -> Steps[None]:
            if not (yield Read(_ONE_LOCKED, {"key_id": token_id})):
                raise TokensNotFound
            yield Write(_DELETE, [{"key_id": token_id}])

        with self._span("ds_remove_token"):
            await self._database.transaction(steps)

    async def note_token_use(self, token_id: str, at: dt.datetime) -> None:
        """Store when it was used, if that is later."""

        def steps() -> Steps[None]:
            yield Write(_USE, [{"key_id": token_id, "last_used_at": format_time(at)}])

        with self._span("ds_update_token"):
            await self._database.transaction(steps)


@functools.cache
def _by_digest(size: int) -> Query:
    return Query(sa.select(tokens).where(tokens.c.digest.in_([param(f"d{n}") for n in range(size)])))


def _from_token(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "apps": _APPS_JSON.encode(token.apps).decode(),  # never an empty text, which could be taken for all apps
        "digest": token.digest,
        "created_at": format_time(token.created_at),
        "last_used_at": format_time(token.last_used_at),
        "expires_at": format_time(token.expires_at),
    }


def _read(row: Row) -> Token | StoreUnavailable:
    try:
        return _to_token(row)
    except StoreUnavailable as exc:
        return exc


def _to_token(row: Row) -> Token:
    """Return a row as a token. One that cannot be read whole gives no right to anything.

    Raises:
        StoreUnavailable: A column cannot be read.
    """
    fields = Fields(row)
    try:
        token = Token(
            id=fields.text("id"),
            name=fields.text("name"),
            role=Role(fields.text("role")),
            apps=_APPS.decode(fields.text("apps")),
            digest=fields.text("digest"),
            created_at=fields.time("created_at"),
            last_used_at=fields.time("last_used_at"),
            expires_at=fields.time("expires_at"),
        )
    except ValueError as exc:
        raise StoreUnavailable(f"the stored token {fields.text('id')} cannot be read") from exc
    if fields.unreadable:
        raise StoreUnavailable(f"the stored token {token.id} cannot be read: {', '.join(fields.unreadable)}")
    return token
