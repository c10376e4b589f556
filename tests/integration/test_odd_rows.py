"""Rows that other servers have written in their own way are read, and no list fails because of one of them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.api import APPS, ROUTES, make

from hearth.aio.clock import SystemClock
from hearth.models.call import SUCCESS, Call
from hearth.models.ids import encode
from hearth.stores.sql import SqlDatastore

TIME = "2018-05-01T17:00:00.000Z"


async def test_a_route_without_a_format_has_the_default_one(api: httpx.AsyncClient, tmp_path: Path) -> None:
    await make(api, format="http", memory=256, timeout=7, idle_timeout=9)
    _change(tmp_path, "UPDATE routes SET format = '', type = '', memory = 0, timeout = 0, idle_timeout = 0")
    route = (await api.get(f"{ROUTES}/myroute")).json()["route"]
    assert (route["format"], route["type"]) == ("default", "sync")
    assert (route["memory"], route["timeout"], route["idle_timeout"]) == (128, 30, 30)
    answer = await api.patch(f"{ROUTES}/myroute", json={"route": {"image": "a/new"}})
    assert (answer.status_code, answer.json()["route"]["format"]) == (200, "default")


@pytest.mark.parametrize(
    ("stats", "metrics"),
    [
        ([{"timestamp": TIME}], [{}]),
        ([{"timestamp": TIME, "metrics": None}], [{}]),
        ([{"timestamp": TIME, "metrics": {"net_rx": None, "net_tx": 7}}], [{"net_tx": 7}]),
        ([{"timestamp": TIME, "metrics": {"net_rx": 7.9, "net_tx": "x", "cpu_user": True}}], [{"net_rx": 7}]),
        ([{"timestamp": TIME, "metrics": {"net_rx": -1, "net_tx": 1e300, "mem_usage": 2**63}}], [{}]),
        ([{"timestamp": TIME, "metrics": {"unknown": 7, "net_rx": 1}}], [{"net_rx": 1}]),
        ([{"timestamp": TIME, "metrics": [1]}, {"timestamp": "soon"}, {"timestamp": 7}, None, 7], [{}]),
        ({"timestamp": TIME}, []),
        (None, []),
        ("text", []),
        ("{", []),
    ],
)
async def test_samples_of_a_call_are_read_as_far_as_they_can_be(
    api: httpx.AsyncClient, datastore: SqlDatastore, tmp_path: Path, stats: Any, metrics: list[dict[str, int]]
) -> None:
    await make(api)
    now = SystemClock().now()
    calls = [Call(id=encode(n), app_name="myapp", path="/myroute", status=SUCCESS, created_at=now) for n in (1, 2)]
    await datastore.put_calls([(call, b"") for call in calls])
    text = stats if stats == "{" else json.dumps(stats)
    _change(tmp_path, "UPDATE calls SET stats = ? WHERE id = ?", text, calls[0].id)
    answer = await api.get(f"{APPS}/myapp/calls/{calls[0].id}")
    assert answer.status_code == 200
    assert [sample["metrics"] for sample in answer.json()["call"].get("stats", [])] == metrics
    listed = (await api.get(f"{APPS}/myapp/calls")).json()["calls"]
    assert {call["id"] for call in listed} == {call.id for call in calls}


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("created_at", "2018-05-01 17:00:00 +0000 UTC", "0001-01-01T00:00:00.000Z"),
        ("started_at", "soon", "0001-01-01T00:00:00.000Z"),
        ("completed_at", b"\xff\xfe", "0001-01-01T00:00:00.000Z"),
        ("response_status", "two hundred", None),
        ("response_status", "-1", None),
        ("error", b"no \xff UTF-8", "no \N{REPLACEMENT CHARACTER} UTF-8"),
        ("app_id", None, None),
    ],
)
async def test_a_call_with_a_column_that_cannot_be_read_is_shown_alone_and_in_lists(
    api: httpx.AsyncClient, datastore: SqlDatastore, tmp_path: Path, column: str, value: Any, shown: str | None
) -> None:
    await make(api)
    now = SystemClock().now()
    calls = [Call(id=encode(n), app_name="myapp", path="/myroute", status=SUCCESS, created_at=now) for n in (1, 2)]
    await datastore.put_calls([(call, b"") for call in calls])
    _change(tmp_path, f"UPDATE calls SET {column} = ? WHERE id = ?", _text(value), calls[0].id)
    answer = await api.get(f"{APPS}/myapp/calls/{calls[0].id}")
    assert (answer.status_code, answer.json()["call"].get(column)) == (200, shown)
    listed = (await api.get(f"{APPS}/myapp/calls")).json()["calls"]
    assert {call["id"] for call in listed} == {call.id for call in calls}


@pytest.mark.parametrize("column", ["created_at", "updated_at"])
async def test_apps_and_routes_with_odd_times_are_read(api: httpx.AsyncClient, tmp_path: Path, column: str) -> None:
    await make(api)
    for table in ("apps", "routes"):
        _change(tmp_path, f"UPDATE {table} SET {column} = ?", "yesterday")
    for url, kind in ((f"{APPS}/myapp", "app"), (f"{ROUTES}/myroute", "route")):
        assert (await api.get(url)).json()[kind][column] == "0001-01-01T00:00:00.000Z"
        assert (await api.patch(url, json={kind: {"config": {"a": "b"}}})).status_code == 200


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("config", "{"),
        ("config", "[]"),
        ("config", '{"a": 1}'),
        ("config", b'{"a": "\xff"'),
        ("headers", '{"a": "b"}'),
        ("memory", "much"),
        ("timeout", -1),
    ],
)
async def test_a_route_that_cannot_be_read_fails_alone_and_can_be_removed(
    api: httpx.AsyncClient, tmp_path: Path, column: str, value: Any
) -> None:
    """It would run with another configuration than it was given."""
    await make(api)
    for path in ("/other", "/last"):
        await api.post(ROUTES, json={"route": {"path": path, "image": "a/b"}})
    _change(tmp_path, f"UPDATE routes SET {column} = ? WHERE path = '/other'", _text(value))
    assert (await api.get(f"{ROUTES}/other")).status_code == 500
    answer = await api.get(ROUTES)
    assert [route["path"] for route in answer.json()["routes"]] == ["/last", "/myroute", "/other"]
    patches = [api.patch(f"{ROUTES}/{path}", json={"route": {"timeout": 9}}) for path in ("other", "last", "myroute")]
    assert [answer.status_code for answer in await asyncio.gather(*patches)] == [500, 200, 200]
    assert (await api.delete(f"{ROUTES}/other")).status_code == 200
    assert (await api.get(f"{ROUTES}/other")).status_code == 404


async def test_an_app_that_cannot_be_read_fails_alone_and_can_be_removed(
    api: httpx.AsyncClient, tmp_path: Path
) -> None:
    await make(api)
    await api.post(APPS, json={"app": {"name": "other"}})
    _change(tmp_path, "UPDATE apps SET config = 'x' WHERE name = 'other'")
    assert (await api.get(f"{APPS}/other")).status_code == 500
    assert [app["name"] for app in (await api.get(APPS)).json()["apps"]] == ["myapp", "other"]
    patches = [api.patch(f"{APPS}/{name}", json={"app": {"config": {"a": "b"}}}) for name in ("other", "myapp")]
    assert [answer.status_code for answer in await asyncio.gather(*patches)] == [500, 200]
    assert (await api.delete(f"{APPS}/other")).status_code == 200
    assert [app["name"] for app in (await api.get(APPS)).json()["apps"]] == ["myapp"]


def _text(value: Any) -> Any:
    """Return what SQLite stores as a text with these bytes, where a value is bytes."""
    return value if not isinstance(value, bytes) else _Bytes(value)


class _Bytes:
    def __init__(self, value: bytes) -> None:
        self.value = value


def _change(folder: Path, statement: str, *values: Any) -> None:
    head, *others = statement.split("?")
    text = head
    for value, rest in zip(values, others, strict=True):
        text += ("CAST(? AS TEXT)" if isinstance(value, _Bytes) else "?") + rest
    with sqlite3.connect(folder / "fn.db") as database:
        given = [value.value if isinstance(value, _Bytes) else value for value in values]
        assert database.execute(text, given).rowcount == 1
    database.close()
