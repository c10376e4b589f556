"""The audit log: who did what to which resource, and who was refused."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from tests.support import contract
from tests.support.clock import FakeClock
from tests.support.door import guarded

from hearth.aio.clock import SystemClock
from hearth.authorize.stored_tokens import StoredTokens
from hearth.images.documents import CONFIG_TYPE, MANIFEST_TYPE
from hearth.images.layout import ImageStore
from hearth.models.errors import StoreUnavailable
from hearth.models.ids import IdGenerator
from hearth.models.principal import AuthMode
from hearth.server.api import Api
from hearth.server.audit import AuditLog
from hearth.server.door import open_only
from hearth.server.health import Readiness
from hearth.server.registry.registry import Registry
from hearth.stores.audit.base import AuditFilter
from hearth.stores.sql import SqlDatastore

ADMIN: Final = "token-of-the-administrator"
VALUE: Final = "s3cret-value"


class World:
    """The API of a node that asks for tokens and keeps an audit log."""

    def __init__(self, datastore: SqlDatastore, registry: Registry | None = None) -> None:
        self.datastore = datastore
        clock = SystemClock()
        self.audit = AuditLog(datastore, clock, IdGenerator(0, clock.now_ms))
        stored = StoredTokens(datastore.find_token, clock)
        readiness = Readiness(clock, {"database": datastore.check})

        async def forget(token_id: str) -> None:
            stored.forget(token_id)

        api = Api(datastore, clock, dict, forget_token=forget, readiness=readiness, registry=registry)
        app = guarded(api, AuthMode.REQUIRED, admin=ADMIN, stored=stored, audit=self.audit, clock=FakeClock())
        self.app = app
        hooks = {"response": [contract.check]}
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api", event_hooks=hooks)

    async def ask(self, method: str, path: str, body: Any = None, token: str = ADMIN) -> httpx.Response:
        shown = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.http.request(method, path, json=body, headers=shown)

    async def events(self, query: str = "", token: str = ADMIN) -> list[dict[str, Any]]:
        await self.audit.close()  # refused requests are stored beside their answers
        found: list[dict[str, Any]] = (await self.ask("GET", f"/v1/audit{query}", token=token)).json()["events"]
        return found

    async def lines(self, query: str = "", token: str = ADMIN) -> list[str]:
        """Events from the first to the last, as lines."""
        return [
            " ".join(str(event[name]) for name in ("principal", "action", "app", "resource", "status") if event[name])
            for event in reversed(await self.events(query, token))
        ]

    async def create(self, role: str, *apps: str) -> tuple[str, str]:
        """Create a token; return its id and its value."""
        asked = {"token": {"name": "ci", "role": role, "apps": list(apps)}}
        made = (await self.ask("POST", "/v1/tokens", asked)).json()["token"]
        return made["id"], made["value"]


@pytest.fixture
async def world(datastore: SqlDatastore) -> AsyncIterator[World]:
    opened = World(datastore)
    yield opened
    await opened.http.aclose()
    await opened.audit.close()


async def test_each_change_is_noted_with_its_sender_before_it_is_answered(world: World) -> None:
    token_id, value = await world.create("deployer", "a")
    route = {"route": {"path": "/r", "image": f"x@sha256:{'0' * 64}", "config": {"K": VALUE}}}
    await world.ask("POST", "/v1/apps", {"app": {"name": "a", "config": {"K": VALUE}}}, value)
    await world.ask("POST", "/v1/apps/a/routes", route, value)
    await world.ask("PATCH", "/v1/apps/a/routes/r", {"route": {"memory": 64}}, value)
    await world.ask("DELETE", "/v1/apps/a", None, value)
    await world.ask("DELETE", f"/v1/tokens/{token_id}")
    stored = await world.datastore.get_events(AuditFilter())
    assert len(stored) == 6
    assert await world.lines() == [
        f"admin tokens:write POST /v1/tokens {token_id} 200",
        "deployer:ci apps:write a POST /v1/apps 200",
        "deployer:ci routes:write a POST /v1/apps/a/routes /r 200",
        "deployer:ci routes:write a PATCH /v1/apps/a/routes/r 200",
        "deployer:ci apps:write a DELETE /v1/apps/a 200",
        f"admin tokens:write DELETE /v1/tokens/{token_id} 200",
    ]
    for event in await world.events():
        assert event["token_id"] == (token_id if event["principal"] == "deployer:ci" else "")
        assert event["address"] == "127.0.0.1"
        assert VALUE not in str(event)
        assert value not in str(event)


async def test_an_image_is_noted_whatever_its_repository_is_called(datastore: SqlDatastore, tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    world = World(datastore, Registry(store))
    for repository in ("a/f", "a/blobs/uploads/f"):
        digest = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
        blob = await world.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", {})
        assert blob.status_code == 201, blob.text
        described = {"mediaType": CONFIG_TYPE, "digest": digest, "size": 2}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": described, "layers": []}
        shown = {"Authorization": f"Bearer {ADMIN}", "Content-Type": MANIFEST_TYPE}
        put = await world.http.put(f"/v2/{repository}/manifests/1", json=manifest, headers=shown)
        assert put.status_code == 201, put.text
    assert await world.lines() == [
        f"admin images:write a PUT /v2/{repository}/manifests/1 201" for repository in ("a/f", "a/blobs/uploads/f")
    ]
    await world.http.aclose()
    await world.audit.close()


async def test_what_changes_nothing_is_not_noted(world: World) -> None:
    for method, path, body in (
        ("GET", "/v1/apps", None),
        ("GET", "/v1/audit", None),
        ("GET", "/version", None),
        ("POST", "/r/a/b", None),
        ("DELETE", "/v1/apps/none", None),
        ("POST", "/v1/apps", {"app": {"name": "a b"}}),
    ):
        await world.ask(method, path, body)
    assert await world.lines() == []


async def test_refused_requests_are_noted(world: World) -> None:
    token_id, value = await world.create("viewer", "a")
    await world.ask("DELETE", "/v1/apps/a", None, value)
    await world.ask("GET", "/v1/apps/b", None, value)
    await world.ask("GET", "/v1/apps", None, "wrong")
    await world.ask("GET", "/nowhere", None, "")
    _, deployer = await world.create("deployer", "a")
    await world.ask("POST", "/v1/apps", {"app": {"name": "b"}}, deployer)
    assert await world.lines() == [
        f"admin tokens:write POST /v1/tokens {token_id} 200",
        "viewer:ci apps:write a DELETE /v1/apps/a 403",
        "viewer:ci apps:read b GET /v1/apps/b 404",
        "anonymous apps:read GET /v1/apps 401",
        "anonymous unknown GET /nowhere 401",
        (await world.lines())[5],
        "deployer:ci apps:write b POST /v1/apps 403",
    ]


async def test_a_flood_of_refused_requests_leaves_a_few_events(world: World) -> None:
    for number in range(200):
        await world.ask("GET", f"/v1/apps/{number}", None, "")
    assert len(await world.events("?per_page=100")) in range(20, 40)


async def test_control_paths_where_only_calls_are_served_leave_no_events(world: World) -> None:
    transport = httpx.ASGITransport(open_only(world.app))
    async with httpx.AsyncClient(transport=transport, base_url="http://calls") as client:
        assert (await client.get("/v1/apps")).status_code == 404
    assert await world.lines() == []


async def test_a_change_that_fails_half_way_is_noted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*given: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(world.datastore, "remove_app", fail)
    assert (await world.ask("DELETE", "/v1/apps/a")).status_code >= 500
    assert [line.rpartition(" ")[0] for line in await world.lines()] == ["admin apps:write a DELETE /v1/apps/a"]


async def test_readiness_has_details_for_those_who_may_read_the_system(world: World) -> None:
    assert (await world.ask("GET", "/readyz")).json()["database"] == "ok"
    for role, apps in (("invoker", ["a"]), ("viewer", ["a"])):
        _, value = await world.create(role, *apps)
        assert (await world.ask("GET", "/readyz", None, value)).json() == {"ready": True}


async def test_odd_paths_are_stored(world: World) -> None:
    for path in ("/v1/apps/%00", "/v1/apps/%ff%fe", f"/v1/apps/{'x' * 5000}"):
        await world.ask("GET", path, None, "")
    assert [len(event["app"]) for event in await world.events()] == [256, 2, 1]


async def test_events_are_filtered_paged_and_scoped(world: World) -> None:
    token_id, value = await world.create("deployer")
    for app in ("a", "b", "c"):
        await world.ask("POST", "/v1/apps", {"app": {"name": app}}, value)
    assert len(await world.events("?app=b")) == 1
    assert len(await world.events("?principal=deployer:ci")) == 3
    assert len(await world.events(f"?principal={token_id}&app=c")) == 1
    page = (await world.ask("GET", "/v1/audit?per_page=3")).json()
    rest = (await world.ask("GET", f"/v1/audit?per_page=3&cursor={page['next_cursor']}")).json()
    assert [event["app"] for event in page["events"] + rest["events"]] == ["c", "b", "a", ""]
    assert rest["next_cursor"] == ""

    _, admin_of_b = await world.create("admin", "b")
    assert [event["app"] for event in await world.events(token=admin_of_b)] == ["b"]
    assert await world.events("?app=a", admin_of_b) == []
    for role in ("deployer", "invoker", "viewer", "runner"):
        assert (await world.ask("GET", "/v1/audit", None, (await world.create(role))[1])).status_code == 403


async def test_a_change_whose_event_cannot_be_stored_is_answered(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(events: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(world.datastore, "add_events", fail)
    assert (await world.ask("POST", "/v1/apps", {"app": {"name": "a"}})).status_code == 200
    assert (await world.ask("GET", "/v1/apps", None, "")).status_code == 401
    await world.audit.close()
    assert "audit event not stored" in capsys.readouterr().out
