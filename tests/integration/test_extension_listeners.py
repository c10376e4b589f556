"""What listeners see of apps and calls, and may do to them (operations specification 8.2, 8.3)."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.extended import Added, extended_node

from hearth.agent.listeners import CallListener
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import ApiError
from hearth.models.patch import AppPatch
from hearth.server.extensions import Server
from hearth.server.listeners import AppListener
from hearth.stores.definitions.base import AppFilter


class Forbidden(ApiError):
    status = 403
    message = "not you"


class Watching(AppListener):
    """Notes every hook; raises in the one that it was told."""

    def __init__(self, name: str, heard: list[tuple[str, str, Any]]) -> None:
        self.name = name
        self.heard = heard
        self.failing: dict[str, Exception] = {}

    def _hear(self, hook: str, what: Any) -> None:
        self.heard.append((self.name, hook, what))
        if hook in self.failing:
            raise self.failing[hook]

    async def before_app_create(self, app: App) -> None:
        self._hear("before_app_create", app.name)

    async def after_app_create(self, app: App) -> None:
        self._hear("after_app_create", app.name)

    async def before_app_update(self, patch: AppPatch) -> None:
        self._hear("before_app_update", patch.name)

    async def after_app_update(self, app: App) -> None:
        self._hear("after_app_update", dict(app.config))

    async def before_app_delete(self, app: App) -> None:
        self._hear("before_app_delete", app)

    async def after_app_delete(self, app: App) -> None:
        self._hear("after_app_delete", app)

    async def before_app_get(self, app_name: str) -> None:
        self._hear("before_app_get", app_name)

    async def after_app_get(self, app: App) -> None:
        self._hear("after_app_get", app.name)

    async def before_apps_list(self, which: AppFilter) -> None:
        self._hear("before_apps_list", which.per_page)

    async def after_apps_list(self, apps: list[App]) -> None:
        self._hear("after_apps_list", [app.name for app in apps])


ACTS = {
    "app_create": ("POST", "/v1/apps", {"app": {"name": "new"}}),
    "app_update": ("PATCH", "/v1/apps/old", {"app": {"config": {"B": "2"}}}),
    "app_delete": ("DELETE", "/v1/apps/old", None),
    "app_get": ("GET", "/v1/apps/old", None),
    "apps_list": ("GET", "/v1/apps", None),
}
TOLD = {
    "app_create": ("new", "new"),
    "app_update": ("old", {"A": "1", "B": "2"}),
    "app_delete": (App(name="old"), App(name="old")),
    "app_get": ("old", "old"),
    "apps_list": (30, ["old"]),
}


@pytest.mark.parametrize("act", list(ACTS))
async def test_each_operation_passes_the_listeners_in_their_order(tmp_path: Path, act: str) -> None:
    heard: list[tuple[str, str, Any]] = []
    first, second = Watching("first", heard), Watching("second", heard)

    def setup(server: Server) -> None:
        server.add_app_listener(first)
        server.add_app_listener(second)

    async with extended_node(tmp_path, [Added(setup)]) as on:
        await on.http.post("/v1/apps", json={"app": {"name": "old", "config": {"A": "1"}}})
        method, path, body = ACTS[act]
        heard.clear()
        first.failing = {f"before_{act}": Forbidden()}
        refused = await on.http.request(method, path, json=body)
        assert (refused.status_code, refused.json()) == (403, {"error": {"message": "not you"}})
        assert [name for name, _, _ in heard] == ["first"]
        first.failing = {f"before_{act}": RuntimeError("a secret")}
        assert (await on.http.request(method, path, json=body)).json() == {
            "error": {"message": "internal server error"}
        }
        first.failing = {}
        heard.clear()
        assert (await on.http.request(method, path, json=body)).status_code == 200  # the refusals changed nothing
        before, after = TOLD[act]
        assert heard == [
            ("first", f"before_{act}", before),
            ("second", f"before_{act}", before),
            ("first", f"after_{act}", after),
            ("second", f"after_{act}", after),
        ]


async def test_an_error_after_a_change_does_not_take_it_back(tmp_path: Path) -> None:
    listener = Watching("only", [])
    listener.failing = {"after_app_create": Forbidden(), "after_app_delete": Forbidden()}
    async with extended_node(tmp_path, [Added(lambda server: server.add_app_listener(listener))]) as on:
        assert (await on.http.post("/v1/apps", json={"app": {"name": "made"}})).status_code == 403
        assert (await on.http.get("/v1/apps/made")).status_code == 200
        assert (await on.http.delete("/v1/apps/made")).status_code == 403
        assert (await on.http.get("/v1/apps/made")).status_code == 404


class Changing(AppListener):
    """Changes all that passes."""

    async def before_app_create(self, app: App) -> App:
        return msgspec.structs.replace(app, config={**app.config, "ADDED": "1"})

    async def before_app_update(self, patch: AppPatch) -> None:
        patch.config = {**(patch.config or {}), "PATCHED": "1"}

    async def after_app_get(self, app: App) -> App:
        return msgspec.structs.replace(app, config={"SHOWN": "1"})

    async def before_apps_list(self, which: AppFilter) -> AppFilter:
        return dataclasses.replace(which, name_in=["two"])

    async def after_apps_list(self, apps: list[App]) -> None:
        apps.append(App(name="invented"))


async def test_what_listeners_change_is_stored_and_shown(tmp_path: Path) -> None:
    async with extended_node(tmp_path, [Added(lambda server: server.add_app_listener(Changing()))]) as on:
        for name in ("one", "two"):
            made = await on.http.post("/v1/apps", json={"app": {"name": name}})
            assert made.json()["app"]["config"] == {"ADDED": "1"}
        changed = await on.http.patch("/v1/apps/one", json={"app": {}})
        assert changed.json()["app"]["config"] == {"ADDED": "1", "PATCHED": "1"}
        assert (await on.http.get("/v1/apps/one")).json()["app"]["config"] == {"SHOWN": "1"}
        assert [app["name"] for app in (await on.http.get("/v1/apps")).json()["apps"]] == ["two", "invented"]


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/apps/auto/routes"), ("PUT", "/v1/apps/auto/routes/x")])
async def test_an_app_that_comes_with_a_route_passes_the_listeners(tmp_path: Path, method: str, path: str) -> None:
    heard: list[tuple[str, str, Any]] = []
    listener = Watching("only", heard)
    body = {"route": {"image": "obey", "path": "/x"}}
    async with extended_node(tmp_path, [Added(lambda server: server.add_app_listener(listener))]) as on:
        listener.failing = {"before_app_create": Forbidden()}
        assert (await on.http.request(method, path, json=body)).status_code == 403
        assert (await on.http.get("/v1/apps/auto/routes")).status_code == 404
        listener.failing = {}
        heard.clear()
        assert (await on.http.request(method, path, json=body)).status_code == 200
        assert heard == [("only", "before_app_create", "auto"), ("only", "after_app_create", "auto")]
        heard.clear()
        await on.http.put("/v1/apps/auto/routes/y", json={"route": {"image": "obey"}})
        await on.http.post("/r/auto/x", json={})
        assert heard == []  # neither the second route nor a call makes or shows an app


# -- calls --------------------------------------------------------------------------------------------------------


class CallWatch(CallListener):
    """Notes calls; refuses, or fails, when told."""

    def __init__(self) -> None:
        self.before: list[Call] = []
        self.after: list[Call] = []
        self.refusal: Exception | None = None
        self.failure: Exception | None = None
        self.told = asyncio.Event()
        self.hold: asyncio.Event | None = None

    async def before_call(self, call: Call) -> None:
        self.before.append(msgspec.structs.replace(call))
        if self.hold is not None:
            await self.hold.wait()
        if self.refusal is not None:
            raise self.refusal

    async def after_call(self, call: Call) -> None:
        self.after.append(call)
        self.told.set()
        if self.failure is not None:
            raise self.failure


def watched(listener: CallWatch) -> list[Added]:
    return [Added(lambda server: server.add_call_listener(listener))]


@pytest.mark.parametrize("format_name", ["json", "default"])
async def test_a_call_is_told_before_it_runs_and_after_it_is_stored(tmp_path: Path, format_name: str) -> None:
    listener = CallWatch()
    async with extended_node(tmp_path, watched(listener)) as on:
        answer = await on.http.post(await on.route(format=format_name), json={"echo": "x"})
        assert answer.status_code == 200
        (before,), (after,) = listener.before, listener.after
        assert before.id == after.id == answer.headers["fn_call_id"]
        assert (before.status, before.path, before.image, before.method) == ("running", "/f", "obey", "POST")
        assert before.started_at >= before.created_at
        assert (after.status, after.error) == ("success", "")
        assert after.completed_at >= after.started_at
        assert (await on.record(answer))["status"] == "success"


@pytest.mark.parametrize("format_name", ["json", "default"])
@pytest.mark.parametrize(
    ("refusal", "status", "shown"),
    [
        (Forbidden(), 403, "BeforeCall: not you"),
        (RuntimeError("no budget"), 500, "internal server error"),
        (TimeoutError("of its own"), 500, "internal server error"),
    ],
)
async def test_a_call_that_is_refused_does_not_run_and_is_recorded(
    tmp_path: Path, format_name: str, refusal: Exception, status: int, shown: str
) -> None:
    listener = CallWatch()
    async with extended_node(tmp_path, watched(listener)) as on:
        path = await on.route(format=format_name)
        listener.refusal = refusal
        answer = await on.http.post(path, json={"exit": 3})
        assert (answer.status_code, answer.json()) == (status, {"error": {"message": shown}})
        record = await on.record(answer)
        assert (record["status"], record["error"]) == ("error", f"BeforeCall: {refusal}")
        assert [call.status for call in listener.after] == ["error"]
        if format_name == "json":
            listener.refusal = None
            assert (await on.http.post(path, json={"echo": "next"})).text == "next"
            assert on.driver.counts.prepared == 1  # the container saw nothing of the refused call


async def test_async_calls_are_told_too(tmp_path: Path) -> None:
    listener = CallWatch()
    async with extended_node(tmp_path, watched(listener)) as on:
        path = await on.route(type="async")
        accepted = await on.http.post(path, json={"echo": "x"})
        assert accepted.status_code == 202
        assert (await on.record(accepted))["status"] == "success"
        assert listener.before[0].type == "async"
        listener.refusal = Forbidden()
        refused = await on.http.post(path, json={"echo": "x"})
        record = await on.record(refused)
        assert (record["status"], record["error"]) == ("error", "BeforeCall: not you")
        assert len(listener.before) == 2  # not delivered again


async def test_a_failure_after_a_call_is_its_answer_but_not_its_record(tmp_path: Path) -> None:
    listener = CallWatch()
    listener.failure = Forbidden()
    async with extended_node(tmp_path, watched(listener)) as on:
        path = await on.route()
        answer = await on.http.post(path, json={"echo": "x"})
        assert (answer.status_code, answer.json()) == (403, {"error": {"message": "AfterCall: not you"}})
        assert (await on.record(answer))["status"] == "success"
        failed = await on.http.post(path, json={"exit": 2})
        assert failed.status_code == 502  # its own error comes first


async def test_the_first_listener_that_refuses_is_the_last_that_is_asked(tmp_path: Path) -> None:
    first, second = CallWatch(), CallWatch()
    first.refusal = Forbidden()
    async with extended_node(tmp_path, [*watched(first), *watched(second)]) as on:
        await on.http.post(await on.route(), json={})
        assert (len(first.before), len(second.before)) == (1, 0)


async def test_a_listener_that_hangs_is_within_the_calls_time(tmp_path: Path) -> None:
    listener = CallWatch()
    listener.hold = asyncio.Event()
    async with extended_node(tmp_path, watched(listener)) as on:
        answer = await on.http.post(await on.route(timeout=1), json={"echo": "x"})
        assert answer.status_code == 504
        assert (await on.record(answer))["status"] == "timeout"


async def test_a_call_whose_client_left_is_told_all_the_same(tmp_path: Path) -> None:
    listener = CallWatch()
    listener.hold = asyncio.Event()
    async with extended_node(tmp_path, watched(listener)) as on:
        path = await on.route()
        asking = asyncio.create_task(on.http.post(path, json={"echo": "x"}))
        while not listener.before:
            await asyncio.sleep(0)
        asking.cancel()
        await listener.told.wait()
        assert (listener.after[0].status, listener.after[0].error) == ("error", "context canceled")
