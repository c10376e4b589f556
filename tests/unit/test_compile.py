"""Routes, and calls that were accepted earlier, as functions that the agent runs."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.support.agent import APP, WATCH_S, Bench, bench, settle
from tests.support.virtual_time import run

from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import RoutesInvalidTimeout
from hearth.models.function import Amount, FunctionRef, FunctionSpec
from hearth.models.message import decode_call, encode_call
from hearth.models.route import LIMITS, Route
from hearth.models.times import ZERO
from hearth.server.api_v1 import functions as functions_module
from hearth.server.api_v1.compile import compile_call, compile_route
from hearth.server.api_v1.functions import Functions

SHOP = App(name="a", id="app-1", config={"A": "app", "B": "app", "FN_PATH": "wrong"})
ROUTE = Route(
    app_name="a",
    path="/f",
    image="i",
    format="json",
    memory=256,
    cpu_milli=200,
    timeout=60,
    idle_timeout=20,
    config={"B": "route", "FN_TYPE": "wrong"},
)

#: As version 1 wrote it: apps had no ids, answers no statuses.
FIRST_VERSION = b"""{"id":"01C59M8V1MG3G00GZJ00000002","app_name":"a","path":"/f","status":"queued","image":"i",
"type":"async","format":"json","payload":"/w==","payload_encoding":"base64","url":"http://h/r/a/f","method":"POST",
"priority":0,"timeout":60,"idle_timeout":20,"memory":256,"cpus":"200m",
"config":{"A":"app","B":"route","FN_FORMAT":"json","FN_APP_NAME":"a","FN_PATH":"/f","FN_MEMORY":"256",
"FN_TYPE":"async","FN_CPUS":"200m"},"headers":{"X-Id":["1"]},"created_at":"2026-01-02T00:00:00.000Z",
"started_at":"0001-01-01T00:00:00.000Z","completed_at":"0001-01-01T00:00:00.000Z"}"""
#: As it is written since apps have ids; the payload may stand behind the JSON.
WITH_APP_ID = b"""{"id":"01C59M8V1MG3G00GZJ00000002","app_name":"a","path":"/f","status":"queued","image":"i",\
"type":"async","format":"json","payload_bytes":1,"url":"http://h/r/a/f","method":"POST","priority":0,"timeout":60,"idle_timeout":20,\
"memory":256,"cpus":"200m","config":{"A":"app","B":"route","FN_FORMAT":"json","FN_APP_NAME":"a","FN_PATH":"/f",\
"FN_MEMORY":"256","FN_TYPE":"async","FN_CPUS":"200m"},"headers":{"X-Id":["1"]},\
"created_at":"2026-01-02T00:00:00.000Z","started_at":"0001-01-01T00:00:00.000Z",\
"completed_at":"0001-01-01T00:00:00.000Z","app_id":"app-1"}"""


def test_a_route_becomes_a_function() -> None:
    spec = compile_route(SHOP, ROUTE, LIMITS)
    assert spec.ref == FunctionRef(id="app-1/f", app_id="app-1", app_name="a", name="/f")
    assert (spec.image, spec.contract, spec.amount, spec.is_sync) == ("i", "json", Amount(256, 200), True)
    assert (spec.timeout_s, spec.idle_timeout_s) == (60, 20)
    assert spec.container_labels == {"app": "a", "path": "/f"}
    assert spec.environment == {
        "A": "app",
        "B": "route",
        "FN_FORMAT": "json",
        "FN_APP_NAME": "a",
        "FN_PATH": "/f",
        "FN_MEMORY": "256",
        "FN_TYPE": "sync",
        "FN_CPUS": "200m",
    }


def test_a_function_without_a_cpu_limit_is_not_told_of_one() -> None:
    assert "FN_CPUS" not in compile_route(SHOP, msgspec.structs.replace(ROUTE, cpu_milli=0), LIMITS).environment


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/g"},
        {"image": "j"},
        {"format": "http"},
        {"memory": 257},
        {"cpu_milli": 100},
        {"timeout": 61},
        {"idle_timeout": 21},
        {"type": "async"},
        {"config": {"B": "other"}},
    ],
    ids=str,
)
def test_routes_that_differ_in_what_shapes_a_container_share_none(change: dict[str, Any]) -> None:
    other = compile_route(SHOP, msgspec.structs.replace(ROUTE, **change), LIMITS)
    assert other.hot_key != compile_route(SHOP, ROUTE, LIMITS).hot_key


def test_routes_that_differ_in_nothing_a_container_sees_share_containers() -> None:
    other = msgspec.structs.replace(ROUTE, headers={"X-Own": ["1"]})
    assert compile_route(SHOP, other, LIMITS).hot_key == compile_route(SHOP, ROUTE, LIMITS).hot_key


@pytest.mark.parametrize("before", ["app-2", ""])
def test_an_app_that_was_created_again_shares_nothing_with_its_predecessor(before: str) -> None:
    old, new = (compile_route(msgspec.structs.replace(SHOP, id=one), ROUTE, LIMITS) for one in (before, "app-1"))
    assert old.hot_key != new.hot_key
    assert old.ref != new.ref
    assert old.ref.id != new.ref.id
    assert old.ref.labels == new.ref.labels


def test_an_accepted_call_runs_what_its_route_was() -> None:
    route = msgspec.structs.replace(ROUTE, type="async")
    spec = compile_route(SHOP, route, LIMITS)
    accepted = decode_call(encode_call(Call.of(spec, "1", ZERO, method="POST", url="", headers={})))
    assert compile_call(accepted, LIMITS).hot_key == spec.hot_key


@pytest.mark.parametrize(
    ("message", "app"),
    [(FIRST_VERSION, App(name="a")), (b"\x01" + WITH_APP_ID + b"\n\xff", App(name="a", id="app-1"))],
    ids=["first version", "with app id"],
)
def test_calls_that_earlier_versions_accepted_run_as_they_were_accepted(message: bytes, app: App) -> None:
    call = decode_call(message)
    assert (call.payload, call.headers, call.app_id) == (b"\xff", {"X-Id": ["1"]}, app.id)
    route = msgspec.structs.replace(ROUTE, type="async", config={"A": "app", "B": "route"})
    assert compile_call(call, LIMITS).hot_key == compile_route(app, route, LIMITS).hot_key


def test_an_accepted_call_with_fields_that_are_not_valid_is_no_function() -> None:
    call = decode_call(FIRST_VERSION.replace(b'"timeout":60', b'"timeout":3601'))
    with pytest.raises(RoutesInvalidTimeout):
        compile_call(call, LIMITS)


def play(scenario: Any, **options: Any) -> None:
    async def whole() -> None:
        async with bench(**options) as on:
            await scenario(on)

    run(whole())


def test_a_version_of_a_route_is_compiled_once() -> None:
    async def scenario(on: Bench) -> None:
        functions, route = Functions(on.agent.pool, on.records), Route(app_name="a", path="/f", image="obey")
        spec = functions.of_route(APP, route)
        assert functions.of_route(APP, route) is spec
        assert functions.of_route(msgspec.structs.replace(APP), route) is not spec
        call = decode_call(FIRST_VERSION)
        assert await functions.of_call(call) is await functions.of_call(decode_call(FIRST_VERSION))
        call.memory = 512
        assert (await functions.of_call(call)).amount == Amount(512, 200)

    play(scenario)


def test_containers_of_an_app_that_was_created_again_are_new() -> None:
    async def scenario(on: Bench) -> None:
        old = on.function()
        await on.ask(old)
        await asyncio.sleep(WATCH_S)
        assert [one.spec.app for one in on.driver.containers.values()] == ["name:a"]
        again = on.functions.of_route(msgspec.structs.replace(APP, id="app-2"), on.records.routes["/f"])
        await settle()
        assert on.driver.counts.alive == 0
        await on.ask(again)
        assert on.driver.counts.prepared == 2
        assert [one.spec.app for one in on.driver.containers.values()] == ["app-2"]

    play(scenario)


def test_a_route_that_was_changed_back_keeps_the_containers_that_are_left() -> None:
    async def scenario(on: Bench) -> None:
        first = on.function(timeout=60)
        busy = on.start(first, sleep=5)
        await settle()
        on.function(timeout=50)
        on.function(timeout=60)
        await busy
        await asyncio.sleep(WATCH_S)
        assert on.driver.counts.alive == 1

    play(scenario)


def test_all_functions_of_a_deleted_route_are_forgotten_and_others_stay() -> None:
    async def scenario(on: Bench) -> None:
        apps = [APP, msgspec.structs.replace(APP, id="app-2")]
        kept, specs = on.function("/kept"), []
        await on.ask(kept)
        for app in apps:
            on.function()
            specs.append(on.functions.of_route(app, on.records.routes["/f"]))
            await on.ask(specs[-1])
        await asyncio.sleep(WATCH_S)
        assert {spec.ref for spec in specs} <= on.agent.pool.refs()
        looks = 0
        while not on.functions.forget("a", "/f"):
            looks += 1
            await asyncio.sleep(1)
        assert looks > 0, "containers were there"
        assert on.agent.pool.refs() == {kept.ref}
        assert repr(on.functions) == "<Functions routes=1>"
        assert on.driver.counts.alive == 1

    play(scenario)


def test_a_spec_cannot_be_changed() -> None:
    spec: Any = compile_route(SHOP, ROUTE, LIMITS)
    for name in FunctionSpec.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(spec, name, getattr(spec, name))


def test_the_specs_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions_module, "MAX_ROUTES", 2)
    monkeypatch.setattr(functions_module, "MAX_ACCEPTED", 2)

    async def scenario(on: Bench) -> None:
        routes = [Route(app_name="a", path=f"/{number}", image="obey") for number in range(3)]
        specs = [on.functions.of_route(APP, route) for route in routes]
        assert on.functions.of_route(APP, routes[2]) is specs[2]
        assert on.functions.of_route(APP, routes[1]) is specs[1]
        assert on.functions.of_route(APP, routes[0]) is not specs[0]
        calls = [Call.of(spec, "1", ZERO, method="", url="", headers={}) for spec in specs]
        accepted = [await on.functions.of_call(call) for call in calls]
        assert await on.functions.of_call(calls[2]) is accepted[2]
        assert await on.functions.of_call(calls[0]) is not accepted[0]

    play(scenario)


def test_what_was_learned_of_a_function_without_containers_is_forgotten_with_it() -> None:
    async def scenario(on: Bench) -> None:
        spec = on.function(idle_timeout=1)
        await on.ask(spec, later=0.1)  # a second answer: the function is watched from now on
        await asyncio.sleep(7300)
        assert on.driver.counts.alive == 0
        assert on.agent.pool.refs() == {spec.ref}
        assert on.functions.forget("a", "/f")
        assert on.agent.pool.refs() == set()

    async def whole() -> None:
        async with bench() as on:
            await scenario(on)

    run(whole(), limit_s=10_000)
