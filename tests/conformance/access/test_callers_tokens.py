"""What every source of tokens does: of a node with a database, and of a runner over HTTP."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.support.stored_worlds import World, opened_world

from hearth.aio.clock import SystemClock
from hearth.authorize.stored_tokens import StoredTokens
from hearth.authorize.tokens import digest, new_token
from hearth.models.errors import StoreUnavailable
from hearth.models.ids import encode
from hearth.models.principal import Principal, Role
from hearth.models.times import ZERO
from hearth.models.token import Token

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
VALUE = new_token()


@pytest.fixture(params=["local", "remote"])
async def world(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with opened_world(request.param, database, tmp_path) as opened:
        yield opened


async def store(world: World, value: str = VALUE, *, expires_at: dt.datetime = ZERO) -> Token:
    token = Token(
        id=encode(1),
        name="shop über",
        role=Role.INVOKER,
        apps=("a", "b"),
        digest=digest(value.encode()),
        created_at=NOW,
        expires_at=expires_at,
    )
    await world.stores.datastore.insert_token(token)
    return token


async def test_a_token_is_found_by_its_digest_with_all_that_it_gives(world: World) -> None:
    token = await store(world, expires_at=NOW.replace(year=2999))
    found = await world.tokens.find_token(token.digest)
    assert found is not None
    assert (found.id, found.role, found.apps) == (token.id, Role.INVOKER, ("a", "b"))
    assert found.principal == Principal(Role.INVOKER, frozenset({"a", "b"}), token.id, "shop über")
    assert (found.created_at, found.expires_at) == (NOW, NOW.replace(year=2999))


@pytest.mark.parametrize("text", [digest(b"other"), "0" * 64])
async def test_a_digest_of_no_token_finds_none(world: World, text: str) -> None:
    await store(world)
    assert await world.tokens.find_token(text) is None


async def test_a_token_that_was_revoked_is_not_found_by_the_next_look(world: World) -> None:
    token = await store(world)
    assert await world.tokens.find_token(token.digest) is not None
    await world.stores.datastore.remove_token(token.id)
    assert await world.tokens.find_token(token.digest) is None


async def test_a_caller_is_found_and_its_use_is_stored(world: World) -> None:
    """The API node of a runner notes the use; the node of a database does so itself."""
    await store(world)
    datastore = world.stores.datastore
    noted = asyncio.Event()

    async def note_use(token_id: str, at: dt.datetime) -> None:
        await datastore.note_token_use(token_id, at)
        noted.set()

    is_local = world.tokens is datastore
    tokens = StoredTokens(world.tokens.find_token, SystemClock(), note_use if is_local else None)
    try:
        for _ in range(2):
            found = await tokens.find(VALUE.encode())
            assert found is not None
            assert (found.role, found.reaches("b"), found.reaches("c")) == (Role.INVOKER, True, False)
        assert await tokens.find(new_token().encode()) is None
        if is_local:
            await noted.wait()
    finally:
        await tokens.close()
    used = (await datastore.get_token(encode(1))).last_used_at
    assert used.minute == used.second == 0
    assert used > NOW


async def test_an_expired_token_is_no_caller_and_was_not_used(world: World) -> None:
    await store(world, expires_at=NOW.replace(hour=5))
    tokens = StoredTokens(world.tokens.find_token, SystemClock())
    assert await tokens.find(VALUE.encode()) is None
    await tokens.close()
    assert (await world.stores.datastore.get_token(encode(1))).last_used_at == ZERO


async def test_callers_that_come_together_get_their_own_tokens(world: World) -> None:
    token = await store(world)
    digests = [digest(new_token().encode()) for _ in range(250)]
    digests[100] = digests[200] = token.digest
    found = await asyncio.gather(*[world.tokens.find_token(one) for one in digests])
    assert [number for number, one in enumerate(found) if one is not None] == [100, 200]
    assert {one.id for one in found if one is not None} == {token.id}


async def test_a_token_that_cannot_be_read_gives_no_right_and_disturbs_no_other(world: World) -> None:
    """A row that something else has written."""
    token = await store(world)
    bad = new_token()
    unreadable = msgspec.structs.replace(token, id=encode(2), digest=digest(bad.encode()), role="emperor")
    await world.stores.datastore.insert_token(unreadable)
    outcomes = await asyncio.gather(
        *[world.tokens.find_token(one) for one in (unreadable.digest, token.digest, unreadable.digest)],
        return_exceptions=True,
    )
    assert [type(one) for one in outcomes] == [StoreUnavailable, Token, StoreUnavailable]
