"""Schedules through the API: exact answers, and errors that name the field."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.support.api import APPS, make, message
from tests.support.clock import FakeClock
from tests.support.contract import check
from tests.support.door import guarded
from tests.support.scheduled import Enqueued, schedules_of

from hearth.models.app import App
from hearth.models.fn import Fn
from hearth.models.schedule import MAX_PAYLOAD_BYTES
from hearth.server.api import Api
from hearth.stores.sql import SqlDatastore

SCHEDULES = f"{APPS}/myapp/schedules"
NIGHTLY = {"name": "nightly", "route": "/myroute", "cron": "30  2 * * *", "timezone": "Europe/Berlin"}


class World:
    """The API with an app and a route, at the beginning of 2026."""

    def __init__(self, http: httpx.AsyncClient, datastore: SqlDatastore, clock: FakeClock, enqueued: Enqueued) -> None:
        self.http, self.datastore, self.clock, self.enqueued = http, datastore, clock, enqueued

    async def create(self, **fields: Any) -> httpx.Response:
        given = {"name": "s", "route": "/myroute", "every": "1h", **fields}
        wanted = {name: value for name, value in given.items() if value is not None}
        return await self.http.post(SCHEDULES, json={"schedule": wanted})


@pytest.fixture
async def world(datastore: SqlDatastore) -> AsyncIterator[World]:
    clock, enqueued = FakeClock(), Enqueued()
    api = Api(datastore, clock, dict, schedules=schedules_of(datastore, clock, enqueued))
    transport = httpx.ASGITransport(guarded(api, hosts="api"))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://api", event_hooks={"response": [check]}
    ) as client:
        assert (await client.post(APPS, json={"app": {"name": "myapp"}})).status_code == 200
        await make(client, config={"A": "b"}, headers={"X-Of-Route": ["r"]}, retry={"attempts": 3}, expires_s=60)
        yield World(client, datastore, clock, enqueued)


async def test_a_schedule_is_created_shown_replaced_and_deleted(world: World) -> None:
    assert (await world.http.get(SCHEDULES)).json() == {"message": "Successfully listed schedules", "schedules": []}
    made = await world.http.post(SCHEDULES, json={"schedule": {**NIGHTLY, "payload": "{}", "headers": {"X": "y"}}})
    assert made.status_code == 200
    shown = made.json()["schedule"]
    assert made.json()["message"] == "Schedule successfully created"
    assert shown == {
        **{"id": shown["id"], "name": "nightly", "route": "/myroute", "cron": "30 2 * * *"},
        **{"timezone": "Europe/Berlin", "payload": "{}", "headers": {"X": ["y"]}, "enabled": True},
        **{"if_missed": "once", "overlap": "allow"},
        **dict.fromkeys(("created_at", "updated_at"), "2026-01-01T00:00:00.000Z"),
        "next": [f"2026-01-{day:02}T01:30:00.000Z" for day in range(1, 6)],
    }
    again = await world.http.post(SCHEDULES, json={"schedule": NIGHTLY})
    assert (again.status_code, message(again)) == (409, "Schedule already exists")
    body = {"schedule": {"route": "/myroute", "every": "90s", "enabled": False, "overlap": "skip"}}
    changed = (await world.http.put(f"{SCHEDULES}/nightly", json=body)).json()["schedule"]
    assert (changed["id"], changed["every"], changed["next"]) == (shown["id"], "90s", [])
    assert "cron" not in changed
    assert "payload" not in changed
    assert (await world.http.get(f"{SCHEDULES}/nightly")).json()["schedule"] == changed
    assert (await world.http.get(SCHEDULES)).json()["schedules"] == [changed]
    new = (await world.http.put(f"{SCHEDULES}/other", json=body)).json()["schedule"]
    assert new["id"] != shown["id"]
    gone = await world.http.delete(f"{SCHEDULES}/nightly")
    assert (gone.status_code, gone.json()) == (200, {"message": "Schedule deleted"})
    for answer in (
        await world.http.get(f"{SCHEDULES}/nightly"),
        await world.http.delete(f"{SCHEDULES}/nightly"),
        await world.http.post(f"{SCHEDULES}/nightly/run"),
    ):
        assert (answer.status_code, message(answer)) == (404, "Schedule not found")
    unknown = await world.http.get(f"{APPS}/none/schedules")
    assert (unknown.status_code, message(unknown)) == (404, "App not found")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": None}, "name: "),
        ({"name": "-x"}, "name: "),
        ({"name": "a b"}, "name: "),
        ({"name": "n" * 129}, "name: "),
        ({"name": 5}, "name: it must be a string"),
        ({"every": None}, "exactly one of cron, every and at is needed"),
        ({"cron": "* * * * *"}, "exactly one of cron, every and at is needed"),
        ({"every": None, "cron": "0 0 30 2 *"}, "cron: "),
        ({"every": None, "cron": "0 * * * *", "timezone": "Mars/Olympus"}, "timezone: "),
        ({"every": "never"}, "every: "),
        ({"every": None, "at": "2025-01-01T00:00:00Z"}, "at: "),
        ({"every": None, "at": "soon"}, "at: "),
        ({"overlap": "maybe"}, "overlap: it must be one of allow, skip"),
        ({"if_missed": "twice"}, "if_missed: it must be one of skip, once, all"),
        ({"enabled": "yes"}, "enabled: "),
        ({"payload": {"a": 1}}, "payload: it must be a string"),
        ({"payload": "ä" * (MAX_PAYLOAD_BYTES // 2 + 1)}, "payload: it must have at most 65536 bytes"),
        ({"headers": {"X Y": "1"}}, "headers: "),
        ({"headers": {"X": "1\r\nY: 2"}}, "headers: "),
        ({"headers": {"X": 1}}, "headers: "),
        ({"headers": {"fn-schedule": "mine"}}, "headers: Hearth itself sets"),
        ({"headers": {f"X{n}": "1" for n in range(51)}}, "headers: they must be at most 50"),
        ({"headers": {"X": "1" * 9000}}, "headers: they must be at most 50, with 8192 bytes"),
        ({"headers": {"Fn-Delay": "soon"}}, "route: Invalid Fn-Delay"),
        ({"route": None}, "exactly one of route and fn_id is needed"),
        ({"fn_id": "F"}, "exactly one of route and fn_id is needed"),
        ({"route": "/none"}, "route: Route not found"),
        ({"route": None, "fn_id": "none"}, "fn_id: "),
        ({"route": None, "fn_id": "fn-of-other"}, "fn_id: "),
    ],
)
async def test_what_is_wrong_is_refused_by_the_name_of_its_field(
    world: World, fields: dict[str, Any], problem: str
) -> None:
    other = await world.datastore.insert_app(App(name="other"))
    await world.datastore.insert_fn(Fn(id="fn-of-other", app_id=other.id, name="f", image="x"))
    answer = await world.create(**fields)
    assert answer.status_code == 400, answer.text
    assert message(answer).startswith(f"Invalid schedule: {problem}"), message(answer)
    assert (await world.http.get(SCHEDULES)).json()["schedules"] == []


async def test_bodies_without_a_schedule_are_refused(world: World) -> None:
    no_json = "Invalid JSON"
    for body, problem in ((b"{", no_json), (b"{}", "Missing new schedule"), (b'{"schedule":[]}', no_json)):
        answer = await world.http.post(SCHEDULES, content=body)
        assert (answer.status_code, message(answer)) == (400, problem)
    renamed = await world.http.put(
        f"{SCHEDULES}/s", json={"schedule": {"name": "t", "route": "/myroute", "every": "1h"}}
    )
    assert (renamed.status_code, message(renamed)) == (400, "Invalid schedule: name: it cannot be changed")


async def test_a_run_calls_the_function_as_it_is_now(world: World) -> None:
    headers = {"content-type": "text/plain", "X-Two": ["a", "b"]}
    made = await world.create(payload="päyload", headers=headers, enabled=False)
    assert made.status_code == 200
    answer = await world.http.post(f"{SCHEDULES}/s/run")
    assert answer.status_code == 202
    (call,) = world.enqueued.calls
    assert answer.json() == {"call_id": call.id}
    assert (call.app_name, call.path, call.type, call.status, call.origin) == (
        *("myapp", "/myroute", "async", "queued"),
        "schedule s",
    )
    assert (call.method, call.url, call.payload.decode()) == ("POST", "http://localhost/r/myapp/myroute", "päyload")
    assert call.headers == {
        "Content-Type": ["text/plain"],
        "X-Two": ["a", "b"],
        "Fn-Schedule": ["s"],
        "Fn-Schedule-Time": ["2026-01-01T00:00:00.000Z"],
    }
    assert call.config["A"] == "b"
    assert call.result_headers == (("x-of-route", "r"),)
    assert call.retry is not None
    assert (call.retry.attempts, call.attempt, (call.expires_at - call.created_at).seconds) == (3, 1, 60)
    await world.http.delete(f"{APPS}/myapp/routes/myroute")
    gone = await world.http.post(f"{SCHEDULES}/s/run")
    assert (gone.status_code, message(gone)) == (404, "Route not found")


async def test_a_fn_of_the_app_can_be_scheduled(world: World) -> None:
    app = await world.datastore.get_app("myapp")
    await world.datastore.insert_fn(Fn(id="fn-1", app_id=app.id, name="f", image="x"))
    made = (await world.create(route=None, fn_id="fn-1")).json()["schedule"]
    assert (made["fn_id"], "route" in made) == ("fn-1", False)
    await world.http.post(f"{SCHEDULES}/s/run")
    assert [(call.path, call.url) for call in world.enqueued.calls] == [("f", "http://localhost/invoke/fn-1")]


async def test_a_time_in_the_past_stays_until_it_is_changed(world: World) -> None:
    at = "2026-01-01T01:00:00+01:30"
    assert (await world.create(every=None, at="2026-01-01T01:00:00Z")).json()["schedule"]["next"]
    world.clock.advance(7200)
    body = {"schedule": {"route": "/myroute", "at": "2026-01-01T01:00:00Z", "payload": "new"}}
    assert (await world.http.put(f"{SCHEDULES}/s", json=body)).json()["schedule"]["payload"] == "new"
    refused = await world.http.put(f"{SCHEDULES}/s", json={"schedule": {"route": "/myroute", "at": at}})
    assert message(refused).startswith("Invalid schedule: at: ")
