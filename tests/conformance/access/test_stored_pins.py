"""Digests that are known later than their functions, as a node stores them: itself, or at its API node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.stored_worlds import World, opened_world

from hearth.models.app import App
from hearth.models.fn import Fn
from hearth.models.image import Pin
from hearth.models.route import Route

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.fixture(params=["local", "remote"])
async def world(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with opened_world(request.param, database, tmp_path) as opened:
        yield opened


async def test_the_first_pin_of_a_function_stays(world: World) -> None:
    store = world.stores.datastore
    app = await store.insert_app(App(name="a"))
    await store.insert_route(Route(app_name="a", path="/f", image="f:1"))
    await store.insert_fn(Fn(id="F", name="f", app_id=app.id, image="f:1"))
    for digest in (ONE, TWO):
        for function in ("/f", "F"):
            await world.pins.pin(Pin("a", function, "f:1", digest))
    assert (await store.get_route("a", "/f")).digest == ONE
    assert (await store.get_fn("F")).digest == ONE
