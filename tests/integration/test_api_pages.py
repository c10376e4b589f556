"""Lists: pages, cursors, filters."""

from __future__ import annotations

import base64
import datetime as dt
import random

import httpx
import pytest
from tests.support.api import APPS, ROUTES, make, message

from hearth.models.app import App
from hearth.models.call import ERROR, SUCCESS, Call
from hearth.models.ids import encode
from hearth.stores.sql import SqlDatastore


def cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


async def names(api: httpx.AsyncClient, **query: str | int) -> list[str]:
    return [app["name"] for app in (await api.get(APPS, params=query)).json()["apps"]]


@pytest.fixture
async def five(api: httpx.AsyncClient) -> list[str]:
    """Apps whose names are not in the order in which they were made."""
    made = ["b", "a", "Z", "_", "9"]
    for name in made:
        await api.post(APPS, json={"app": {"name": name}})
    return sorted(made)


@pytest.mark.parametrize(("path", "key"), [(APPS, "apps"), (ROUTES, "routes"), (f"{APPS}/myapp/calls", "calls")])
async def test_empty_lists_are_lists(api: httpx.AsyncClient, path: str, key: str) -> None:
    if key != "apps":
        await api.post(APPS, json={"app": {"name": "myapp"}})
    answer = (await api.get(path)).json()
    assert (answer[key], answer["next_cursor"]) == ([], "")


@pytest.mark.parametrize(
    ("per_page", "count"),
    [
        ("", 30),
        ("0", 30),
        ("-1", 30),
        ("x", 30),
        ("1.5", 30),
        ("1_0", 30),
        (" 5", 30),
        ("\u0665", 30),
        ("-99999999999999999999", 30),
        ("5", 5),
        ("005", 5),
        ("100", 100),
        ("101", 100),
        ("99999999999999999999", 100),
    ],
)
async def test_the_size_of_a_page(api: httpx.AsyncClient, datastore: SqlDatastore, per_page: str, count: int) -> None:
    await api.post(APPS, json={"app": {"name": "myapp"}})
    await datastore.put_calls(
        [(Call(id=encode(n), app_name="myapp", path="/a", status=SUCCESS), None) for n in range(110)]
    )
    answer = (await api.get(f"{APPS}/myapp/calls", params={"per_page": per_page})).json()
    assert len(answer["calls"]) == count
    assert answer["next_cursor"] == answer["calls"][-1]["id"]


async def test_the_first_value_of_a_parameter_wins(api: httpx.AsyncClient, five: list[str]) -> None:
    answer = await api.get(f"{APPS}?per_page=2&per_page=3")
    assert [app["name"] for app in answer.json()["apps"]] == five[:2]


async def test_a_full_last_page_has_a_cursor_to_an_empty_one(api: httpx.AsyncClient, five: list[str]) -> None:
    last = (await api.get(APPS, params={"per_page": 5})).json()
    assert last["next_cursor"] == cursor(five[-1])
    beyond = (await api.get(APPS, params={"per_page": 5, "cursor": last["next_cursor"]})).json()
    assert (beyond["apps"], beyond["next_cursor"]) == ([], "")


async def test_a_cursor_is_exclusive_and_needs_no_item(api: httpx.AsyncClient, five: list[str]) -> None:
    assert await names(api, cursor=cursor(five[1])) == five[2:]
    assert await names(api, cursor=cursor("_a")) == ["a", "b"]


@pytest.mark.parametrize(
    ("broken", "key"), [("%%%", ""), ("!", ""), ("W", ""), ("Wg==", "Z"), ("Wg!!", "Z"), ("_w", "")]
)
async def test_a_broken_cursor_counts_as_what_could_be_read(
    api: httpx.AsyncClient, five: list[str], broken: str, key: str
) -> None:
    assert await names(api, cursor=broken) == [name for name in five if name > key]


@pytest.mark.parametrize("per_page", [1, 2, 3, 7])
async def test_pages_cover_everything_once_in_byte_order(api: httpx.AsyncClient, per_page: int) -> None:
    dice = random.Random(per_page)
    paths = {"/" + "".join(dice.choices("aZ9_-ä€/x", k=6)).strip("/") for _ in range(12)}
    stored = {str((await make(api, path))["path"]) for path in paths}
    seen: list[str] = []
    after = ""
    while page := (await api.get(ROUTES, params={"per_page": per_page, "cursor": after})).json():
        seen += [route["path"] for route in page["routes"]]
        if not (after := page["next_cursor"]):
            break
    assert seen == sorted(stored, key=str.encode)


async def test_calls_are_found_by_path_time_and_cursor(api: httpx.AsyncClient, datastore: SqlDatastore) -> None:
    await api.post(APPS, json={"app": {"name": "myapp"}})
    base = dt.datetime(2018, 1, 31, tzinfo=dt.UTC)
    calls = [
        Call(
            id=encode(n), app_name="myapp", path=f"/{n % 2}", status=SUCCESS, created_at=base + dt.timedelta(seconds=n)
        )
        for n in range(6)
    ]
    await datastore.put_calls([(call, None) for call in calls])
    epoch = int(base.timestamp())

    async def found(**query: str | int) -> list[int]:
        answer = (await api.get(f"{APPS}/myapp/calls", params=query)).json()
        return [ids.index(call["id"]) for call in answer["calls"]]

    ids = [call.id for call in calls]
    assert await found() == [5, 4, 3, 2, 1, 0]
    assert await found(path="/1") == [5, 3, 1]
    assert await found(path="/1/") == []
    assert await found(cursor=ids[3]) == [2, 1, 0]
    assert await found(from_time=epoch + 1) == [5, 4, 3, 2]
    assert await found(to_time=epoch + 4) == [3, 2, 1, 0]
    assert await found(from_time=epoch + 1, to_time=epoch + 4, path="/0", cursor=ids[3]) == [2]
    assert await found(from_time="", to_time="") == [5, 4, 3, 2, 1, 0]
    assert await found(from_time=-(10**18), to_time=10**18) == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("value", ["x", "1.5", "1_0", " 1", "\u0661", "1" * 30, "2018-01-31T00:00:00Z"])
@pytest.mark.parametrize("name", ["from_time", "to_time"])
async def test_what_is_no_epoch_time_is_refused(api: httpx.AsyncClient, name: str, value: str) -> None:
    answer = await api.get(f"{APPS}/nope/calls", params={name: value})
    assert (answer.status_code, message(answer)) == (400, f"{name} is not an epoch time")


async def test_calls_may_be_listed_by_their_status(api: httpx.AsyncClient, datastore: SqlDatastore) -> None:
    await datastore.insert_app(App(name="myapp"))
    failed = Call(id=encode(2), app_name="myapp", path="/a", status=ERROR, response_status=500)
    await datastore.put_calls([(Call(id=encode(1), app_name="myapp", path="/a", status=SUCCESS), None), (failed, None)])
    answer = (await api.get(f"{APPS}/myapp/calls", params={"status": "error"})).json()
    assert [(call["id"], call["response_status"]) for call in answer["calls"]] == [(failed.id, 500)]
    refused = await api.get(f"{APPS}/myapp/calls", params={"status": "failed"})
    assert (refused.status_code, message(refused)) == (
        400,
        "status is not one of queued, running, success, error, timeout, expired, cancelled",
    )
