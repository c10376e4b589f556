"""Idempotency keys as each kind of node holds them: with a database, and of a runner over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.support.stored_worlds import World, opened_world

from hearth.aio.clock import SystemClock
from hearth.models.app import App
from hearth.models.call_result import CallResult
from hearth.models.idempotency import LEASE_S, Claim, KeyEnd, KeyState, later

CLAIM = Claim(id="1" * 64, app_name="app", call_id="A", fingerprint="f" * 64, is_sync=True, ttl_s=60)
AGAIN = msgspec.structs.replace(CLAIM, call_id="B")


@pytest.fixture(params=["local", "remote"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with opened_world(request.param, f"sqlite3://{tmp_path}/fn.db", tmp_path) as opened:
        await opened.stores.datastore.insert_app(App(name="app"))
        yield opened


async def test_a_key_is_held_and_its_answer_kept_as_it_is(world: World) -> None:
    assert (await world.keys.claim(CLAIM)).is_held
    assert (await world.keys.claim(AGAIN)).state is KeyState.RUNNING
    kept = CallResult(
        status=404,
        headers=(("X", "é"),),
        body=b"\xff\x00",
        of_route=(("x-r", "s"),),
        waited_s=1.5,
        expires_at=SystemClock().now().replace(microsecond=0),
    )
    assert await world.keys.end(KeyEnd(id=CLAIM.id, call_id="A", ttl_s=60, state=KeyState.DONE, result=kept))
    found = await world.keys.claim(AGAIN)
    assert (found.is_held, found.call_id, found.state) == (False, "A", KeyState.DONE)
    assert found.result is not None
    assert found.result.expires_at > kept.expires_at, "it expires when its node says"
    assert msgspec.structs.replace(found.result, expires_at=kept.expires_at) == kept
    assert not await world.keys.end(KeyEnd(id=CLAIM.id, call_id="A", ttl_s=60))


async def test_a_key_is_held_for_longer(world: World) -> None:
    await world.keys.claim(CLAIM)
    await world.keys.renew([(CLAIM.id, "A")])
    held_until = later(SystemClock().now(), LEASE_S)
    assert (await world.stores.datastore.claim_key(AGAIN, later(held_until, 1))).state is KeyState.INTERRUPTED
    assert (await world.keys.claim(AGAIN)).state is KeyState.INTERRUPTED


async def test_a_request_without_effect_frees_its_key(world: World) -> None:
    await world.keys.claim(CLAIM)
    assert await world.keys.end(KeyEnd(id=CLAIM.id, call_id="A", ttl_s=60))
    assert (await world.keys.claim(AGAIN)).is_held
