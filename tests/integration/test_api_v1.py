"""Every conformance row of the API specification, and the exact answers."""

from __future__ import annotations

import datetime as dt

import httpx
import pytest
from tests.support.api import ROUTES, make, message

from hearth.models.call import Call
from hearth.models.ids import encode
from hearth.stores.sql import SqlDatastore

CPUS = "Cpus is invalid. Value should be either between [0.000 and 1024.000] or [0m and 1024000m] milliCPU units"
TIMEOUT = "timeout value is out of range. Sync should be between 0 and 120, async should be between 0 and 3600"
IDLE = "idle_timeout value is out of range. It should be between 0 and 3600"
MEMORY = "memory value is out of range. It should be between 0 and 8192"


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        (ROUTES, "", 400, "Invalid JSON"),
        (ROUTES, '{"type":"sync"}', 400, "Missing new route"),
        (ROUTES, '{"route":null}', 400, "Missing new route"),
        (ROUTES, '{"route":{}}', 400, "Missing route Path"),
        (ROUTES, '{"route":{"path":"/myroute","type":"sync"}}', 400, "Missing route Image"),
        (ROUTES, '{"route":{"image":"x"}}', 400, "Missing route Path"),
        (ROUTES, '{"route":{"image":"x","path":"myroute"}}', 400, "Invalid route path format"),
        (ROUTES, '{"route":{"image":"x","path":"/a?b"}}', 400, "Invalid route path format"),
        (ROUTES, '{"route":{"image":"x","path":"/a/:b"}}', 400, "Dynamic URL is not allowed"),
        ("/v1/apps/$/routes", '{"route":{"image":"x","path":"/myroute"}}', 400, "Invalid app name"),
        ("/v1/apps/$/routes", '{"route":{"path":"/myroute"}}', 400, "Invalid app name"),
        (ROUTES, '{"route":{"image":"x","path":"/r","cpus":"-100"}}', 400, CPUS),
        (ROUTES, '{"route":{"image":"x","path":"/r","cpus":100}}', 400, "Invalid JSON"),
        (ROUTES, '{"route":{"image":"x","path":"/r","memory":-1}}', 400, "Invalid JSON"),
        (ROUTES, '{"route":{"image":"x","path":"/r","memory":1.5}}', 400, "Invalid JSON"),
        (ROUTES, '{"route":{"image":"x","path":"/r","timeout":3000000000}}', 400, "Invalid JSON"),
        (ROUTES, '{"route":{"image":"x","path":"/r","headers":{"a":"b"}}}', 400, "Invalid JSON"),
        ("/v1/apps", "", 400, "Invalid JSON"),
        ("/v1/apps", "[1]", 400, "Invalid JSON"),
        ("/v1/apps", "[" * 100_000, 400, "Invalid JSON"),
        ("/v1/apps", '{"name":"Test"}', 400, "Missing new application"),
        ("/v1/apps", '{"app":{}}', 400, "Missing app name"),
        (
            "/v1/apps",
            '{"app":{"name":"1234567890123456789012345678901"}}',
            400,
            "App name must be 30 characters or less",
        ),
        ("/v1/apps", '{"app":{"name":"&&%@!#$#@$"}}', 400, "Invalid app name"),
    ],
)
async def test_a_bad_post_is_refused(api: httpx.AsyncClient, path: str, body: str, status: int, text: str) -> None:
    answer = await api.post(path, content=body)
    assert (answer.status_code, message(answer)) == (status, text)
    assert (await api.get("/v1/apps")).json()["apps"] == []  # nothing was left behind


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"timeout": 121}, 400, TIMEOUT),
        ({"type": "async", "timeout": 3601}, 400, TIMEOUT),
        ({"idle_timeout": 3601}, 400, IDLE),
        ({"memory": 100000000000000}, 400, MEMORY),
        ({"cpus": "foo"}, 400, CPUS),
        ({"path": "/otherpath"}, 409, "Could not update - path is immutable"),
        ({"type": "invalid-type"}, 400, "Invalid route Type"),
        ({"format": "invalid-format"}, 400, "Invalid route Format"),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_bad_change_stores_nothing(
    api: httpx.AsyncClient, method: str, fields: dict[str, object], status: int, text: str
) -> None:
    before = await make(api)
    answer = await api.request(method, f"{ROUTES}/myroute", json={"route": fields})
    assert (answer.status_code, message(answer)) == (status, text)
    assert (await api.get(f"{ROUTES}/myroute")).json()["route"] == before


async def test_a_good_change_is_merged(api: httpx.AsyncClient) -> None:
    await make(api, config={"A": "1", "B": "2"}, headers={"X-Keep": ["1"], "X-Drop": ["2"]})
    change = {
        "type": "async",
        "timeout": 121,
        "idle_timeout": 240,
        "config": {"A": "", "C": "3"},
        "headers": {"x-drop": [], "X-New": ["4"]},
    }
    answer = await api.patch(f"{ROUTES}/myroute", json={"route": change})
    route = answer.json()["route"]
    assert answer.json()["message"] == "Route successfully updated"
    assert (route["type"], route["timeout"], route["idle_timeout"]) == ("async", 121, 240)
    assert route["config"] == {"B": "2", "C": "3"}
    assert route["headers"] == {"X-Keep": ["1"], "X-New": ["4"]}
    assert route["updated_at"] >= route["created_at"]


async def test_a_missing_route_is_not_patched(api: httpx.AsyncClient) -> None:
    answer = await api.patch(f"{ROUTES}/nope", json={"route": {"timeout": 3}})
    assert (answer.status_code, message(answer)) == (404, "Route not found")


async def test_a_duplicate_is_a_conflict(api: httpx.AsyncClient) -> None:
    await make(api)
    answer = await api.post(ROUTES, json={"route": {"path": "/myroute", "image": "x"}})
    assert (answer.status_code, message(answer)) == (409, "Route already exists")
    answer = await api.post("/v1/apps", json={"app": {"name": "myapp"}})
    assert (answer.status_code, message(answer)) == (409, "App already exists")


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ("{ }", 400, "Missing new route"),
        ('{"route":{"type":"sync"}}', 400, "Missing route Image"),
        ('{"route":{"image":"x","path":"myroute"}}', 409, "Could not update - path is immutable"),
        ('{"route":{"image":"x","path":"diffRoute"}}', 409, "Could not update - path is immutable"),
        ('{"route":{"image":"x","type":"invalid-type"}}', 400, "Invalid route Type"),
        ('{"route":{"image":"x","format":"invalid-format"}}', 400, "Invalid route Format"),
    ],
)
async def test_a_bad_put_is_refused(api: httpx.AsyncClient, body: str, status: int, text: str) -> None:
    answer = await api.put(f"{ROUTES}/myroute", content=body)
    assert (answer.status_code, message(answer)) == (status, text)


async def test_put_creates_then_changes(api: httpx.AsyncClient) -> None:
    body = {"route": {"image": "x", "headers": {"A": ["b"]}}}
    first = await api.put(f"{ROUTES}/myroute/do", json=body)
    second = await api.put(f"{ROUTES}/myroute/do", json=body)
    assert first.json()["message"] == "Route successfully created"
    assert second.json()["message"] == "Route successfully updated"
    assert first.json()["route"] == second.json()["route"]
    assert (await api.patch(f"{ROUTES}/myroute/do", json={"route": {"timeout": 3}})).status_code == 200
    assert (await api.delete(f"{ROUTES}/myroute/do")).json() == {"message": "Route deleted"}


async def test_a_new_route_has_the_defaults(api: httpx.AsyncClient) -> None:
    route = await make(api, path="//a/../myroute/")
    times = (route.pop("created_at"), route.pop("updated_at"))
    assert times[0] == times[1]
    assert route == {
        "app_name": "myapp",
        "path": "/myroute",
        "image": "fnproject/hello",
        "memory": 128,
        "cpus": "",
        "type": "sync",
        "format": "default",
        "timeout": 30,
        "idle_timeout": 30,
    }


async def test_the_root_route_can_be_made_and_fetched(api: httpx.AsyncClient) -> None:
    await api.put(f"{ROUTES}/", json={"route": {"image": "x"}})
    assert (await api.get(f"{ROUTES}//")).json()["route"]["path"] == "/"
    assert (await api.get(f"{ROUTES}/%2F")).json()["route"]["path"] == "/"
    assert (await api.delete(f"{ROUTES}/")).status_code == 200


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH"])
async def test_routes_without_a_route_are_no_path(api: httpx.AsyncClient, method: str) -> None:
    answer = await api.request(method, ROUTES)
    assert (answer.status_code, message(answer)) == (404, f"Path not found: {ROUTES}")


@pytest.mark.parametrize(
    ("method", "path", "status", "target"),
    [
        ("GET", "/v1/apps/", 301, "/v1/apps"),
        ("POST", "/v1/apps/", 307, "/v1/apps"),
        ("GET", "/v1/apps/a/routes/", 301, "/v1/apps/a/routes"),
        ("GET", "/v1/apps/?cursor=x", 301, "/v1/apps?cursor=x"),
        ("GET", "/version/", 301, "/version"),
    ],
)
async def test_a_slash_too_many_is_redirected(
    api: httpx.AsyncClient, method: str, path: str, status: int, target: str
) -> None:
    answer = await api.request(method, path)
    assert (answer.status_code, answer.headers["location"]) == (status, target)


@pytest.mark.parametrize("path", ["/route", "/r", "/v1", "/v1/", "/v1/nothing", "/v1/apps/a/b"])
async def test_an_unknown_path_is_named(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status_code, answer.text) == (404, f'{{"error":{{"message":"Path not found: {path}"}}}}\n')


async def test_a_wrong_method_is_an_unknown_path(api: httpx.AsyncClient) -> None:
    assert (await api.put("/v1/apps")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/apps//routes", "/v1/apps//calls/x"])
async def test_an_empty_app_is_missing(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status_code, message(answer)) == (400, "Missing app name")


async def test_the_small_endpoints(api: httpx.AsyncClient) -> None:
    home = (await api.get("/")).text
    assert home == '{"goto":"https://github.com/fnproject/fn","hello":"world!"}'
    assert (await api.get("/version")).text == '{"version":"0.3.753"}'
    assert (await api.get("/stats")).json() == {"Queue": 0, "FunctionStatsMap": {}}


async def test_the_life_of_an_app(api: httpx.AsyncClient) -> None:
    made = await api.post("/v1/apps", content='{"APP":{"Name":"myapp","config":{"A":"<&>"},"x":1}} trailing')
    assert made.json()["message"] == "App successfully created"
    assert '"A":"\\u003c\\u0026\\u003e"' in made.text
    same_name = await api.patch("/v1/apps/myapp", json={"app": {"name": "myapp"}})
    assert (same_name.status_code, message(same_name)) == (409, "Could not update - name is immutable")
    nothing = await api.patch("/v1/apps/myapp", json={"app": {}})
    assert nothing.json()["app"] == made.json()["app"]
    changed = await api.patch("/v1/apps/myapp", json={"app": {"config": {"A": "", "B": "2"}}})
    assert changed.json()["app"]["config"] == {"B": "2"}
    await make(api)
    assert (await api.delete("/v1/apps/myapp")).json() == {"message": "App deleted"}
    for answer in (await api.get("/v1/apps/myapp"), await api.delete("/v1/apps/myapp"), await api.get(ROUTES)):
        assert (answer.status_code, message(answer)) == (404, "App not found")
    assert message(await api.get(f"{ROUTES}/myroute")) == "Route not found"


async def test_pages_follow_each_other(api: httpx.AsyncClient) -> None:
    for name in ("b", "a", "c"):
        await api.post("/v1/apps", json={"app": {"name": name}})
    first = (await api.get("/v1/apps?per_page=2")).json()
    assert [app["name"] for app in first["apps"]] == ["a", "b"]
    second = (await api.get("/v1/apps", params={"per_page": 2, "cursor": first["next_cursor"]})).json()
    assert ([app["name"] for app in second["apps"]], second["next_cursor"]) == (["c"], "")
    assert len((await api.get("/v1/apps?per_page=-1&cursor=%%%")).json()["apps"]) == 3


async def test_calls_and_logs(api: httpx.AsyncClient, datastore: SqlDatastore) -> None:
    await make(api)
    moment = dt.datetime(2018, 1, 31, 16, 52, 39, 786_999, tzinfo=dt.UTC)
    ids = [encode(number) for number in range(3)]
    calls = [Call(id=one, app_name="myapp", path="/myroute", status="success", created_at=moment) for one in ids]
    await datastore.put_calls([(call, b"a\xff\n") for call in calls])
    listed = (await api.get("/v1/apps/myapp/calls?per_page=2")).json()
    assert [call["id"] for call in listed["calls"]] == [ids[2], ids[1]]
    assert listed["next_cursor"] == ids[1]
    assert listed["calls"][0]["created_at"] == "2018-01-31T16:52:39.786Z"
    assert listed["calls"][0]["started_at"] == "0001-01-01T00:00:00.000Z"
    seconds = int(moment.timestamp())
    assert len((await api.get(f"/v1/apps/myapp/calls?from_time={seconds}")).json()["calls"]) == 3
    assert (await api.get(f"/v1/apps/myapp/calls?to_time={seconds}")).json()["calls"] == []
    for name in ("from_time", "to_time"):
        answer = await api.get(f"/v1/apps/myapp/calls?{name}=x")
        assert (answer.status_code, message(answer)) == (400, f"{name} is not an epoch time")
    one = f"/v1/apps/myapp/calls/{ids[0]}"
    assert (await api.get(one)).json()["call"]["status"] == "success"
    assert message(await api.get(f"/v1/apps/other/calls/{ids[0]}")) == "Call not found"
    raw = await api.get(f"{one}/log", headers={"accept": "text/plain"})
    assert (raw.content, raw.headers["content-type"]) == (b"a\xff\n", "text/plain; charset=utf-8")
    assert (await api.get(f"{one}/log")).json()["log"] == {"call_id": ids[0], "log": "a\ufffd\n", "app_name": "myapp"}
    assert (await api.get(f"{one}/log", headers={"accept": "image/png"})).status_code == 406
    assert message(await api.get("/v1/apps/myapp/calls/nope/log")) == "Call log not found"
