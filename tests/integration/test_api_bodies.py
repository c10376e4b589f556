"""How request bodies are read: lenient about keys, strict about types; null, absent and empty."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.support.api import APPS, ROUTES, make, message


@pytest.mark.parametrize(
    "body",
    [
        b'{"app":{"name":"x"}}',
        b'\n\t {"app":{"name":"x"}}',
        b'{"app":{"name":"x"}} trailing',
        b'{"app":{"name":"x"}}{"app":{"name":"y"}}',
        b'{"app":{"name":"x"}}\xff',
        b'{"APP":{"nAmE":"x"}}',
        b'{"app":{"name":"x","unknown":[1,{}]},"more":0}',
        b'{"app":{"name":"x","config":null}}',
        b'{"app":{"name":"x","created_at":"2001-01-01T00:00:00Z","updated_at":"2001-01-01T00:00:00Z"}}',
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_is_read_leniently(api: httpx.AsyncClient, body: bytes, content_type: str) -> None:
    answer = await api.post(APPS, content=body, headers={"content-type": content_type})
    assert answer.status_code == 200, answer.text
    app = answer.json()["app"]
    assert (app["name"], "config" in app) == ("x", False)
    assert app["created_at"] == app["updated_at"] > "2020"


@pytest.mark.parametrize(
    "body",
    [
        "",
        " ",
        "x",
        "1",
        '"app"',
        "[]",
        "{",
        '{"app":1}',
        '{"app":[]}',
        '{"app":"x"}',
        '{"app":{"name":1}}',
        '{"app":{"name":["x"]}}',
        '{"app":{"name":"x","config":[]}}',
        '{"app":{"name":"x","config":{"a":1}}}',
        '{"app":{"name":"x","ignored":NaN}}',
        '{"app":{"name":"x","ignored":-Infinity}}',
        '{"app":{"name":"x\n"}}',
        "\ufeff{}",
        '{"app":' + "[" * 100_000,
        '{"app":{"name":"x","ignored":' + "1" * 10_000 + "}}",
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", APPS), ("PATCH", f"{APPS}/some")])
async def test_what_is_no_json_of_this_shape_is_refused(
    api: httpx.AsyncClient, method: str, path: str, body: str
) -> None:
    answer = await api.request(method, path, content=body.encode())
    assert (answer.status_code, answer.text) == (400, '{"error":{"message":"Invalid JSON"}}\n')
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", 1),
        ("image", []),
        ("memory", "128"),
        ("memory", -1),
        ("memory", 1.5),
        ("memory", 2**64),
        ("memory", True),
        ("cpus", 1),
        ("cpus", {}),
        ("headers", []),
        ("headers", {"a": "b"}),
        ("headers", {"a": [1]}),
        ("type", 1),
        ("format", False),
        ("timeout", "30"),
        ("timeout", 2**31),
        ("timeout", 0.5),
        ("idle_timeout", -(2**31) - 1),
        ("config", {"a": {}}),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_wrong_type_is_invalid_json(api: httpx.AsyncClient, method: str, field: str, value: object) -> None:
    path = ROUTES if method == "POST" else f"{ROUTES}/myroute"
    answer = await api.request(method, path, json={"route": {"path": "/myroute", "image": "x", field: value}})
    assert (answer.status_code, message(answer)) == (400, "Invalid JSON")


STORED: dict[str, Any] = {
    "image": "fnproject/hello",
    "memory": 256,
    "cpus": "200m",
    "headers": {"A": ["b"]},
    "type": "async",
    "format": "json",
    "timeout": 60,
    "idle_timeout": 90,
    "config": {"K": "v"},
}
EMPTY = {int: 0, str: "", dict: {}}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("kind", ["absent", "null", "empty"])
@pytest.mark.parametrize("field", list(STORED))
async def test_absent_null_and_empty_leave_a_field_unchanged(
    api: httpx.AsyncClient, method: str, field: str, kind: str
) -> None:
    before = await make(api, **STORED)
    assert {name: before[name] for name in STORED} == STORED
    value = {"null": None, "empty": EMPTY[type(STORED[field])]}
    change = {} if kind == "absent" else {field: value[kind]}
    answer = await api.request(method, f"{ROUTES}/myroute", json={"route": change})
    assert (answer.status_code, answer.json()["route"]) == (200, before)  # not even updated_at


@pytest.mark.parametrize("field", list(STORED))
async def test_absent_null_and_empty_mean_the_default_of_a_new_route(api: httpx.AsyncClient, field: str) -> None:
    if field == "image":
        return  # it has none
    plain = await make(api, "/plain")
    null = await make(api, "/null", **{field: None})
    empty = await make(api, "/empty", **{field: EMPTY[type(STORED[field])]})
    assert plain.get(field) == null.get(field) == empty.get(field)


@pytest.mark.parametrize("gone", ["", None])
async def test_an_empty_or_null_value_deletes_a_key(api: httpx.AsyncClient, gone: object) -> None:
    await make(api, config={"A": "1", "b-c": "2"}, headers={"X-One": ["1"], "X-Two": ["2"]})
    await api.patch(f"{APPS}/myapp", json={"app": {"config": {"A": "1", "b-c": "2"}}})
    app = await api.patch(f"{APPS}/myapp", json={"app": {"config": {"A": gone, "none": gone}}})
    assert app.json()["app"]["config"] == {"b-c": "2"}
    change = {"config": {"A": gone}, "headers": {"x-one": None if gone is None else []}}
    route = await api.patch(f"{ROUTES}/myroute", json={"route": change})
    assert route.json()["route"]["config"] == {"b-c": "2"}
    assert route.json()["route"]["headers"] == {"X-Two": ["2"]}


async def test_the_spelling_of_a_header_given_last_is_kept(api: httpx.AsyncClient) -> None:
    route = await make(api, headers={"x-a": ["1"], "X-A": ["2"], "X-Empty": []})
    assert route["headers"] == {"X-A": ["2"]}
    answer = await api.patch(f"{ROUTES}/myroute", json={"route": {"headers": {"x-A": ["3", "4"]}}})
    assert answer.json()["route"]["headers"] == {"x-A": ["3", "4"]}


async def test_empty_config_values_of_a_new_app_are_stored(api: httpx.AsyncClient) -> None:
    answer = await api.post(APPS, json={"app": {"name": "x", "config": {"lower-case": "", "B": "<"}}})
    assert answer.json()["app"]["config"] == {"lower-case": "", "B": "<"}
    assert (await api.get(f"{APPS}/x")).json()["app"] == answer.json()["app"]


async def test_what_html_could_misread_is_escaped(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/<a&b>")
    assert answer.text == '{"error":{"message":"Path not found: /v1/\\u003ca\\u0026b\\u003e"}}\n'
