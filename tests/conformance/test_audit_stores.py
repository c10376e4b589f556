"""The promises that every store of the audit log keeps."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator

import msgspec
import pytest

from hearth.models import ids
from hearth.models.audit import AuditEvent
from hearth.stores.audit.base import AuditFilter, AuditStore
from hearth.stores.sql import open_datastore

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)


@pytest.fixture
async def store(database: str) -> AsyncIterator[AuditStore]:
    opened = await open_datastore(database)
    yield opened
    await opened.close()


def made(number: int, **fields: object) -> AuditEvent:
    at = NOW + dt.timedelta(days=number)
    event = AuditEvent(
        id=ids.first_of(int(at.timestamp() * 1000)),
        created_at=at,
        principal="deployer:ci ü",
        token_id="token",
        action="routes:write",
        app="a",
        resource="PUT /v1/apps/a/routes/r",
        status=200,
        address="2001:db8::1",
    )
    return msgspec.structs.replace(event, **fields)


async def test_events_come_back_newest_first_and_in_pages(store: AuditStore) -> None:
    await store.add_events([made(1), made(2)])
    await store.add_events([made(3)])
    assert await store.get_events(AuditFilter()) == [made(3), made(2), made(1)]
    assert await store.get_events(AuditFilter(per_page=2)) == [made(3), made(2)]
    assert await store.get_events(AuditFilter(per_page=2, cursor=made(2).id)) == [made(1)]
    assert await store.get_events(AuditFilter(cursor=made(1).id)) == []


async def test_events_are_found_by_app_by_principal_and_by_token(store: AuditStore) -> None:
    events = [made(1), made(2, app="b"), made(3, principal="admin", token_id=""), made(4, app="", token_id="other")]
    await store.add_events(events)
    for which, found in (
        (AuditFilter(app="b"), [2]),
        (AuditFilter(app="a", principal="admin"), [3]),
        (AuditFilter(principal="deployer:ci ü"), [4, 2, 1]),
        (AuditFilter(principal="token"), [2, 1]),
        (AuditFilter(apps=["a", "b"]), [3, 2, 1]),
        (AuditFilter(apps=["b"], app="a"), []),
        (AuditFilter(apps=["b"], principal="token"), [2]),
        (AuditFilter(apps=[]), []),
    ):
        assert await store.get_events(which) == [events[number - 1] for number in found], which


async def test_old_events_are_removed_a_few_at_a_time(store: AuditStore) -> None:
    await store.add_events([made(number) for number in range(1, 6)])
    before = NOW + dt.timedelta(days=4)
    assert [await store.remove_events(before, 2) for _ in range(3)] == [2, 1, 0]
    assert await store.get_events(AuditFilter()) == [made(5), made(4)]
