"""The promises that every store of schedules keeps."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.databases import transaction

from hearth.models.app import App
from hearth.models.errors import AppsNotFound, SchedulesAlreadyExists, SchedulesNotFound, SchedulesTooMany
from hearth.models.schedule import Definition, Firing, FiringState, Schedule, schedule_of
from hearth.models.times import ZERO
from hearth.models.timing import Timing
from hearth.stores.datastore import Datastore
from hearth.stores.schedules.base import Claim
from hearth.stores.sql import open_datastore

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
HOURLY = Definition(
    function="/f", timing=Timing(cron="0 * * * *"), payload="ä\0\U0001f525", headers={"X-A": ["1", "é"]}
)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Datastore]:
    opened = await open_datastore(database)
    for name in ("a", "b"):
        await opened.insert_app(App(name=name, id=f"id-{name}"))
    yield opened
    await opened.close()


async def put(store: Datastore, name: str = "s", app: str = "a", definition: Definition = HOURLY) -> Schedule:
    return await store.put_schedule(
        app, name, lambda app_id, stored: schedule_of(definition, app, app_id, name, stored, f"{app}-{name}", NOW)
    )


def firing(schedule: Schedule, due: dt.datetime, number: int = 1) -> Firing:
    return Firing(
        schedule_id=schedule.id,
        due=due,
        app_name=schedule.app_name,
        call_id=f"call-{number}",
        state=FiringState.CLAIMED,
        claimed_at=due,
    )


async def claim(store: Datastore, schedule: Schedule, due: dt.datetime, number: int = 1) -> list[Firing]:
    (claimed,) = await store.claim_firings([Claim(schedule, (firing(schedule, due, number),), due + HOUR, due)])
    return claimed


async def test_a_schedule_is_stored_replaced_listed_and_deleted(store: Datastore) -> None:
    made = await put(store)
    assert await store.get_schedule("a", "s") == made
    await put(store, "r")
    await put(store, "s", "b")
    changed = await put(store, definition=msgspec.structs.replace(HOURLY, payload="other"))
    assert (changed.id, changed.definition.payload, changed.next_at) == (made.id, "other", NOW + HOUR)
    assert [one.name for one in await store.list_schedules("a")] == ["r", "s"]
    await store.remove_schedule("a", "s")
    with pytest.raises(SchedulesNotFound):
        await store.get_schedule("a", "s")
    with pytest.raises(SchedulesNotFound):
        await store.remove_schedule("a", "s")
    assert await store.get_schedule("b", "s")


async def test_a_refused_change_stores_nothing(store: Datastore) -> None:
    def refuse(app_id: str, stored: Schedule | None) -> Schedule:
        raise SchedulesAlreadyExists

    with pytest.raises(SchedulesAlreadyExists):
        await store.put_schedule("a", "s", refuse)
    with pytest.raises(AppsNotFound):
        await put(store, app="none")
    assert await store.list_schedules("a") == []
    with pytest.raises(AppsNotFound):
        await store.list_schedules("none")


async def test_schedules_and_their_firings_end_with_their_app(store: Datastore, database: str) -> None:
    await claim(store, await put(store), NOW + HOUR)
    await claim(store, other := await put(store, app="b"), NOW + HOUR)
    await store.remove_app("a")
    await store.insert_app(App(name="a", id="id-other"))
    assert await store.list_schedules("a") == []
    assert [one.schedule_id for one in await store.stale_firings(NOW + 9 * HOUR, 9)] == [other.id]
    await store.remove_schedule("b", "s")
    async with transaction(database) as connection:
        for table in ("schedules", "firings"):
            assert await connection.scalar(sa.text(f"SELECT COUNT(*) FROM {table}")) == 0


async def test_an_app_of_the_same_name_has_none_of_them(store: Datastore, database: str) -> None:
    await put(store)
    async with transaction(database) as connection:  # as a server does that does not know schedules
        await connection.execute(sa.text("UPDATE apps SET id = 'id-new' WHERE name = 'a'"))
    assert await store.list_schedules("a") == []
    with pytest.raises(SchedulesNotFound):
        await store.get_schedule("a", "s")
    assert (await put(store)).app_id == "id-new"


async def test_the_earliest_schedules_are_due_first(store: Datastore) -> None:
    assert await store.next_due() is None
    await put(store, "hourly")
    await put(store, "soon", definition=Definition(function="/f", timing=Timing(every="90s")))
    await put(store, "off", definition=msgspec.structs.replace(HOURLY, enabled=False))
    assert await store.next_due() == NOW + dt.timedelta(seconds=90)
    assert [one.name for one in await store.due_schedules(NOW + HOUR, 9)] == ["soon", "hourly"]
    assert [one.name for one in await store.due_schedules(NOW + HOUR, 1)] == ["soon"]
    assert await store.due_schedules(NOW, 9) == []


async def test_of_many_claims_of_a_firing_one_succeeds(store: Datastore) -> None:
    schedules = [await put(store, f"s{number}") for number in range(70)]  # more than one transaction takes

    async def claim_all(node: int) -> list[list[Firing]]:
        claims = [Claim(one, (firing(one, NOW + HOUR, node),), NOW + 2 * HOUR, NOW + HOUR) for one in schedules]
        return await store.claim_firings(claims)

    found = await asyncio.gather(*[claim_all(node) for node in range(3)])
    assert [sum(len(claimed[number]) for claimed in found) for number in range(70)] == [1] * 70
    stored = await store.get_schedule("a", "s0")
    (winner,) = [claimed[0][0] for claimed in found if claimed[0]]
    assert (stored.next_at, stored.last_due, stored.last_call) == (NOW + 2 * HOUR, NOW + HOUR, winner.call_id)


async def test_a_firing_time_that_was_dealt_with_is_never_claimed_again(store: Datastore) -> None:
    made = await put(store)
    assert await claim(store, made, NOW + HOUR)
    again = msgspec.structs.replace(await store.get_schedule("a", "s"))
    assert await store.claim_firings([Claim(again, (), NOW + HOUR, NOW)]) == [[]]  # the clock was set back
    back = await store.get_schedule("a", "s")
    assert back.next_at == NOW + HOUR
    assert await claim(store, back, NOW + HOUR, 2) == []
    assert (await store.get_schedule("a", "s")).next_at == NOW + 2 * HOUR
    assert [one.call_id for one in await store.stale_firings(NOW + 9 * HOUR, 9)] == ["call-1"]


async def test_a_claim_of_a_schedule_that_was_changed_or_deleted_fails(store: Datastore) -> None:
    paused, gone = await put(store, "paused"), await put(store, "gone")
    await put(store, "paused", definition=msgspec.structs.replace(HOURLY, enabled=False))
    await store.remove_schedule("a", "gone")
    assert await claim(store, paused, NOW + HOUR) == await claim(store, gone, NOW + HOUR) == []
    assert (await store.get_schedule("a", "paused")).next_at == ZERO
    assert await store.stale_firings(NOW + 9 * HOUR, 9) == []


async def test_a_stale_firing_is_taken_over_once_and_a_settled_one_never(store: Datastore) -> None:
    made = await put(store)
    (claimed,) = await claim(store, made, NOW + HOUR)
    assert await store.stale_firings(NOW + HOUR, 9) == []
    later = NOW + 2 * HOUR
    (stale,) = await store.stale_firings(later, 9)
    assert stale == claimed
    taken = await asyncio.gather(*[store.take_over(stale, later + dt.timedelta(seconds=n)) for n in range(3)])
    assert [one.id for one in taken if one is not None] == [made.id]
    await store.settle_firings([msgspec.structs.replace(claimed, state=FiringState.FAILED, error="why\ufffd")])
    assert await store.stale_firings(later + 9 * HOUR, 9) == []
    assert await store.take_over(stale, later) is None


async def test_a_stale_firing_of_a_deleted_schedule_goes(store: Datastore, database: str) -> None:
    (claimed,) = await claim(store, await put(store), NOW + HOUR)
    async with transaction(database) as connection:
        await connection.execute(sa.text("DELETE FROM schedules"))
    assert await store.take_over(claimed, NOW + 2 * HOUR) is None
    assert await store.stale_firings(NOW + 9 * HOUR, 9) == []


async def test_old_settled_firings_are_removed_a_few_at_a_time(store: Datastore) -> None:
    made = await put(store)
    states = [FiringState.ACCEPTED, FiringState.SKIPPED, FiringState.FAILED, FiringState.CLAIMED]
    for number, state in enumerate(states, 1):
        schedule = await store.get_schedule("a", "s")
        (claimed,) = await claim(store, schedule, NOW + number * HOUR, number)
        await store.settle_firings([msgspec.structs.replace(claimed, state=state)])
    assert made.id == schedule.id
    assert await store.remove_firings(NOW + 2 * HOUR, 9) == 1
    assert await store.remove_firings(NOW + 99 * HOUR, 1) == 1
    assert await store.remove_firings(NOW + 99 * HOUR, 9) == 1
    assert len(await store.stale_firings(NOW + 99 * HOUR, 9)) == 1  # nobody has settled it


async def test_schedules_that_a_later_clock_planned_are_found(store: Datastore) -> None:
    made = await put(store)
    await claim(store, made, NOW + HOUR)
    assert [one.name for one in await store.schedules_ahead(NOW, 9)] == ["s"]
    assert await store.schedules_ahead(NOW + HOUR, 9) == []


async def test_an_app_has_a_limit_of_schedules(
    store: Datastore, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hearth.stores.schedules.sql.MAX_SCHEDULES", 2)
    for name in ("s1", "s2", "s1"):
        await put(store, name)
    with pytest.raises(SchedulesTooMany):
        await put(store, "s3")
    await put(store, "s3", "b")


async def test_a_definition_that_cannot_be_read_never_fires(store: Datastore, database: str) -> None:
    await put(store)
    async with transaction(database) as connection:
        await connection.execute(sa.text("UPDATE schedules SET definition = '{'"))
    (found,) = await store.due_schedules(NOW + HOUR, 9)
    assert found.definition.timing.after(NOW, NOW) is None
