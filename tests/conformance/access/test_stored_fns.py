"""What every implementation of the definitions of fns does."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.support.stored_worlds import World, opened_world

from hearth.access.base import FnDefinitions
from hearth.access.fn_cache import CachedFns
from hearth.aio.clock import SystemClock
from hearth.models.app import App
from hearth.models.errors import AppsNotFound
from hearth.models.fn import Fn
from hearth.models.fn_errors import FnNotFound, TriggerNotFound
from hearth.models.quotas import Quotas
from hearth.models.trigger import Trigger

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
APP = App(
    name="Größe",
    id="A",
    config={"A": "b", "Ä": "ö"},
    annotations={"k": '{"z":1.50,"a":[true]}'},
    syslog_url="tcp://logs:514",
    shape="GENERIC_ARM",
    auth="token",
    quotas=Quotas(concurrent_calls=3, weight=2),
    created_at=NOW,
    updated_at=NOW,
)
FN = Fn(
    id="F",
    name="f&n=1",
    app_id="A",
    image="image:1",
    memory=64,
    timeout=7,
    idle_timeout=9,
    config={"C": "<d>"},
    annotations={"n": "12345678901234567890"},
    shape="GENERIC_ARM",
    digest="sha256:" + "1" * 64,
    created_at=NOW,
    updated_at=NOW,
)
SOURCES = ["/", "/a/b", "/a b", "/ä%2F?#", "//", "/a/", "/../x", "/a;b+c"]


@pytest.fixture(params=["local", "remote"])
async def world(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with opened_world(request.param, database, tmp_path) as opened:
        await opened.stores.datastore.insert_app(APP)
        await opened.stores.datastore.insert_fn(FN)
        yield opened


def trigger(number: int, source: str) -> Trigger:
    return Trigger(
        id=f"T{number}", name=f"t{number}", app_id="A", fn_id="F", source=source, created_at=NOW, updated_at=NOW
    )


async def test_what_was_stored_comes_back(world: World) -> None:
    fns: FnDefinitions = world.fns
    assert await fns.get_app_by_id("A") == APP
    assert await fns.get_fn("F") == FN
    assert await fns.get_fn_named("A", "f&n=1") == FN
    assert (await fns.get_app("Größe")).id == "A"


async def test_a_source_is_matched_as_a_whole(world: World) -> None:
    for number, source in enumerate(SOURCES):
        await world.stores.datastore.insert_trigger(trigger(number, source))
    for number, source in enumerate(SOURCES):
        assert await world.fns.get_trigger_by_source("A", "http", source) == trigger(number, source)
    for source in ("/a", "/A/b", "/a/b/", "/x"):
        with pytest.raises(TriggerNotFound):
            await world.fns.get_trigger_by_source("A", "http", source)


@pytest.mark.parametrize("name", ["x", "a", "..", ".", "F/calls", "ä"])
async def test_what_does_not_exist_is_not_found(world: World, name: str) -> None:
    with pytest.raises(FnNotFound):
        await world.fns.get_fn(name)
    with pytest.raises(FnNotFound):
        await world.fns.get_fn_named("A", name)
    for attempt in (world.fns.get_app_by_id(name), world.fns.get_app(name)):
        with pytest.raises(AppsNotFound):
            await attempt
    with pytest.raises(TriggerNotFound):
        await world.fns.get_trigger_by_source(name, "http", "/")


async def test_a_fn_is_kept_until_its_app_is_said_to_have_changed(world: World) -> None:
    datastore = world.stores.datastore
    await datastore.insert_trigger(trigger(0, "/t"))
    cache = CachedFns(world.fns, SystemClock(), world.secrets)
    try:
        by_id, by_source = await cache.by_id("F"), await cache.by_source("Größe", "/t")
        assert (by_id.app, by_id.fn) == (APP, FN)
        assert (by_source.app.id, by_source.fn, by_source.labels) == ("A", FN, ("Größe", "f&n=1"))
        assert await cache.by_id("F") is by_id
        await datastore.remove_fn("F")
        assert (await cache.by_id("F"), await cache.by_source("Größe", "/t")) == (by_id, by_source)
        cache.forget("another")
        assert await cache.by_id("F") is by_id
        cache.forget("Größe")
        assert by_id.until < SystemClock().monotonic()
        with pytest.raises(FnNotFound):
            await cache.by_id("F")
        with pytest.raises(TriggerNotFound):
            await cache.by_source("Größe", "/t")
        with pytest.raises(AppsNotFound):
            await cache.by_source("nobody", "/t")
    finally:
        await cache.close()


async def test_a_fn_gets_the_secrets_of_its_app(world: World) -> None:
    app = msgspec.structs.replace(APP, name="secret", id="S", secrets=("KEY",))
    datastore = world.stores.datastore
    await datastore.insert_app(app)
    await datastore.insert_fn(msgspec.structs.replace(FN, id="FS", app_id="S"))
    cache = CachedFns(world.fns, SystemClock(), world.secrets)
    try:
        with pytest.raises(Exception, match="Secret KEY of app secret does not exist"):
            await cache.by_id("FS")
    finally:
        await cache.close()
