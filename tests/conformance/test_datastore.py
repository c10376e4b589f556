"""What every datastore keeps its word on."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import msgspec
import pytest

from hearth.models import errors
from hearth.models.app import App
from hearth.models.call import Call, Stat
from hearth.models.log_reader import read_all
from hearth.models.patch import AppPatch, RoutePatch
from hearth.models.quotas import Quotas
from hearth.models.route import Route, validate_route
from hearth.stores.datastore import Datastore
from hearth.stores.definitions.base import AppFilter, RouteFilter
from hearth.stores.records.base import CallFilter
from hearth.stores.sql import open_datastore

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
ROUTE = Route(
    app_name="app",
    path="/a/b",
    image="image:1",
    memory=64,
    cpu_milli=250,
    headers={"X": ["1", "2"]},
    type="async",
    format="json",
    timeout=7,
    idle_timeout=9,
    config={"K": "ü=\n"},
    created_at=NOW,
    updated_at=NOW,
)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Datastore]:
    opened = await open_datastore(database)
    await opened.insert_app(App(name="app", config={"A": "1"}, created_at=NOW, updated_at=NOW))
    yield opened
    await opened.close()


async def test_what_was_stored_comes_back(store: Datastore) -> None:
    await store.insert_route(ROUTE)
    assert await store.get_route("app", "/a/b") == ROUTE
    app = await store.get_app("app")
    assert app == App(name="app", config={"A": "1"}, created_at=NOW, updated_at=NOW, id=app.id)


async def test_lists_are_in_byte_order_and_paged(store: Datastore) -> None:
    for name in ("b", "B", "a_"):
        await store.insert_app(App(name=name))
    assert [app.name for app in await store.get_apps(AppFilter())] == ["B", "a_", "app", "b"]
    assert [app.name for app in await store.get_apps(AppFilter(cursor="B", per_page=2))] == ["a_", "app"]
    assert [app.name for app in await store.get_apps(AppFilter(name_in=[]))] == []
    for path in ("/b", "/a", "/A"):
        await store.insert_route(msgspec.structs.replace(ROUTE, path=path, image=f"i{path}"))
    assert [route.path for route in await store.get_routes("app", RouteFilter())] == ["/A", "/a", "/b"]
    assert [route.path for route in await store.get_routes("app", RouteFilter(image="i/b"))] == ["/b"]
    assert await store.get_routes("nobody", RouteFilter()) == []


async def test_each_refusal_has_its_error(store: Datastore) -> None:
    await store.insert_route(ROUTE)
    for error, attempt in [
        (errors.DatastoreEmptyAppName, store.get_app("")),
        (errors.AppsNotFound, store.get_app("x")),
        (errors.AppsAlreadyExists, store.insert_app(App(name="app"))),
        (errors.AppsNotFound, store.update_app("x", AppPatch(), NOW)),
        (errors.AppsNotFound, store.remove_app("x")),
        (errors.DatastoreEmptyRoutePath, store.get_route("app", "")),
        (errors.RoutesNotFound, store.get_route("app", "/x")),
        (errors.RoutesAlreadyExists, store.insert_route(ROUTE)),
        (errors.AppsNotFound, store.insert_route(msgspec.structs.replace(ROUTE, app_name="x"))),
        (errors.RoutesNotFound, store.update_route("app", "/x", RoutePatch(), NOW, validate_route)),
        (errors.RoutesNotFound, store.remove_route("app", "/x")),
        (errors.DatastoreEmptyCallID, store.get_call("app", "")),
        (errors.CallNotFound, store.get_call("app", "x")),
        (errors.CallLogNotFound, store.get_log("app", "x")),
    ]:
        with pytest.raises(error):
            await attempt


async def test_quotas_are_stored_changed_one_by_one_and_removed(store: Datastore) -> None:
    await store.insert_app(App(name="b", quotas=Quotas(memory_mib=512)))
    await store.update_app("b", AppPatch(quotas={"weight": 3, "burst": 0}), NOW)
    assert (await store.get_app("b")).quotas == Quotas(memory_mib=512, weight=3, burst=0)
    await store.update_app("b", AppPatch(quotas={"memory_mib": None}), NOW)
    assert (await store.get_app("b")).quotas == Quotas(weight=3, burst=0)
    assert (await store.get_app("app")).quotas == Quotas()


async def test_concurrent_changes_of_one_app_are_all_kept(store: Datastore) -> None:
    await asyncio.gather(*[store.update_app("app", AppPatch(config={f"K{n}": "v"}), NOW) for n in range(50)])
    assert len((await store.get_app("app")).config) == 51


async def test_a_refused_change_stores_nothing(store: Datastore) -> None:
    await store.insert_route(ROUTE)
    with pytest.raises(errors.RoutesInvalidTimeout):
        await store.update_route("app", "/a/b", RoutePatch(timeout=9999, image="new"), NOW, validate_route)
    assert await store.get_route("app", "/a/b") == ROUTE


async def test_a_removed_app_takes_all_that_is_its_own(store: Datastore) -> None:
    await store.insert_route(ROUTE)
    await store.put_calls([(Call(id="1", app_name="app", path="/a/b"), b"log")])
    await store.remove_app("app")
    await store.insert_app(App(name="app"))
    assert await store.get_routes("app", RouteFilter()) == []
    assert await store.get_calls(CallFilter(app_name="app")) == []


async def test_calls_come_newest_first_and_are_replaced(store: Datastore) -> None:
    stat = Stat(timestamp=NOW, metrics={"net_rx": 2**40})
    calls = [
        Call(id=str(n), app_name="app", path=f"/{n % 2}", status="success", created_at=NOW + dt.timedelta(seconds=n))
        for n in range(4)
    ]
    await store.put_calls([(call, b"") for call in calls])
    await store.put_calls([(msgspec.structs.replace(calls[0], status="error", error="e", stats=[stat]), b"new")])
    assert [call.id for call in await store.get_calls(CallFilter(app_name="app"))] == ["3", "2", "1", "0"]
    assert [call.id for call in await store.get_calls(CallFilter(path="/1", cursor="3"))] == ["1"]
    between = CallFilter(from_time=NOW, to_time=NOW + dt.timedelta(seconds=3))
    assert [call.id for call in await store.get_calls(between)] == ["2", "1"]
    replaced = await store.get_call("app", "0")
    assert (replaced.status, replaced.error, replaced.stats) == ("error", "e", [stat])
    assert await read_all(await store.get_log("app", "0")) == b"new"
    with pytest.raises(errors.CallLogNotFound):
        await read_all(await store.get_log("other", "0"))
