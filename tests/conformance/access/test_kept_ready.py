"""The functions that keep containers ready, as a node finds them: in its own database, or at its API node."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.stored_worlds import World, opened_world

from hearth.models.app import App
from hearth.models.fn import Fn, FnPatch
from hearth.models.instances import Instances, KeptReady
from hearth.models.patch import RoutePatch
from hearth.models.route import Route

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


@pytest.fixture(params=["local", "remote"])
async def world(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with opened_world(request.param, database, tmp_path) as opened:
        yield opened


async def test_functions_with_a_minimum_are_named_as_long_as_they_have_one(world: World) -> None:
    store = world.stores.datastore
    app = await store.insert_app(App(name="a"))
    routes = {"/none": Instances(max_instances=3), "/two": Instances(min_instances=2, max_instances=3)}
    for path, bounds in routes.items():
        await store.insert_route(Route(app_name="a", path=path, image="f:1", instances=bounds))
    for name, given in {"N": {"hearth/max_instances": "3"}, "T": {"hearth/min_instances": "12"}}.items():
        await store.insert_fn(Fn(id=name, name=name, app_id=app.id, image="f:1", annotations=given))
    assert await world.ready.kept_ready() == KeptReady([("a", "/two")], ["T"])
    assert (await world.definitions.get_route("a", "/two")).instances == Instances(min_instances=2, max_instances=3)
    assert (await world.definitions.get_route("a", "/none")).instances == Instances(max_instances=3)
    assert (await world.fns.get_fn("T")).instances == Instances(min_instances=12)
    assert await store.get_ready_routes(0) == []

    await store.update_route("a", "/two", RoutePatch(instances={"min_instances": 0}), NOW, lambda route: None)
    await store.update_route("a", "/none", RoutePatch(instances={"min_instances": 1}), NOW, lambda route: None)
    await store.update_fn("T", FnPatch(annotations={"hearth/min_instances": "null"}), NOW, lambda fn: None)
    await store.update_fn("N", FnPatch(annotations={"hearth/min_instances": "1"}), NOW, lambda fn: None)
    assert await world.ready.kept_ready() == KeptReady([("a", "/none")], ["N"])
    assert (await world.definitions.get_route("a", "/two")).instances == Instances(max_instances=3)

    await store.remove_app("a")
    assert await world.ready.kept_ready() == KeptReady([], [])
