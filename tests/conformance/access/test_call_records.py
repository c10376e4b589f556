"""What every implementation of the call records does."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.stored_worlds import KINDS, World, opened_world

from hearth.access.base import AlreadyStarted, EndedCall
from hearth.models.call import CANCELLED, ERROR, QUEUED, RUNNING, STAT_NAMES, SUCCESS, TIMEOUT, Call, Stat
from hearth.models.errors import ApiError, StoreRefused
from hearth.models.function import ASYNC, SYNC

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
TICK = dt.timedelta(milliseconds=1)
LOG = bytes(range(256))


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with opened_world(request.param, database, tmp_path) as opened:
        yield opened


def call(call_id: str, status: str, **fields: Any) -> Call:
    return Call(id=call_id, app_name="app", path="/p", image="i", status=status, created_at=NOW, **fields)


def running(call_id: str, after: int = 1) -> Call:
    return call(call_id, RUNNING, type=ASYNC, started_at=NOW + after * TICK)


def ended(call_id: str, status: str = SUCCESS, log: bytes = LOG, **fields: Any) -> EndedCall:
    times = {"started_at": NOW + TICK, "completed_at": NOW + 2 * TICK}
    return EndedCall(call(call_id, status, **{"type": ASYNC, **times, **fields}), log)


async def statuses(world: World, *call_ids: str) -> list[str]:
    return [(await world.stores.call(call_id)).status for call_id in call_ids]


async def test_records_and_logs_of_many_calls_are_stored(world: World) -> None:
    stats = [Stat(NOW, dict.fromkeys(STAT_NAMES, 1))]
    whole = ended("2", TIMEOUT, error="it took too long", stats=stats, response_status=504, type=SYNC)
    await world.records.finish_many([ended("1"), whole, ended("3", ERROR, b"")])
    assert await statuses(world, "1", "2", "3") == [SUCCESS, TIMEOUT, ERROR]
    assert [await world.stores.log(call_id) for call_id in ("1", "2", "3")] == [LOG, LOG, b""]
    stored = await world.stores.call("2")
    assert (stored.error, stored.stats, stored.response_status) == ("it took too long", stats, 504)
    assert (stored.created_at, stored.started_at, stored.completed_at) == (NOW, NOW + TICK, NOW + 2 * TICK)


@pytest.mark.parametrize("type_name", [SYNC, ASYNC])
async def test_storing_an_end_again_changes_nothing(world: World, type_name: str) -> None:
    for _ in range(2):
        await world.records.finish_many([ended("1", type=type_name)])
    assert await statuses(world, "1") == [SUCCESS]
    assert await world.stores.log("1") == LOG


async def test_the_first_end_of_an_accepted_call_stays(world: World) -> None:
    await world.records.finish_many([ended("1")])
    await world.records.finish_many([ended("1", ERROR, b"another node", error="another node"), ended("2")])
    assert await statuses(world, "1", "2") == [SUCCESS, SUCCESS]
    assert (await world.stores.call("1")).error == ""
    assert await world.stores.log("1") == LOG


async def test_the_last_log_of_a_sync_call_is_stored(world: World) -> None:
    await world.records.finish_many([ended("1", log=b"some", type=SYNC), ended("1", log=b"some and more", type=SYNC)])
    assert await world.stores.log("1") == b"some and more"


async def test_one_of_many_starts_of_a_call_succeeds(world: World) -> None:
    starts = [world.records.start(running("1", number)) for number in range(5)]
    outcomes = await asyncio.gather(*starts, return_exceptions=True)
    assert outcomes.count(None) == 1
    assert [outcome.status for outcome in outcomes if isinstance(outcome, AlreadyStarted)] == [RUNNING] * 4
    assert (await world.stores.call("1")).started_at == NOW + outcomes.index(None) * TICK


async def test_a_queued_call_is_started_and_then_ended(world: World) -> None:
    await world.stores.datastore.add_calls([call("1", QUEUED, type=ASYNC)])
    await world.records.start(running("1"))
    assert await statuses(world, "1") == [RUNNING]
    await world.records.finish_many([ended("1")])
    assert await statuses(world, "1") == [SUCCESS]


async def test_a_call_that_has_ended_is_not_started(world: World) -> None:
    await world.records.finish_many([ended("1")])
    with pytest.raises(AlreadyStarted) as raised:
        await world.records.start(running("1"))
    assert raised.value.status == SUCCESS
    assert await statuses(world, "1") == [SUCCESS]


async def test_an_interrupted_call_ends_with_the_times_of_its_record(world: World) -> None:
    await world.records.start(running("1", 7))
    end = call("1", ERROR, type=ASYNC, error="the node died", completed_at=NOW + 9 * TICK)
    await world.records.interrupted(end)
    stored = await world.stores.call("1")
    assert (stored.status, stored.error, stored.completed_at) == (ERROR, "the node died", NOW + 9 * TICK)
    assert (stored.created_at, stored.started_at) == (NOW, NOW + 7 * TICK)


async def test_an_interrupted_call_does_not_end_before_it_started(world: World) -> None:
    """The clock of the node that ends it may be behind that of the node that died."""
    await world.records.start(running("1", 7))
    await world.records.interrupted(call("1", ERROR, type=ASYNC, error="the node died", completed_at=NOW - TICK))
    stored = await world.stores.call("1")
    assert (stored.started_at, stored.completed_at) == (NOW + 7 * TICK, NOW + 7 * TICK)


@pytest.mark.parametrize("status", [QUEUED, SUCCESS])
async def test_only_a_running_call_can_be_interrupted(world: World, status: str) -> None:
    if status == QUEUED:
        await world.stores.datastore.add_calls([call("1", QUEUED, type=ASYNC)])
    else:
        await world.records.finish_many([ended("1")])
    await world.records.interrupted(call("1", ERROR, type=ASYNC, error="the node died"))
    stored = await world.stores.call("1")
    assert (stored.status, stored.error) == (status, "")


async def test_a_node_knows_which_of_its_calls_were_cancelled(world: World) -> None:
    for call_id in ("1", "2"):
        await world.records.start(running(call_id))
    assert await world.records.cancelled(["1", "2"]) == set()
    await world.stores.datastore.cancel_call("app", "1", lambda stored: ended(stored.id, CANCELLED).call)
    assert await world.records.cancelled(["1", "2", "3"]) == {"1"}
    with pytest.raises(AlreadyStarted) as found:
        await world.records.start(running("1", 2))
    assert found.value.status == CANCELLED
    await world.records.finish_many([ended("1", CANCELLED, b"what it wrote")])
    assert await world.stores.log("1") == b"what it wrote"


@pytest.mark.parametrize("unreadable", [False, True])
async def test_a_call_that_is_dead_is_kept_with_its_payload(world: World, unreadable: bool) -> None:
    kept: dict[str, Any] = {"payload": bytes(range(256)) * 1000, "headers": {"X": ["y"]}, "unreadable": unreadable}
    await world.records.finish_many([ended("1", ERROR, dead=True, **kept), ended("2", ERROR, payload=b"gone")])
    letter, payload = await world.stores.datastore.get_dead_letter("app", "1")
    assert (payload, letter.call.headers, letter.call.unreadable) == (kept["payload"], {"X": ["y"]}, unreadable)
    assert [(await world.stores.call(call_id)).dead for call_id in "12"] == [True, False]


async def test_a_call_without_a_record_cannot_be_interrupted(world: World) -> None:
    with pytest.raises(ApiError) as raised:
        await world.records.interrupted(call("1", ERROR, type=ASYNC))
    assert raised.value.code == 404


async def test_an_end_that_the_store_never_takes_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put_calls = world.stores.datastore.put_calls

    async def picky(calls: list[tuple[Call, bytes | None]]) -> list[bool]:
        if any(one.id == "bad" for one, _ in calls):
            raise StoreRefused("no")
        return await put_calls(calls)

    monkeypatch.setattr(world.stores.datastore, "put_calls", picky)
    with pytest.raises(StoreRefused):
        await world.records.finish_many([ended("bad")])
    await world.records.finish_many([ended("1")])
    assert await statuses(world, "1") == [SUCCESS]


async def test_a_node_with_room_says_so(world: World) -> None:
    await world.records.check()
    assert world.records.has_room


async def test_what_the_caller_passes_is_not_changed(world: World) -> None:
    one = ended("1")
    before = msgspec.structs.replace(one.call)
    await world.records.finish_many([one])
    assert one.call == before


async def handed_over(world: World, calls: list[EndedCall]) -> bool:
    """Hand calls over without a task, if that is possible; return whether it was. Raises what is called back."""
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    if world.records.submit is None or not world.records.submit(calls, done.set_result):
        return False
    assert not done.done()
    if (error := await done) is not None:
        raise error
    return True


async def test_sync_calls_that_are_handed_over_are_stored(world: World) -> None:
    some, more = [ended("2", log=log, type=SYNC) for log in (b"some", b"some and more")]
    if not await handed_over(world, [some, ended("1", ERROR, b"", type=SYNC, error="no"), more]):
        assert world.records.submit is None
        pytest.skip("these records can only be waited for")
    assert await statuses(world, "1", "2") == [ERROR, SUCCESS]
    assert [await world.stores.log(call_id) for call_id in ("1", "2")] == [b"", b"some and more"]
    stored = await world.stores.call("2")
    assert (stored.created_at, stored.started_at, stored.completed_at) == (NOW, NOW + TICK, NOW + 2 * TICK)
    bad = ended("3", type=SYNC)
    bad.call.path = None  # type: ignore[assignment]
    with pytest.raises(StoreRefused):
        await handed_over(world, [ended("4", type=SYNC), bad])
    assert await handed_over(world, [ended("5", type=SYNC)])
    assert await statuses(world, "5") == [SUCCESS]
    for missing in ("3", "4"):
        with pytest.raises(ApiError):
            await world.stores.call(missing)


async def test_async_calls_are_never_handed_over(world: World) -> None:
    assert not await handed_over(world, [ended("1", type=SYNC), ended("2")])
    with pytest.raises(ApiError):
        await world.stores.call("1")
