"""A request that sets an image says what runs from then on; no other request changes that."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from tests.support import contract
from tests.support.api import APPS
from tests.support.door import guarded

from hearth.aio.clock import SystemClock
from hearth.models.image import Pin
from hearth.server.api import Api
from hearth.stores.sql import SqlDatastore

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


class World:
    """An API whose node has some images."""

    def __init__(self, datastore: SqlDatastore) -> None:
        self.digests = {"f:1": ONE}
        self.datastore = datastore

        async def resolve(image: str) -> str:
            return self.digests.get(image, "")

        api = Api(datastore, SystemClock(), lambda: {}, resolve=resolve)
        hooks = {"response": [contract.check]}
        transport = httpx.ASGITransport(guarded(api))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://localhost", event_hooks=hooks)

    async def route(self, method: str = "GET", **fields: object) -> dict[str, str]:
        """Change or read the route; the route as it was answered."""
        body = {"route": fields} if fields else None
        answer = await self.http.request(method, f"{APPS}/a/routes/f", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, str] = answer.json()["route"]
        return found

    async def versions(self, function: str) -> list[tuple[str, str]]:
        """The history of a function: images and digests, newest first."""
        answer = await self.http.get(f"{APPS}/a/versions", params={"function": function})
        return [(one["image"], one["digest"]) for one in answer.json()["versions"]]


@pytest.fixture
async def world(datastore: SqlDatastore) -> AsyncIterator[World]:
    made = World(datastore)
    async with made.http:
        yield made


async def test_a_route_keeps_its_reference_and_what_it_meant(world: World) -> None:
    made = await world.route("PUT", image="f:1")
    assert (made["image"], made["digest"]) == ("f:1", ONE)
    world.digests["f:1"] = TWO  # another build under the same tag
    assert (await world.route("PATCH", memory=64))["digest"] == ONE
    assert (await world.route())["digest"] == ONE
    assert (await world.route("PATCH", image="f:1"))["digest"] == TWO
    assert await world.versions("/f") == [("f:1", TWO), ("f:1", ONE)]
    pinned = f"f:1@{ONE}"
    assert (await world.route("PATCH", image=pinned)).items() >= {"image": pinned, "digest": ONE}.items()


async def test_an_image_that_nobody_knows_is_accepted_and_pinned_later(world: World) -> None:
    assert "digest" not in await world.route("PUT", image="g:1")
    assert await world.versions("/f") == [("g:1", "")]
    await world.datastore.pin(Pin("a", "/f", "g:1", TWO))
    assert (await world.route())["digest"] == TWO
    assert await world.versions("/f") == [("g:1", TWO)]


async def test_no_client_sets_a_digest(world: World) -> None:
    assert (await world.route("PUT", image="f:1", digest=TWO))["digest"] == ONE
    assert (await world.route("PATCH", digest=TWO, memory=64))["digest"] == ONE


async def test_a_fn_keeps_its_reference_and_what_it_meant(world: World) -> None:
    app = (await world.http.post("/v2/apps", json={"name": "a"})).json()["id"]
    made = (await world.http.post("/v2/fns", json={"app_id": app, "name": "f", "image": "f:1", "digest": TWO})).json()
    assert (made["image"], made["digest"]) == ("f:1", ONE)
    world.digests["f:1"] = TWO
    place = f"/v2/fns/{made['id']}"
    for change, digest in (({"memory": 64, "digest": TWO}, ONE), ({"image": "f:1"}, TWO)):
        assert (await world.http.put(place, json=change)).json()["digest"] == digest
    assert "digest" not in (await world.http.put(place, json={"image": "g:1"})).json()
    assert await world.versions(made["id"]) == [("g:1", ""), ("f:1", TWO), ("f:1", ONE)]
