"""The promises that every store of idempotency keys keeps."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.databases import plain

from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.call_result import CallResult
from hearth.models.errors import StoreUnavailable
from hearth.models.idempotency import LEASE_S, Claim, KeyEnd, KeyState, StoredKey, later
from hearth.stores.datastore import Datastore
from hearth.stores.keys import sql as keys
from hearth.stores.sql import open_datastore

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
TTL_S = 60
CLAIM = Claim(id="1" * 64, app_name="app", call_id="A", fingerprint="f" * 64, is_sync=True, ttl_s=TTL_S)
AGAIN = msgspec.structs.replace(CLAIM, call_id="B")
OTHER = msgspec.structs.replace(AGAIN, fingerprint="e" * 64)
RESULT = CallResult(
    status=201,
    headers=(("X-A", "b"), ("X-A", "é")),
    body=b"\x00\xff" * 5,
    of_route=(("x-route", "r"),),
    waited_s=0.5,
    error="it's \0",
    expires_at=later(NOW, TTL_S),
)


@pytest.fixture
async def stores(database: str) -> AsyncIterator[tuple[Datastore, Datastore]]:
    """The store as two nodes have it."""
    one, two = await open_datastore(database), await open_datastore(database)
    await one.insert_app(App(name="app", created_at=NOW, updated_at=NOW))
    yield one, two
    await one.close()
    await two.close()


def accepting(claim: Claim) -> Claim:
    return msgspec.structs.replace(claim, is_sync=False)


def end(state: KeyState | None, result: CallResult | None = None, call_id: str = "A") -> KeyEnd:
    return KeyEnd(id=CLAIM.id, call_id=call_id, ttl_s=TTL_S, state=state, result=result)


async def test_of_many_claims_of_one_key_one_holds_it(stores: tuple[Datastore, Datastore]) -> None:
    claims = [msgspec.structs.replace(CLAIM, call_id=str(number)) for number in range(16)]
    found = await asyncio.gather(*[stores[n % 2].claim_key(claim, NOW) for n, claim in enumerate(claims)])
    (holder,) = [claim.call_id for claim, key in zip(claims, found, strict=True) if key.is_held]
    assert {key.call_id for key in found} == {holder}
    assert {key.state for key in found} == {KeyState.RUNNING}


async def test_many_keys_are_claimed_at_once(stores: tuple[Datastore, Datastore]) -> None:
    claims = [msgspec.structs.replace(CLAIM, id=f"{number:064x}", call_id=str(number)) for number in range(32)]
    found = await asyncio.gather(*[stores[n % 2].claim_key(claim, NOW) for n, claim in enumerate(claims)])
    assert all(key.is_held for key in found)


async def test_a_claim_that_is_made_again_still_holds_the_key(stores: tuple[Datastore, Datastore]) -> None:
    for store in stores:
        assert (await store.claim_key(CLAIM, NOW)).is_held
    assert not (await stores[0].claim_key(AGAIN, NOW)).is_held


async def test_an_answer_is_kept_until_it_expires(stores: tuple[Datastore, Datastore]) -> None:
    one, two = stores
    await one.claim_key(CLAIM, NOW)
    assert await one.end_key(end(KeyState.DONE, RESULT), NOW)
    kept = StoredKey(
        call_id="A",
        fingerprint=CLAIM.fingerprint,
        state=KeyState.DONE,
        result=msgspec.structs.replace(RESULT, error="it's \N{REPLACEMENT CHARACTER}"),
    )
    for claim in (CLAIM, AGAIN):
        assert await two.claim_key(claim, later(NOW, TTL_S - 1)) == kept
    assert (await two.claim_key(OTHER, later(NOW, TTL_S))).is_held, "the key is free, also for another request"
    third = msgspec.structs.replace(AGAIN, call_id="C")
    assert not (await one.claim_key(third, later(NOW, TTL_S))).is_held


async def test_the_answers_of_an_app_are_measured(
    stores: tuple[Datastore, Datastore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "SIZES_AT_ONCE", 2)
    one, two = stores
    large = msgspec.structs.replace(RESULT, body=b"x" * 1000)
    for number in range(5):
        claim = msgspec.structs.replace(CLAIM, id=f"{number:064x}")
        await one.claim_key(claim, NOW)
        await one.end_key(msgspec.structs.replace(end(KeyState.DONE, large), id=claim.id), NOW)
    assert 5000 < await two.key_bytes("app", 100_000) < 10_000
    assert 2000 <= await two.key_bytes("app", 1500) < 5000, "no further than asked for"
    assert await two.key_bytes("nobody", 100_000) == 0


async def test_an_end_is_stored_once_and_by_the_holder(stores: tuple[Datastore, Datastore]) -> None:
    one, two = stores
    await one.claim_key(CLAIM, NOW)
    assert not await two.end_key(end(KeyState.TOO_LARGE, call_id="B"), NOW)
    assert await two.end_key(end(KeyState.TOO_LARGE), NOW)
    assert not await one.end_key(end(None), NOW)
    assert (await one.claim_key(AGAIN, NOW)).state is KeyState.TOO_LARGE


async def test_a_request_without_effect_frees_its_key(stores: tuple[Datastore, Datastore]) -> None:
    one, two = stores
    await one.claim_key(CLAIM, NOW)
    assert await one.end_key(end(None), NOW)
    assert (await two.claim_key(OTHER, NOW)).is_held


async def test_a_claim_that_nobody_renews_is_interrupted(stores: tuple[Datastore, Datastore]) -> None:
    one, two = stores
    await one.claim_key(CLAIM, NOW)
    renewed = later(NOW, LEASE_S - 1)
    await one.renew_keys([("2" * 64, "A"), (CLAIM.id, "A"), (CLAIM.id, "B")], renewed)
    assert (await two.claim_key(AGAIN, later(NOW, LEASE_S))).state is KeyState.RUNNING
    over = later(renewed, LEASE_S)
    assert (await two.claim_key(OTHER, over)).state is KeyState.RUNNING, "nobody is to learn of other requests"
    assert (await two.claim_key(AGAIN, over)).state is KeyState.INTERRUPTED
    assert not await one.end_key(end(KeyState.DONE, RESULT), over), "somebody was told of the interruption"
    assert (await two.claim_key(AGAIN, over)).state is KeyState.INTERRUPTED
    assert (await two.claim_key(AGAIN, later(over, TTL_S))).is_held


async def test_a_call_that_was_being_accepted_is_accepted_by_the_next_request(
    stores: tuple[Datastore, Datastore],
) -> None:
    one, two = stores
    await one.claim_key(accepting(CLAIM), NOW)
    over = later(NOW, LEASE_S)
    assert not (await two.claim_key(accepting(AGAIN), NOW)).is_held
    assert not (await two.claim_key(accepting(OTHER), over)).is_held
    found = await two.claim_key(accepting(AGAIN), over)
    assert (found.is_held, found.call_id, found.is_accepted) == (True, "A", False)
    assert await two.end_key(end(KeyState.ACCEPTING), over), "nobody knows whether it is in the queue"
    await one.add_calls([Call(id="A", app_name="app", path="/f", type="async", status="queued", created_at=NOW)])
    found = await one.claim_key(accepting(AGAIN), over)
    assert (found.is_held, found.call_id, found.is_accepted) == (True, "A", True)
    assert await one.end_key(end(KeyState.DONE, RESULT), over)


async def test_expired_keys_are_removed_and_those_of_running_requests_stay(
    stores: tuple[Datastore, Datastore],
) -> None:
    store, _ = stores
    running = msgspec.structs.replace(CLAIM, id="2" * 64)
    for claim in (CLAIM, running):
        await store.claim_key(claim, NOW)
    await store.end_key(end(KeyState.DONE, RESULT), NOW)
    late = later(NOW, TTL_S + LEASE_S + 1)
    assert await store.remove_keys(later(NOW, TTL_S - 1), 10) == 0
    await store.renew_keys([(running.id, "A")], late)
    assert [await store.remove_keys(late, 10) for _ in range(2)] == [1, 0]
    assert not (await store.claim_key(msgspec.structs.replace(running, call_id="B"), late)).is_held
    assert [await store.remove_keys(later(late, LEASE_S + 1), 1) for _ in range(2)] == [1, 0]


async def test_a_removed_app_takes_its_keys(stores: tuple[Datastore, Datastore]) -> None:
    store, _ = stores
    await store.claim_key(CLAIM, NOW)
    await store.remove_app("app")
    assert (await store.claim_key(AGAIN, NOW)).is_held


@pytest.mark.parametrize("change", ["state = 'unknown'", "head = '{'"])
async def test_a_key_that_cannot_be_read_runs_nothing(
    stores: tuple[Datastore, Datastore], database: str, change: str
) -> None:
    store, _ = stores
    await store.claim_key(CLAIM, NOW)
    await store.end_key(end(KeyState.DONE, RESULT), NOW)
    async with plain(database) as engine, engine.begin() as connection:
        await connection.execute(sa.text(f"UPDATE idempotency_keys SET {change}"))
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await store.claim_key(AGAIN, NOW)
