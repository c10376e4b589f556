"""The promises that every store of tokens keeps."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
from collections.abc import AsyncIterator

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.databases import plain

from hearth.models.errors import StoreRefused, StoreUnavailable, TokensNotFound
from hearth.models.principal import Role
from hearth.models.times import ZERO
from hearth.models.token import Token
from hearth.stores.sql import open_datastore
from hearth.stores.tokens.base import TokenFilter, TokenStore

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)


@pytest.fixture
async def store(database: str) -> AsyncIterator[TokenStore]:
    opened = await open_datastore(database)
    yield opened
    await opened.close()


def made(number: int, **fields: object) -> Token:
    token = Token(
        id=f"{number:026}",
        name="ci ü",
        role=Role.DEPLOYER,
        apps=("a", "b"),
        digest=hashlib.sha256(str(number).encode()).hexdigest(),
        created_at=NOW,
        expires_at=NOW + dt.timedelta(days=1),
    )
    return msgspec.structs.replace(token, **fields)


async def test_what_was_stored_comes_back_by_id_and_by_digest(store: TokenStore) -> None:
    for token in (made(1), made(2, apps=(), role=Role.ADMIN, expires_at=ZERO)):
        await store.insert_token(token)
        assert await store.get_token(token.id) == token
        assert await store.find_token(token.digest) == token


async def test_a_digest_finds_its_own_token_only(store: TokenStore) -> None:
    for number in range(40):
        await store.insert_token(made(number))
    wanted = [made(number) for number in range(60)]
    found = await asyncio.gather(*[store.find_token(token.digest) for token in wanted])
    assert found == [*wanted[:40], *[None] * 20]
    for near in ("", made(1).digest.upper(), made(1).digest[:-1], made(1).digest + " "):
        assert await store.find_token(near) is None


async def test_a_digest_is_stored_once(store: TokenStore) -> None:
    await store.insert_token(made(1))
    for again in (made(1), made(2, digest=made(1).digest)):
        with pytest.raises((StoreRefused, StoreUnavailable)):
            await store.insert_token(again)
    assert await store.get_tokens(TokenFilter()) == [made(1)]


async def test_a_removed_token_is_gone(store: TokenStore) -> None:
    await store.insert_token(made(1))
    await store.insert_token(made(2))
    await store.remove_token(made(1).id)
    assert await store.find_token(made(1).digest) is None
    with pytest.raises(TokensNotFound):
        await store.get_token(made(1).id)
    with pytest.raises(TokensNotFound):
        await store.remove_token(made(1).id)
    assert await store.get_tokens(TokenFilter()) == [made(2)]


async def test_of_many_who_remove_a_token_one_does(store: TokenStore) -> None:
    await store.insert_token(made(1))
    outcomes = await asyncio.gather(*[store.remove_token(made(1).id) for _ in range(5)], return_exceptions=True)
    assert sorted(map(repr, outcomes)) == ["None", *[repr(TokensNotFound())] * 4]


async def test_tokens_are_listed_by_id_and_in_pages(store: TokenStore) -> None:
    for number in (3, 1, 2):
        await store.insert_token(made(number))
    assert await store.get_tokens(TokenFilter()) == [made(1), made(2), made(3)]
    assert await store.get_tokens(TokenFilter(cursor=made(1).id, per_page=1)) == [made(2)]
    assert await store.get_tokens(TokenFilter(cursor=made(3).id)) == []


async def test_the_last_use_moves_forward_only(store: TokenStore) -> None:
    await store.insert_token(made(1))
    later = NOW + dt.timedelta(hours=2)
    for at in (NOW, later, NOW):
        await store.note_token_use(made(1).id, at)
    assert (await store.get_token(made(1).id)).last_used_at == later
    await store.note_token_use("unknown", NOW)
    assert await store.get_tokens(TokenFilter()) == [made(1, last_used_at=later)]


@pytest.mark.parametrize(
    ("column", "value"), [("apps", ""), ("role", "owner"), ("apps", '"a"'), ("expires_at", "soon")]
)
async def test_a_row_that_cannot_be_read_gives_no_right(
    store: TokenStore, database: str, column: str, value: str
) -> None:
    await store.insert_token(made(1))
    table = sa.table("tokens", sa.column(column))
    async with plain(database) as engine, engine.begin() as connection:
        await connection.execute(sa.update(table).values({column: value}))
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await store.find_token(made(1).digest)
    await store.remove_token(made(1).id)
