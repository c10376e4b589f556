"""Apps and routes: what is missing, what is cleaned, what cannot be changed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.support.api import APPS, ROUTES, make, message

from hearth.models.call import SUCCESS, Call
from hearth.models.ids import encode
from hearth.stores.sql import SqlDatastore


@pytest.mark.parametrize("name", ["", "myapp", "other"])
async def test_only_an_empty_name_may_be_given_in_a_change(api: httpx.AsyncClient, name: str) -> None:
    await make(api)
    answer = await api.patch(f"{APPS}/myapp", json={"app": {"name": name}})
    assert answer.status_code == (409 if name else 200)


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("GET", f"{APPS}/nope", "App not found"),
        ("PATCH", f"{APPS}/nope", "App not found"),
        ("DELETE", f"{APPS}/nope", "App not found"),
        ("GET", f"{APPS}/nope/routes", "App not found"),
        ("GET", f"{APPS}/nope/calls", "App not found"),
        ("GET", f"{APPS}/nope/routes/a/b", "Route not found"),
        ("PATCH", f"{APPS}/nope/routes/a", "Route not found"),
        ("DELETE", f"{APPS}/nope/routes/a", "Route not found"),
        ("GET", f"{ROUTES}/other", "Route not found"),
        ("DELETE", f"{ROUTES}/other", "Route not found"),
        ("GET", f"{APPS}/myapp/calls/{encode(7)}", "Call not found"),
        ("GET", f"{APPS}/nope/calls/{encode(7)}", "Call not found"),
        ("GET", f"{APPS}/nope/calls/{encode(7)}/log", "Call log not found"),
    ],
)
async def test_what_is_missing_is_named(api: httpx.AsyncClient, method: str, path: str, text: str) -> None:
    await make(api)
    body: dict[str, Any] | None = {"app": {}, "route": {}} if method == "PATCH" else None
    answer = await api.request(method, path, json=body)
    assert (answer.status_code, message(answer)) == (404, text)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("/x/", "/x"),
        ("//x", "/x"),
        ("/a//b", "/a/b"),
        ("/a/./b/../c", "/a/c"),
        ("/..", "/"),
        ("/", "/"),
        ("/ä b", "/ä b"),
    ],
)
async def test_a_posted_path_is_cleaned(api: httpx.AsyncClient, given: str, stored: str) -> None:
    assert (await make(api, given))["path"] == stored
    listed = (await api.get(ROUTES)).json()["routes"]
    assert [route["path"] for route in listed] == [stored]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/a?b=c", "Invalid route path format"),
        ("/a#b", "Invalid route path format"),
        ("a/b", "Invalid route path format"),
        ("/:a", "Dynamic URL is not allowed"),
        ("a:b", "Dynamic URL is not allowed"),
        ("/a%zz", "Path malformed"),
        ("/a\x01", "Path malformed"),
        ("", "Missing route Path"),
    ],
)
async def test_a_posted_path_is_checked(api: httpx.AsyncClient, path: str, text: str) -> None:
    answer = await api.post(ROUTES, json={"route": {"path": path, "image": "x"}})
    assert (answer.status_code, message(answer)) == (400, text)


@pytest.mark.parametrize("path", ["", "/myroute"])
async def test_put_takes_its_own_path_only(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.put(f"{ROUTES}//myroute/", json={"route": {"path": path, "image": "x"}})
    assert answer.json()["route"]["path"] == "/myroute"


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_missing_app_is_made_with_its_route(api: httpx.AsyncClient, method: str) -> None:
    path = ROUTES if method == "POST" else f"{ROUTES}/a"
    route = (await api.request(method, path, json={"route": {"path": "/a", "image": "x"}})).json()["route"]
    app = (await api.get(f"{APPS}/myapp")).json()["app"]
    assert app["created_at"] == app["updated_at"] == route["created_at"] == route["updated_at"]


async def test_read_only_fields_of_a_route_are_not_applied(api: httpx.AsyncClient) -> None:
    forged = {"app_name": "other", "created_at": "2001-01-01T00:00:00Z", "updated_at": "2001-01-01T00:00:00Z"}
    route = await make(api, **forged)
    assert route["app_name"] == "myapp"
    assert route["created_at"] == route["updated_at"] > "2020"  # type: ignore[operator]
    answer = await api.patch(f"{ROUTES}/myroute", json={"route": forged})
    assert answer.json()["route"] == route


async def test_updated_at_moves_only_with_a_change(api: httpx.AsyncClient) -> None:
    before = await make(api)
    same = await api.patch(f"{ROUTES}/myroute", json={"route": {"image": before["image"], "timeout": 30}})
    assert same.json()["route"] == before
    while (changed := (await api.patch(f"{ROUTES}/myroute", json={"route": {"memory": 64}})).json()["route"]) == before:
        pass
    assert changed["created_at"] == before["created_at"]
    assert changed["updated_at"] >= before["updated_at"]


async def test_routes_are_found_by_their_exact_image(api: httpx.AsyncClient) -> None:
    for path, image in (("/a", "x:1"), ("/b", "x:2"), ("/c", "x:1")):
        await make(api, path, image=image)
    assert [r["path"] for r in (await api.get(ROUTES, params={"image": "x:1"})).json()["routes"]] == ["/a", "/c"]
    assert (await api.get(ROUTES, params={"image": "x"})).json()["routes"] == []


async def test_a_deleted_route_leaves_its_calls_and_a_deleted_app_does_not(
    api: httpx.AsyncClient, datastore: SqlDatastore
) -> None:
    await make(api)
    await datastore.put_calls([(Call(id=encode(1), app_name="myapp", path="/myroute", status=SUCCESS), b"log")])
    await api.delete(f"{ROUTES}/myroute")
    one = f"{APPS}/myapp/calls/{encode(1)}"
    assert (await api.get(one)).status_code == (await api.get(f"{one}/log")).status_code == 200
    await api.delete(f"{APPS}/myapp")
    assert message(await api.get(one)) == "Call not found"
    assert message(await api.get(f"{one}/log")) == "Call log not found"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", "other"),
        ("memory", 64),
        ("cpus", "100m"),
        ("headers", {"A": ["b"]}),
        ("type", "async"),
        ("format", "http"),
        ("timeout", 7),
        ("idle_timeout", 7),
        ("config", {"A": "b"}),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_change_of_any_one_field_is_stored(
    api: httpx.AsyncClient, method: str, field: str, value: object
) -> None:
    before = await make(api)
    answer = await api.request(method, f"{ROUTES}/myroute", json={"route": {field: value}})
    stored = (await api.get(f"{ROUTES}/myroute")).json()["route"]
    assert stored == answer.json()["route"]
    changed = {name for name in before | stored if before.get(name) != stored.get(name)}
    assert changed - {"updated_at"} == {field}
    assert stored[field] == value
