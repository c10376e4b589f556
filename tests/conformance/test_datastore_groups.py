"""Reads, and changes of apps and routes, that come at the same time: they share a message, and nothing else."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.databases import transaction

from hearth.models import errors
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.patch import AppPatch, RoutePatch
from hearth.models.route import Route, validate_route
from hearth.sql.database import Database, Steps
from hearth.sql.open import open_database
from hearth.sql.query import Query, Row
from hearth.sql.schema.tables import calls
from hearth.sql.upserts import Upsert
from hearth.stores.definitions.base import RouteFilter
from hearth.stores.sql import SqlDatastore, open_datastore
from hearth.telemetry.node import Telemetry

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)


class Watched:
    """A database whose transactions can be held back."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self._open = asyncio.Event()
        self._open.set()
        self.asked = asyncio.Event()
        self.groups = 0

    def hold(self) -> None:
        """Hold back what comes from now on, and count it."""
        self._open.clear()
        self.asked.clear()
        self.groups = 0

    def go_on(self) -> None:
        """Let it through."""
        self._open.set()

    async def query(self, query: Query, **params: Any) -> list[Row]:
        return await self._inner.query(query, **params)

    async def transaction(self, steps: Callable[[], Steps[Any]]) -> Any:
        self.groups += 1
        self.asked.set()
        await self._open.wait()
        return await self._inner.transaction(steps)

    async def write(self, upsert: Upsert, *parts: Sequence[msgspec.Struct]) -> None:
        await self._inner.write(upsert, *parts)

    async def close(self) -> None:
        await self._inner.close()


@pytest.fixture
async def watched(database: str) -> Watched:
    return Watched(await open_database(database))


@pytest.fixture
async def store(watched: Watched) -> AsyncIterator[SqlDatastore]:
    opened = SqlDatastore(cast(Database, watched), Telemetry())  # it passes on what these tests need
    await opened.insert_app(App(name="app"))
    yield opened
    await opened.close()


@pytest.fixture
async def other(database: str, store: SqlDatastore) -> AsyncIterator[SqlDatastore]:
    """Another node's."""
    opened = await open_datastore(database)
    yield opened
    await opened.close()


def route(path: str, **fields: Any) -> Route:
    return Route(app_name="app", path=path, image="i", created_at=NOW, updated_at=NOW, **fields)


async def test_each_of_a_group_has_its_own_answer_and_one_commit_serves_all(
    watched: Watched, store: SqlDatastore
) -> None:
    await store.insert_route(route("/old"))
    await store.insert_route(route("/gone"))
    watched.hold()
    first = asyncio.ensure_future(store.insert_app(App(name="first")))
    await watched.asked.wait()
    changes: list[Any] = [
        store.insert_route(route("/new")),
        store.insert_route(route("/new", memory=64)),
        store.insert_route(Route(app_name="nobody", path="/x", image="i")),
        store.update_route("app", "/old", RoutePatch(timeout=9999), NOW, validate_route),
        store.update_route("app", "/old", RoutePatch(memory=256), NOW, validate_route),
        store.update_route("app", "/old", RoutePatch(config={"A": "b"}), NOW, validate_route),
        store.update_route("app", "/none", RoutePatch(memory=256), NOW, validate_route),
        store.remove_route("app", "/gone"),
        store.remove_route("app", "/gone"),
        store.insert_app(App(name="app")),
        store.insert_app(App(name="new")),
        store.update_app("new", AppPatch(config={"A": "b"}), NOW),
    ]
    gathered = asyncio.gather(*changes, return_exceptions=True)
    await asyncio.sleep(0)  # all of them ask before the first may go on
    watched.go_on()
    outcomes = await gathered
    await first
    assert [type(outcome) for outcome in outcomes] == [
        Route,
        errors.RoutesAlreadyExists,
        errors.AppsNotFound,
        errors.RoutesInvalidTimeout,
        Route,
        Route,
        errors.RoutesNotFound,
        type(None),
        errors.RoutesNotFound,
        errors.AppsAlreadyExists,
        App,
        App,
    ]
    assert watched.groups == 2
    kept = {one.path: one for one in await store.get_routes("app", RouteFilter())}
    assert sorted(kept) == ["/new", "/old"]
    assert kept["/new"].memory == 128
    assert (kept["/old"].memory, kept["/old"].config) == (256, {"A": "b"})
    assert (await store.get_app("new")).config == {"A": "b"}


async def test_what_no_database_takes_is_refused_and_nothing_else(watched: Watched, store: SqlDatastore) -> None:
    watched.hold()
    first = asyncio.ensure_future(store.insert_app(App(name="first")))
    await watched.asked.wait()
    wanted = [route("/a"), route("/\ud800"), route("/b")]  # half of a character, which is no UTF-8
    gathered = asyncio.gather(*[store.insert_route(one) for one in wanted], return_exceptions=True)
    await asyncio.sleep(0)
    watched.go_on()
    before, bad, after = await gathered
    await first
    assert isinstance(bad, Exception)
    assert (before, after) == (wanted[0], wanted[2])
    assert [one.path for one in await store.get_routes("app", RouteFilter())] == ["/a", "/b"]


async def test_who_gives_up_waiting_leaves_the_group_as_it_is(watched: Watched, store: SqlDatastore) -> None:
    watched.hold()
    first = asyncio.ensure_future(store.insert_app(App(name="first")))
    await watched.asked.wait()
    writing = [asyncio.ensure_future(store.insert_route(route(f"/{n}"))) for n in range(3)]
    await asyncio.sleep(0)
    writing[1].cancel()
    watched.go_on()
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    await first
    assert [type(outcome) for outcome in outcomes] == [Route, asyncio.CancelledError, Route]
    paths = [one.path for one in await store.get_routes("app", RouteFilter())]
    assert {"/0", "/2"} <= set(paths)


async def test_two_nodes_make_each_thing_once_and_lose_no_change(store: SqlDatastore, other: SqlDatastore) -> None:
    both = (store, other)
    made = await asyncio.gather(
        *[node.insert_route(route(f"/{n}")) for n in range(8) for node in both],
        *[node.insert_app(App(name=f"a{n}")) for n in range(8) for node in both],
        return_exceptions=True,
    )
    refused = [type(outcome) for outcome in made if isinstance(outcome, Exception)]
    assert sorted(kind.__name__ for kind in refused) == ["AppsAlreadyExists"] * 8 + ["RoutesAlreadyExists"] * 8
    await asyncio.gather(
        *[
            node.update_route("app", f"/{n % 4}", RoutePatch(config={f"K{place}{n}": "v"}), NOW, validate_route)
            for place, node in enumerate(both)
            for n in range(16)
        ]
    )
    for n in range(4):
        assert len((await store.get_route("app", f"/{n}")).config) == 8


async def test_a_removed_app_is_gone_for_those_who_come_at_the_same_time(
    store: SqlDatastore, other: SqlDatastore
) -> None:
    await store.insert_route(route("/a"))
    outcomes = await asyncio.gather(
        store.remove_app("app"),
        store.insert_route(route("/b")),
        other.insert_route(route("/c")),
        other.update_route("app", "/a", RoutePatch(memory=64), NOW, validate_route),
        return_exceptions=True,
    )
    assert outcomes[0] is None
    assert all(isinstance(outcome, Route | errors.AppsNotFound | errors.RoutesNotFound) for outcome in outcomes[1:]), (
        outcomes
    )
    assert await store.get_routes("app", RouteFilter()) == []
    with pytest.raises(errors.AppsNotFound):
        await other.get_app("app")


async def test_those_who_read_at_the_same_time_are_told_each_of_their_own(store: SqlDatastore) -> None:
    for n in range(5):
        await store.insert_route(route(f"/{n}", memory=n + 1))
    asked = [f"/{n % 7}" for n in range(150)]
    found = await asyncio.gather(*[store.get_route("app", path) for path in asked], return_exceptions=True)
    memory = [one.memory if isinstance(one, Route) else 0 for one in found]
    assert memory == [n % 7 + 1 if n % 7 < 5 else 0 for n in range(150)]
    assert all(isinstance(one, Route | errors.RoutesNotFound) for one in found)
    assert (await store.get_app("app")).name == "app"


async def test_those_who_look_for_calls_at_the_same_time_are_told_each_of_their_own(
    store: SqlDatastore, database: str
) -> None:
    await store.put_calls([(Call(id=f"c{n}", app_name=f"app{n % 2}", path=f"/{n}"), None) for n in range(40)])
    broken = sa.update(calls).where(calls.c.id == "c7").values(stats="{")
    async with transaction(database) as connection:
        await connection.execute(broken)
    asked = [(f"app{n % 3}", f"c{n % 50}") for n in range(150)]
    found = await asyncio.gather(*[store.get_call(*key) for key in asked], return_exceptions=True)
    for (app, call_id), one in zip(asked, found, strict=True):
        number = int(call_id[1:])
        if app != f"app{number % 2}" or number >= 40:
            assert isinstance(one, errors.CallNotFound)
        else:
            assert isinstance(one, Call)
            assert (one.id, one.path) == (call_id, f"/{number}")
    assert [type(one) for one in found].count(Call) > 30
    assert ("app1", "c7") in asked
