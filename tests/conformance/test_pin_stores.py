"""The promises that every store of pins keeps."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from tests.support.databases import plain

from hearth.models.app import App
from hearth.models.fn import Fn, FnPatch
from hearth.models.image import Pin
from hearth.models.patch import RoutePatch
from hearth.models.route import Route
from hearth.models.version import Version
from hearth.stores.datastore import Datastore
from hearth.stores.sql import open_datastore

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
FUNCTIONS = ("/f", "F")


@pytest.fixture
async def store(database: str) -> AsyncIterator[Datastore]:
    opened = await open_datastore(database)
    app = await opened.insert_app(App(name="a", created_at=NOW, updated_at=NOW))
    await opened.insert_app(App(name="b", created_at=NOW, updated_at=NOW))
    for name in ("a", "b"):
        await opened.insert_route(Route(app_name=name, path="/f", image="f:1", created_at=NOW, updated_at=NOW))
    await opened.insert_fn(Fn(id="F", name="f", app_id=app.id, image="f:1", created_at=NOW, updated_at=NOW))
    yield opened
    await opened.close()


async def digest(store: Datastore, function: str, app: str = "a") -> str:
    return (await store.get_route(app, function) if function == "/f" else await store.get_fn(function)).digest


async def deploy(store: Datastore, function: str, image: str, found: str = "") -> None:
    if function == "/f":
        await store.update_route("a", "/f", RoutePatch(image=image, digest=found), NOW, lambda route: None)
    else:
        await store.update_fn("F", FnPatch(image=image, digest=found), NOW, lambda fn: None)


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_the_first_digest_of_an_image_stays(store: Datastore, function: str) -> None:
    assert await store.pin(Pin("a", function, "f:1", ONE))
    assert not await store.pin(Pin("a", function, "f:1", TWO))
    assert await digest(store, function) == ONE
    if function == "/f":
        assert await digest(store, "/f", "b") == ""


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_a_digest_of_another_image_is_not_stored(store: Datastore, function: str) -> None:
    assert not await store.pin(Pin("a", function, "f:2", ONE))
    assert not await store.pin(Pin("a", "/none" if function == "/f" else "none", "f:1", ONE))
    assert await digest(store, function) == ""


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_an_image_that_is_set_again_has_the_digest_of_then(store: Datastore, function: str) -> None:
    await deploy(store, function, "f:1", ONE)
    assert await digest(store, function) == ONE
    await deploy(store, function, "f:1")
    assert await digest(store, function) == ""
    assert await store.pin(Pin("a", function, "f:1", TWO))
    if function == "/f":
        await store.update_route("a", "/f", RoutePatch(memory=64), NOW, lambda route: None)
    else:
        await store.update_fn("F", FnPatch(memory=64), NOW, lambda fn: None)
    assert await digest(store, function) == TWO


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_only_the_newest_version_gets_the_digest(store: Datastore, function: str) -> None:
    for number, config in enumerate(("x", "y"), 1):
        version = Version(
            id=f"{number:026d}", app_name="a", function=function, image="f:1", config_hash=config, created_at=NOW
        )
        await store.add_version(version)
    assert await store.pin(Pin("a", function, "f:1", ONE))
    assert [version.digest for version in await store.get_versions("a", function)] == [ONE, ""]
    assert await store.get_version_images() == {f"f:1@{ONE}", "f:1"}


async def test_of_two_nodes_that_pin_at_once_one_wins(store: Datastore) -> None:
    won = await asyncio.gather(*[store.pin(Pin("a", "/f", "f:1", found)) for found in (ONE, TWO)])
    assert sorted(won) == [False, True]
    assert await digest(store, "/f") == (ONE, TWO)[won.index(True)]


async def test_functions_of_an_earlier_release_are_looked_at_once(store: Datastore, database: str) -> None:
    assert await store.get_unpinned() == []
    async with plain(database) as engine, engine.begin() as connection:
        for table in ("routes", "fns"):
            await connection.execute(sa.text(f"UPDATE {table} SET digest = NULL"))
    found = [Pin("a", "/f", "f:1"), Pin("b", "/f", "f:1"), Pin("", "F", "f:1")]
    assert sorted(await store.get_unpinned()) == sorted(found)
    assert await store.pin(Pin("a", "/f", "f:1", ONE))
    assert await store.pin(Pin("b", "/f", "f:1"))  # nobody knows it yet
    assert await store.get_unpinned() == [Pin("", "F", "f:1")]
    assert await store.pin(Pin("b", "/f", "f:1", TWO))
