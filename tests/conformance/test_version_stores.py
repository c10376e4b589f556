"""The promises that every store of versions keeps."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import msgspec
import pytest

from hearth.models.app import App
from hearth.models.fn import Fn
from hearth.models.route import Route
from hearth.models.version import KEPT, Version
from hearth.stores.datastore import Datastore
from hearth.stores.sql import open_datastore

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Datastore]:
    opened = await open_datastore(database)
    yield opened
    await opened.close()


def made(number: int, **fields: object) -> Version:
    version = Version(
        id=f"{number:026d}",
        app_name="a",
        function="/f",
        image=f"f:{number}@sha256:" + "0" * 64,
        digest="sha256:" + "0" * 64,
        config_hash="c",
        principal="deployer:ci ü",
        created_at=NOW,
    )
    return msgspec.structs.replace(version, **fields)


async def test_versions_come_back_newest_first_by_function(store: Datastore) -> None:
    others = [made(3, function="/g"), made(4, app_name="b")]
    for version in [made(1), made(2), *others]:
        assert await store.add_version(version)
    assert await store.get_versions("a", "/f") == [made(2), made(1)]
    assert await store.get_versions("a", "/g") == others[:1]
    assert await store.get_versions("A", "/f") == await store.get_versions("a", "/F") == []
    assert await store.get_version_images() == {version.image for version in [made(1), made(2), *others]}


async def test_the_same_deploy_again_is_no_version(store: Datastore) -> None:
    await store.add_version(made(1))
    assert not await store.add_version(made(2, image=made(1).image))
    assert await store.add_version(made(3, image=made(1).image, config_hash="other"))
    assert [version.id for version in await store.get_versions("a", "/f")] == [made(3).id, made(1).id]


async def test_the_last_versions_are_kept(store: Datastore) -> None:
    for number in range(KEPT + 5):
        await store.add_version(made(number))
    found = await store.get_versions("a", "/f")
    assert [version.id for version in found] == [made(number).id for number in reversed(range(5, KEPT + 5))]


async def test_deploys_at_once_are_all_noted(store: Datastore) -> None:
    await asyncio.gather(*[store.add_version(made(number)) for number in range(10)])
    assert {version.id for version in await store.get_versions("a", "/f")} == {made(number).id for number in range(10)}


async def test_a_history_ends_with_its_function_and_with_its_app(store: Datastore) -> None:
    await store.insert_app(App(name="a", id="A"))
    await store.insert_route(Route(app_name="a", path="/f", image="f"))
    await store.insert_route(Route(app_name="a", path="/g", image="f"))
    await store.insert_fn(Fn(id="F", name="f", app_id="A", image="f"))
    for number, function in enumerate(("/f", "/g", "F")):
        await store.add_version(made(number, function=function))
    await store.add_version(made(9, app_name="b"))
    await store.remove_route("a", "/f")
    assert await store.get_versions("a", "/f") == []
    await store.remove_fn("F")
    assert await store.get_versions("a", "F") == []
    assert await store.get_versions("a", "/g") == [made(1, function="/g")]
    await store.remove_app("a")
    assert await store.get_versions("a", "/g") == []
    assert await store.get_versions("b", "/f") == [made(9, app_name="b")]
