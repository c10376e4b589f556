"""What every implementation of the definitions does."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.support.stored_worlds import World, opened_world

from hearth.access.base import Definitions
from hearth.access.cache import CachedDefinitions
from hearth.aio.clock import SystemClock
from hearth.models.app import App
from hearth.models.errors import AppsNotFound, RoutesNotFound
from hearth.models.function import HTTP
from hearth.models.route import Route

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
APP = App(name="app", config={"A": "b", "Ä": "ö"}, created_at=NOW, updated_at=NOW)
ROUTE = Route(
    app_name="app",
    path="/p",
    image="image",
    memory=64,
    cpu_milli=200,
    headers={"X": ["y", "z"]},
    type="async",
    format=HTTP,
    timeout=3,
    idle_timeout=4,
    config={"C": "d"},
    digest="sha256:" + "1" * 64,
    created_at=NOW,
    updated_at=NOW,
)


class ThroughCache:
    """Definitions that come through the cache, an app with a route."""

    def __init__(self, inner: Definitions) -> None:
        self.cache = CachedDefinitions(inner, SystemClock())
        self._inner = inner

    async def get_app(self, name: str) -> App:
        return (await self.cache.get(name, ROUTE.path)).app

    async def get_route(self, app_name: str, path: str) -> Route:
        first, second = [(await self.cache.get(app_name, path)).route for _ in range(2)]
        assert second is first
        return first


@pytest.fixture(params=["local", "remote"])
async def world(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with opened_world(request.param, database, tmp_path) as opened:
        await opened.stores.datastore.insert_app(APP)
        await opened.stores.datastore.insert_route(ROUTE)
        yield opened


@pytest.fixture(params=["direct", "cached"])
async def definitions(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Definitions]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "direct":
            yield world.definitions
        else:
            through = ThroughCache(world.definitions)
            stack.push_async_callback(through.cache.close)
            yield through


async def test_an_app_comes_back_as_it_was_stored(definitions: Definitions, world: World) -> None:
    found = await definitions.get_app("app")
    assert msgspec.structs.replace(found, id="") == APP
    assert found.id == (await world.stores.datastore.get_app("app")).id != ""


async def test_a_route_comes_back_as_it_was_stored(definitions: Definitions) -> None:
    assert await definitions.get_route("app", "/p") == ROUTE


@pytest.mark.parametrize("path", ["/", "/a/b", "/a b", "/ä%2F?#", "/a;b+c", "/P"])
async def test_a_path_is_matched_exactly(definitions: Definitions, world: World, path: str) -> None:
    with pytest.raises(RoutesNotFound):
        await definitions.get_route("app", path)
    await world.stores.datastore.insert_route(msgspec.structs.replace(ROUTE, path=path, image="other"))
    found = await definitions.get_route("app", path)
    assert (found.path, found.image) == (path, "other")


@pytest.mark.parametrize("name", ["other", "App", "ap", "..", "ä"])
async def test_an_app_that_does_not_exist_is_not_found(definitions: Definitions, name: str) -> None:
    with pytest.raises(AppsNotFound):
        await definitions.get_app(name)
