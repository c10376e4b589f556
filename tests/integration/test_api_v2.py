"""API v2 as today's clients know it: its messages, its merges, its lists, its scopes."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.support.door import guarded

from hearth.aio.clock import SystemClock
from hearth.authorize.stored_tokens import StoredTokens
from hearth.authorize.tokens import digest, new_token
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import StoreUnavailable
from hearth.models.fn import Fn
from hearth.models.ids import IdGenerator, encode
from hearth.models.principal import Role
from hearth.models.token import Token
from hearth.models.trigger import Trigger
from hearth.server.api import Api
from hearth.server.audit import AuditLog
from hearth.stores.sql import SqlDatastore

ZERO = "0001-01-01T00:00:00.000Z"
NOWHERE = encode(7)
PINNED = f"image@sha256:{'0' * 64}"
INVOKE = "fnproject.io/fn/invokeEndpoint"
HTTP = "fnproject.io/trigger/httpEndpoint"


def error(answer: httpx.Response) -> tuple[int, str]:
    """The status and the text of an error, which has no wrapper."""
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.text.endswith("\n")
    body = answer.json()
    assert list(body) == ["message"]
    return answer.status_code, str(body["message"])


async def made(api: httpx.AsyncClient, path: str, **body: object) -> dict[str, Any]:
    answer = await api.post(f"/v2/{path}", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    found: dict[str, Any] = answer.json()
    return found


async def app(api: httpx.AsyncClient, name: str = "app", **body: object) -> str:
    return str((await made(api, "apps", name=name, **body))["id"])


async def fn(api: httpx.AsyncClient, app_id: str, name: str = "fn", **body: object) -> str:
    return str((await made(api, "fns", app_id=app_id, name=name, image="i", **body))["id"])


async def trigger(api: httpx.AsyncClient, app_id: str, fn_id: str, name: str, source: str) -> dict[str, Any]:
    times = {"created_at": ZERO, "updated_at": ZERO}
    return await made(api, "triggers", app_id=app_id, fn_id=fn_id, name=name, type="http", source=source, **times)


# -- apps ------------------------------------------------------------------------------------------------------------


async def test_an_app_has_what_it_was_given_and_its_times(api: httpx.AsyncClient) -> None:
    shown = await made(
        api,
        "apps",
        name="Größe_1",
        config={"A": "1", "EMPTY": ""},
        annotations={"k": {"b": 1, "a": [1.50, True]}},
        syslog_url="tcp://logs:514",
        shape="GENERIC_ARM",
        created_at=ZERO,
        unknown=1,
    )
    assert len(shown["id"]) == 26
    assert shown.pop("created_at") == shown.pop("updated_at") != ZERO
    assert await read(api, f"apps/{shown['id']}") == shown
    assert shown == {
        "id": shown["id"],
        "name": "Größe_1",
        "config": {"A": "1", "EMPTY": ""},
        "annotations": {"k": {"b": 1, "a": [1.50, True]}},
        "syslog_url": "tcp://logs:514",
        "shape": "GENERIC_ARM",
    }


async def read(api: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await api.get(f"/v2/{path}")
    assert answer.status_code == 200, answer.text
    return {name: value for name, value in answer.json().items() if name not in ("created_at", "updated_at")}


async def test_empty_fields_of_an_app_are_left_out(api: httpx.AsyncClient) -> None:
    shown = await made(api, "apps", name="a", config={}, annotations={}, syslog_url=None)
    assert list(shown) == ["id", "name", "created_at", "updated_at"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"id": "x", "name": ""}, 400, "App ID cannot be supplied on create"),
        ({}, 400, "Missing Name"),
        ({"name": "a" * 256}, 400, "App name must be 255 characters or less"),
        ({"name": "a b"}, 400, "Invalid app name"),
        ({"name": "a", "annotations": {"k": ""}, "syslog_url": "x", "shape": "x"}, 400, "Invalid annotation value"),
        (
            {"name": "a", "syslog_url": "http://x", "shape": "x"},
            400,
            'invalid syslog url: "http://x" invalid scheme, only [tcp, udp, unix, unixgram, tcp+tls] are supported',
        ),
        ({"name": "a", "shape": "x"}, 400, "Invalid app shape"),
        ({"name": "taken"}, 409, "App already exists"),
        ({"name": 1}, 400, "Invalid JSON"),
        ({"name": "a", "config": {"A": 1}}, 400, "Invalid JSON"),
        ({"name": "a", "annotations": []}, 400, "Invalid JSON"),
        ({"name": "a", "annotations": {"a b": 1}}, 400, "Invalid annotation key, annotation keys must be non-empty"),
        ({"name": "a", "annotations": {"": 1}}, 400, "Invalid annotation key, annotation keys must be non-empty"),
        ({"name": "a", "annotations": {"k" * 129: 1}}, 400, "Invalid annotation key length"),
        ({"name": "a", "annotations": {"k": None}}, 400, "Invalid annotation value, annotation values may only be"),
        ({"name": "a", "annotations": {"k": "x" * 511}}, 400, "Invalid annotation value length"),
        ({"name": "a", "annotations": {"hearth/auth": "token"}}, 400, "annotation hearth/auth is for fns only"),
        ({"name": "a", "annotations": {str(n): 1 for n in range(101)}}, 400, "Invalid annotation change, new key(s)"),
    ],
)
async def test_a_wrong_app_is_refused(api: httpx.AsyncClient, body: dict[str, Any], status: int, text: str) -> None:
    await app(api, "taken")
    found_status, message = error(await api.post("/v2/apps", json=body))
    assert found_status == status
    assert message.startswith(text)
    assert len((await api.get("/v2/apps")).json()["items"]) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b'{"name": NaN}'])
async def test_what_is_no_json_object_is_refused_in_json(api: httpx.AsyncClient, body: bytes) -> None:
    for path in ("apps", "fns", "triggers"):
        assert error(await api.post(f"/v2/{path}", content=body)) == (400, "Invalid JSON")


async def test_the_largest_annotations_are_kept_as_they_are_written(api: httpx.AsyncClient) -> None:
    body = '{"name":"a","annotations":{"k": {"z" : 1.50 , "a b":[1e400, 12345678901234567890]},"full":"%s"}}' % (
        "x" * 510
    )
    answer = await api.post("/v2/apps", content=body)
    assert '"k":{"z":1.50,"a b":[1e400,12345678901234567890]}' in answer.text
    assert (await api.get(f"/v2/apps/{answer.json()['id']}")).text == answer.text


async def test_a_change_of_an_app_merges(api: httpx.AsyncClient) -> None:
    app_id = await app(api, config={"A": "1", "B": "2"}, annotations={"a": 1, "b": 2}, syslog_url="udp://x:1")
    path = f"/v2/apps/{app_id}"
    before = (await api.get(path)).json()
    assert (await api.put(path, json={"id": app_id, "name": "app", "shape": "GENERIC_ARM"})).json() == before
    body = {"config": {"A": "", "C": "3"}, "annotations": {"a": "", "b": None, "c": 3}, "syslog_url": ""}
    changed = (await api.put(path, json=body)).json()
    assert changed["config"] == {"B": "2", "C": "3"}
    assert changed["annotations"] == {"c": 3}
    assert "syslog_url" not in changed
    assert changed["updated_at"] >= before["updated_at"]
    assert changed["created_at"] == before["created_at"]
    assert (await api.get(path)).json() == changed
    emptied = (await api.put(path, json={"annotations": {"c": ""}, "config": {"B": "", "C": ""}})).json()
    assert list(emptied) == ["id", "name", "created_at", "updated_at"]


async def test_a_wrong_change_of_an_app_is_refused(api: httpx.AsyncClient) -> None:
    path = f"/v2/apps/{await app(api)}"
    assert error(await api.put(path, json={"id": "x"})) == (400, "App ID in path does not match ID in body")
    assert error(await api.put(path, json={"name": "other"})) == (409, "Could not update - name is immutable")
    assert error(await api.put(path, json={"annotations": {"a b": 1}}))[0] == 400
    assert error(await api.put(path, json={"syslog_url": "x"}))[1].startswith("invalid syslog url")
    assert error(await api.put(f"/v2/apps/{NOWHERE}", json={})) == (404, "App not found")


async def test_an_app_of_either_version_is_one_of_both(api: httpx.AsyncClient) -> None:
    app_id = await app(api, "second", config={"A": "1"}, annotations={"k": 1})
    assert (await api.patch("/v1/apps/second", json={"app": {"config": {"B": "2"}}})).status_code == 200
    assert (await read(api, f"apps/{app_id}"))["config"] == {"A": "1", "B": "2"}
    await api.post("/v1/apps", json={"app": {"name": "first"}})
    first = (await api.get("/v1/apps/first")).json()["app"]
    assert (await read(api, f"apps/{first['id']}"))["name"] == "first"
    await api.post("/v1/apps/second/routes", json={"route": {"path": "/r", "image": "i"}})
    fn_id = await fn(api, app_id)
    assert (await api.delete(f"/v2/apps/{app_id}")).status_code == 204
    assert (await api.get("/v1/apps/second/routes")).status_code == 404
    assert error(await api.get(f"/v2/fns/{fn_id}")) == (404, "Fn not found")


# -- fns -------------------------------------------------------------------------------------------------------------


async def test_a_fn_has_its_defaults_and_the_address_to_call_it(api: httpx.AsyncClient) -> None:
    app_id = await app(api, shape="GENERIC_X86")
    shown = await made(api, "fns", app_id=app_id, name="f.n~$&+=:@-", image="img", shape="GENERIC_ARM", format="json")
    assert shown.pop("created_at") == shown.pop("updated_at")
    assert shown == {
        "id": shown["id"],
        "name": "f.n~$&+=:@-",
        "app_id": app_id,
        "image": "img",
        "memory": 128,
        "timeout": 30,
        "idle_timeout": 30,
        "config": {},
        "annotations": {INVOKE: f"http://api/invoke/{shown['id']}"},
        "shape": "GENERIC_X86",
    }
    assert await read(api, f"fns/{shown['id']}") == shown


FN = {"name": "x", "image": "i"}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"id": "x"}, 400, "ID cannot be provided for Fn creation"),
        ({}, 400, "Missing Fn name"),
        ({"name": "a" * 256}, 400, "Fn name must be 255 characters or less"),
        ({"name": "a/b"}, 400, "name must be a valid string"),
        ({"name": "x", "app_id": ""}, 400, "Missing AppID on Fn"),
        ({"name": "x", "timeout": 301}, 400, "Missing image on Fn"),
        ({**FN, "timeout": 301, "idle_timeout": 3601}, 400, "timeout value is out of range, must be between 0 and 300"),
        ({**FN, "timeout": -1}, 400, "timeout value is out of range, must be between 0 and 300"),
        (
            {**FN, "idle_timeout": 3601, "memory": 8193},
            400,
            "idle_timeout value is out of range, must be between 0 and 3600",
        ),
        (
            {**FN, "memory": 8193, "annotations": {"": 1}},
            400,
            "memory value is out of range. It should be between 0 and 8192",
        ),
        ({**FN, "memory": -1}, 400, "Invalid JSON"),
        ({**FN, "app_id": NOWHERE, "annotations": {"k": ""}}, 400, "Invalid annotation value, annotation"),
        ({**FN, "annotations": {"hearth/auth": "signed"}}, 400, 'annotation hearth/auth must be "open" or "token"'),
        ({**FN, "annotations": {"hearth/auth": ["token"]}}, 400, 'annotation hearth/auth must be "open" or "token"'),
        ({**FN, "app_id": NOWHERE}, 404, "App not found"),
        ({**FN, "name": "taken"}, 409, "Fn with specified name already exists"),
    ],
)
async def test_a_wrong_fn_is_refused(api: httpx.AsyncClient, body: dict[str, Any], status: int, text: str) -> None:
    app_id = await app(api)
    await fn(api, app_id, "taken")
    found_status, message = error(await api.post("/v2/fns", json={"app_id": app_id, **body}))
    assert (found_status, message[: len(text)]) == (status, text)
    assert len((await api.get(f"/v2/fns?app_id={app_id}")).json()["items"]) == 1


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"": "x"}, "Invalid config: a name is empty"),
        ({"A=B": "x"}, "Invalid config: name 'A=B' must not contain ="),
        ({"A\0B": "x"}, r"Invalid config: name 'A\x00B' must not contain NUL"),
        ({"FINE": "x", "A": "x\0y"}, "Invalid config: the value of 'A' must not contain NUL"),
    ],
)
async def test_a_config_that_no_process_can_have_is_refused(
    api: httpx.AsyncClient, config: dict[str, str], text: str
) -> None:
    app_id = await app(api)
    fn_id = await fn(api, app_id, "taken")
    wrong = [
        ("POST", "apps", {"name": "other", "config": config}),
        ("PUT", f"apps/{app_id}", {"config": config}),
        ("POST", "fns", {**FN, "app_id": app_id, "config": config}),
        ("PUT", f"fns/{fn_id}", {"config": config}),
    ]
    for method, path, body in wrong:
        assert error(await api.request(method, f"/v2/{path}", json=body)) == (400, text), (method, path)
    assert len((await api.get("/v2/apps")).json()["items"]) == 1
    assert len((await api.get(f"/v2/fns?app_id={app_id}")).json()["items"]) == 1
    assert [(await read(api, path)).get("config") or {} for path in (f"apps/{app_id}", f"fns/{fn_id}")] == [{}, {}]


async def test_a_change_of_a_fn_merges_and_ignores_what_cannot_change(api: httpx.AsyncClient) -> None:
    app_id = await app(api)
    fn_id = await fn(api, app_id, config={"A": "1"}, annotations={"a": 1})
    before = (await api.get(f"/v2/fns/{fn_id}")).json()
    assert (await api.put(f"/v2/fns/{fn_id}", json=before)).json() == before
    body = {"name": "new", "app_id": "new", "image": "new", "memory": 256, "config": {"A": ""}, "annotations": {"b": 2}}
    changed = (await api.put(f"/v2/fns/{fn_id}", json=body)).json()
    assert (changed["name"], changed["app_id"], changed["image"]) == ("fn", app_id, "new")
    assert (changed["memory"], changed["timeout"], changed["config"]) == (256, 30, {})
    assert changed["annotations"] == {"a": 1, "b": 2, INVOKE: f"http://api/invoke/{fn_id}"}
    assert changed["updated_at"] >= before["updated_at"]
    assert (await api.get(f"/v2/fns/{fn_id}")).json() == changed


async def test_an_address_that_was_sent_back_is_not_stored(api: httpx.AsyncClient, datastore: SqlDatastore) -> None:
    app_id = await app(api)
    fn_id = await fn(api, app_id)
    await trigger(api, app_id, fn_id, "t", "/t")
    for path in (f"/v2/fns/{fn_id}", f"/v2/triggers/{(await items(api, 'triggers', app_id))[0]['id']}"):
        await api.put(path, json={**(await api.get(path)).json(), "annotations": {INVOKE: "x", HTTP: "x", "k": 1}})
    assert (await datastore.get_fn(fn_id)).annotations == {"k": "1"}
    assert (await datastore.get_trigger_by_source(app_id, "http", "/t")).annotations == {"k": "1"}


async def test_a_wrong_change_of_a_fn_changes_nothing(api: httpx.AsyncClient) -> None:
    app_id = await app(api)
    one, other = await fn(api, app_id, "one"), await fn(api, app_id, "other")
    mismatch = await api.put(f"/v2/fns/{one}", json={"id": other, "image": "new"})
    assert error(mismatch) == (400, "Fn ID in path does not match that in body")
    assert error(await api.put(f"/v2/fns/{one}", json={"timeout": 301, "image": "new"}))[0] == 400
    assert [shown["image"] for shown in await items(api, "fns", app_id)] == ["i", "i"]
    assert error(await api.put(f"/v2/fns/{NOWHERE}", json={})) == (404, "Fn not found")


async def test_what_is_removed_is_gone(api: httpx.AsyncClient) -> None:
    app_id = await app(api)
    fn_id = await fn(api, app_id)
    shown = await trigger(api, app_id, fn_id, "t", "/t")
    other = await trigger(api, app_id, await fn(api, app_id, "other"), "t", "/other")
    for path, text in ((f"triggers/{other['id']}", "Trigger"), (f"fns/{fn_id}", "Fn"), (f"apps/{app_id}", "App")):
        answer = await api.delete(f"/v2/{path}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert error(await api.get(f"/v2/{path}")) == (404, f"{text} not found")
        assert error(await api.delete(f"/v2/{path}")) == (404, f"{text} not found")
    assert error(await api.get(f"/v2/triggers/{shown['id']}")) == (404, "Trigger not found")


# -- triggers --------------------------------------------------------------------------------------------------------


async def test_a_trigger_has_the_address_to_call_it(api: httpx.AsyncClient) -> None:
    app_id = await app(api, "my-app")
    fn_id = await fn(api, app_id)
    shown = await trigger(api, app_id, fn_id, "t", "/a/b")
    assert shown["annotations"] == {HTTP: "http://api/t/my-app/a/b"}
    assert (shown["type"], shown["source"], shown["fn_id"]) == ("http", "/a/b", fn_id)
    assert (await api.get(f"/v2/triggers/{shown['id']}")).json() == shown
    assert (await trigger(api, app_id, fn_id, "root", "/"))["annotations"] == {HTTP: "http://api/t/my-app/"}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"id": "x", "created_at": "2020-01-01T00:00:00Z"}, 400, "ID cannot be provided for Trigger creation"),
        ({"created_at": "2020-01-01T00:00:00Z"}, 400, "Trigger Created At Provided for Create"),
        ({"updated_at": "2020-01-01T00:00:00Z"}, 400, "Trigger ID Provided for Create"),
        ({"created_at": "yesterday"}, 400, "Invalid JSON"),
        ({"app_id": "", "name": ""}, 400, "Missing App ID on Trigger"),
        ({"name": "", "fn_id": ""}, 400, "Missing name on Trigger"),
        ({"name": "a" * 256}, 400, "Trigger name must be 255 characters or less"),
        ({"name": "a b", "fn_id": ""}, 400, "Invalid name for Trigger"),
        ({"fn_id": "", "type": ""}, 400, "Missing Fn ID on Trigger"),
        ({"type": "x", "source": ""}, 400, "Trigger Type Not Supported"),
        ({"source": ""}, 400, "Missing Trigger Source"),
        ({"source": "x", "annotations": {"": 1}}, 400, "Missing Trigger Source Prefix '/'"),
        ({"source": "/" * 257}, 400, "Trigger source must be 256 characters or less"),
        ({"annotations": {"k": ""}, "app_id": NOWHERE}, 400, "Invalid annotation value, annotation"),
        ({"app_id": NOWHERE, "fn_id": NOWHERE}, 404, "App not found"),
        ({"fn_id": NOWHERE, "source": "/taken"}, 404, "Fn not found"),
        ({"fn_id": "foreign"}, 400, "Invalid Fn ID - not owned by specified app"),
        ({"annotations": {"hearth/auth": "token"}}, 400, "annotation hearth/auth is for fns only"),
        ({"source": "/taken", "name": "taken"}, 409, "Trigger with the same type and source exists on this app"),
        ({"name": "taken"}, 409, "Trigger already exists"),
    ],
)
async def test_a_wrong_trigger_is_refused(api: httpx.AsyncClient, body: dict[str, Any], status: int, text: str) -> None:
    app_id = await app(api)
    fn_id = await fn(api, app_id)
    await trigger(api, app_id, fn_id, "taken", "/taken")
    if body.get("fn_id") == "foreign":
        body = {"fn_id": await fn(api, await app(api, "other"))}
    good = {"app_id": app_id, "fn_id": fn_id, "name": "new", "type": "http", "source": "/new"}
    found_status, message = error(await api.post("/v2/triggers", json={**good, **body}))
    assert (found_status, message[: len(text)]) == (status, text)
    assert len(await items(api, "triggers", app_id)) == 1


async def test_a_change_of_a_trigger_is_checked_like_a_new_one(api: httpx.AsyncClient) -> None:
    app_id = await app(api)
    fn_id = await fn(api, app_id)
    foreign = await fn(api, await app(api, "other"))
    await trigger(api, app_id, fn_id, "taken", "/taken")
    path = f"/v2/triggers/{(await trigger(api, app_id, fn_id, 't', '/t'))['id']}"
    for body, status, text in [
        ({"id": "x"}, 400, "ID in path does not match ID in body"),
        ({"name": "a b"}, 400, "Invalid name for Trigger"),
        ({"source": "x"}, 400, "Missing Trigger Source Prefix '/'"),
        ({"source": "/taken"}, 409, "Trigger with the same type and source exists on this app"),
        ({"name": "taken"}, 409, "Trigger already exists"),
        ({"fn_id": NOWHERE}, 404, "Fn not found"),
        ({"fn_id": foreign}, 400, "Invalid Fn ID - not owned by specified app"),
    ]:
        assert error(await api.put(path, json=body)) == (status, text)
    change = {"name": "new", "source": "/new", "type": "x", "app_id": "x", "annotations": {"k": 1}}
    changed = (await api.put(path, json=change)).json()
    assert (changed["name"], changed["source"], changed["type"], changed["app_id"]) == ("new", "/new", "http", app_id)
    assert changed["annotations"] == {"k": 1, HTTP: "http://api/t/app/new"}
    assert (await api.get(path)).json() == changed
    assert error(await api.put(f"/v2/triggers/{NOWHERE}", json={})) == (404, "Trigger not found")


async def test_a_runner_finds_a_trigger_by_its_source(api: httpx.AsyncClient) -> None:
    app_id = await app(api)
    shown = await trigger(api, app_id, await fn(api, app_id), "t", "/a b/c")
    found = await api.get(f"/v2/runner/apps/{app_id}/triggerBySource/http//a%20b/c")
    assert found.json() == shown
    for path in (f"{app_id}/triggerBySource/http/a%20b/c", f"{NOWHERE}/triggerBySource/http//a%20b/c"):
        assert error(await api.get(f"/v2/runner/apps/{path}")) == (404, "Trigger not found")


# -- lists -----------------------------------------------------------------------------------------------------------


async def items(api: httpx.AsyncClient, kind: str, app_id: str, **query: str) -> list[dict[str, Any]]:
    answer = await api.get(f"/v2/{kind}", params={"app_id": app_id, **query})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def paged(api: httpx.AsyncClient, path: str) -> list[str]:
    """The names of a list, in pages of two."""
    names: list[str] = []
    cursor = ""
    while True:
        page = (await api.get(f"{path}per_page=2&cursor={cursor}")).json()
        names += [item["name"] for item in page["items"]]
        assert ("next_cursor" in page) == (len(page["items"]) == 2)
        if "next_cursor" not in page:
            return names
        cursor = page["next_cursor"]
        assert "=" not in cursor


async def test_lists_come_by_name_in_pages(api: httpx.AsyncClient) -> None:
    for name in ("b", "B", "ä", "a"):
        app_id = await app(api, name)
    assert await paged(api, "/v2/apps?") == ["B", "a", "b", "ä"]
    for name in ("b", "B", "a"):
        await fn(api, app_id, name)
    assert await paged(api, f"/v2/fns?app_id={app_id}&") == ["B", "a", "b"]
    for number, found in enumerate(await items(api, "fns", app_id)):
        await trigger(api, app_id, found["id"], "same", f"/{number}")
    assert await paged(api, f"/v2/triggers?app_id={app_id}&") == ["same"] * 3


async def test_a_page_has_30_items_unless_it_is_told_and_100_at_most(
    api: httpx.AsyncClient, datastore: SqlDatastore
) -> None:
    app_id, now = await app(api), dt.datetime.now(dt.UTC)
    fn_id = await fn(api, app_id, "fn")
    for number in range(101):
        times: dict[str, Any] = {"created_at": now, "updated_at": now, "name": f"n{number:03}"}
        await datastore.insert_app(App(id=encode(1000 + number), **times))
        await datastore.insert_fn(Fn(id=encode(2000 + number), app_id=app_id, image="i", **times))
        of_app: dict[str, Any] = {"app_id": app_id, "fn_id": fn_id, "source": f"/{number}"}
        await datastore.insert_trigger(Trigger(id=encode(3000 + number), **of_app, **times))
    for kind in ("apps", "fns", "triggers"):
        for asked, size in (("", 30), ("0", 30), ("-1", 30), ("x", 30), ("7", 7), ("100", 100), ("101", 100)):
            page = (await api.get(f"/v2/{kind}?app_id={app_id}&per_page={asked}")).json()
            assert (len(page["items"]), "next_cursor" in page) == (size, True), (kind, asked)


async def test_filters_combine(api: httpx.AsyncClient) -> None:
    app_id, other = await app(api), await app(api, "other")
    fn_id = await fn(api, app_id)
    await fn(api, other)
    await trigger(api, app_id, fn_id, "t", "/1")
    await trigger(api, app_id, await fn(api, app_id, "second"), "t", "/2")
    assert [found["name"] for found in (await api.get("/v2/apps?name=other&display_name=x")).json()["items"]] == [
        "other"
    ]
    assert (await api.get("/v2/apps?name=none")).json() == {"items": []}
    assert [found["id"] for found in await items(api, "fns", app_id, name="fn")] == [fn_id]
    assert len(await items(api, "triggers", app_id)) == 2
    assert [found["source"] for found in await items(api, "triggers", app_id, fn_id=fn_id)] == ["/1"]
    assert await items(api, "triggers", app_id, fn_id=fn_id, name="x") == []
    for kind in ("fns", "triggers"):
        assert await items(api, kind, NOWHERE) == []
    assert error(await api.get("/v2/fns")) == (400, "Missing AppID on Fn")
    assert error(await api.get("/v2/triggers?app_id=")) == (400, "Missing App ID on Trigger")


@pytest.mark.parametrize("cursor", ["=", "a", "%00", "YQ==", "_w", "AA"])
async def test_a_cursor_that_no_list_has_is_refused(api: httpx.AsyncClient, cursor: str) -> None:
    app_id = await app(api)
    for path in ("apps?", f"fns?app_id={app_id}&", f"triggers?app_id={app_id}&"):
        answer = await api.get(f"/v2/{path}cursor={cursor}")
        assert answer.status_code == 400, answer.text


async def test_what_is_not_for_clients_is_a_500_without_a_wrapper(
    api: httpx.AsyncClient, datastore: SqlDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_which: object) -> App:
        raise StoreUnavailable("secret")

    monkeypatch.setattr(datastore, "get_app_by_id", broken)
    assert error(await api.get(f"/v2/apps/{NOWHERE}")) == (500, "internal server error")


# -- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v2/none", 404, "Path not found: GET /v2/none"),
        ("GET", "/v2/apps/x/y", 404, "Path not found: GET /v2/apps/x/y"),
        ("PUT", "/v2/apps", 405, "Method not allowed: PUT /v2/apps"),
        ("PATCH", "/v2/fns/x", 405, "Method not allowed: PATCH /v2/fns/x"),
        ("POST", "/v2/triggers/x", 405, "Method not allowed: POST /v2/triggers/x"),
        ("DELETE", "/v2/fns/x/calls", 405, "Method not allowed: DELETE /v2/fns/x/calls"),
    ],
)
async def test_unknown_paths_and_methods_are_told_apart(
    api: httpx.AsyncClient, method: str, path: str, status: int, text: str
) -> None:
    assert error(await api.request(method, path)) == (status, text)


async def test_a_slash_too_many_is_redirected(api: httpx.AsyncClient) -> None:
    got = await api.get("/v2/apps/?per_page=1")
    assert (got.status_code, got.headers["location"]) == (301, "/v2/apps?per_page=1")
    posted = await api.post("/v2/apps/", json={"name": "a"})
    assert (posted.status_code, posted.headers["location"]) == (307, "/v2/apps")


async def test_json_may_stand_inside_html(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v2/apps", content=json.dumps({"name": "a", "annotations": {"k": "<&>"}}))
    assert '"\\u003c\\u0026\\u003e"' in answer.text
    assert answer.json()["annotations"] == {"k": "<&>"}


# -- scopes and the audit log -----------------------------------------------------------------------------------------


@pytest.fixture
async def stored_api(datastore: SqlDatastore) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API of a node that has stored tokens and an audit log."""
    clock = SystemClock()
    next_id = IdGenerator(1, clock.now_ns)
    audit = AuditLog(datastore, clock, next_id)
    stored = StoredTokens(datastore.find_token, clock)
    served = guarded(Api(datastore, clock, dict, next_id=next_id), hosts="api", stored=stored, audit=audit)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://api") as client:
        yield client
    await audit.close()


@pytest.fixture
async def tokens(datastore: SqlDatastore) -> dict[str, str]:
    """Values of tokens that reach the app ``mine`` only, by role."""
    values = {}
    for number, role in enumerate((Role.DEPLOYER, Role.VIEWER, Role.INVOKER)):
        value = values[role.value] = new_token()
        made_token = Token(
            id=encode(number),
            name="t",
            role=role,
            apps=("mine",),
            digest=digest(value.encode()),
            created_at=SystemClock().now(),
        )
        await datastore.insert_token(made_token)
    return values


def bearing(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


async def test_a_token_of_some_apps_reaches_nothing_else(stored_api: httpx.AsyncClient, tokens: dict[str, str]) -> None:
    api = stored_api
    mine, foreign = await app(api, "mine"), await app(api, "foreign")
    mine_fn, foreign_fn = await fn(api, mine), await fn(api, foreign)
    mine_trigger = (await trigger(api, mine, mine_fn, "t", "/t"))["id"]
    foreign_trigger = (await trigger(api, foreign, foreign_fn, "t", "/t"))["id"]
    deployer = bearing(tokens["deployer"])

    async def asked(method: str, path: str, **body: object) -> tuple[int, str]:
        answer = await api.request(method, f"/v2/{path}", headers=deployer, json=body)
        return answer.status_code, answer.json()["message"] if answer.status_code >= 400 else ""

    for method in ("GET", "PUT", "DELETE"):
        assert await asked(method, f"apps/{foreign}") == (404, "App not found")
        assert await asked(method, f"fns/{foreign_fn}") == (404, "Fn not found")
        assert await asked(method, f"triggers/{foreign_trigger}") == (404, "Trigger not found")
    assert await asked("POST", "fns", app_id=foreign, name="n", image=PINNED) == (404, "App not found")
    new = {"name": "n", "type": "http", "source": "/n"}
    assert await asked("POST", "triggers", app_id=foreign, fn_id=foreign_fn, **new) == (404, "App not found")
    assert (await asked("POST", "triggers", app_id=mine, fn_id=foreign_fn, **new))[0] == 400
    of_foreign = [f"/v2/{kind}?app_id={foreign}" for kind in ("fns", "triggers")]
    before = [(await api.get(path)).json()["items"] for path in of_foreign]
    for path, body in (
        (f"triggers/{mine_trigger}", {"fn_id": foreign_fn}),
        (f"triggers/{mine_trigger}", {"app_id": foreign}),
        (f"fns/{mine_fn}", {"app_id": foreign}),
        (f"apps/{mine}", {"name": "foreign"}),
    ):
        assert (await asked("PUT", path, **body))[0] in (200, 400, 409), "it is refused or ignored"
    kept = (await api.get(f"/v2/triggers/{mine_trigger}")).json()
    assert (kept["app_id"], kept["fn_id"]) == (mine, mine_fn)
    assert (await api.get(f"/v2/fns/{mine_fn}")).json()["app_id"] == mine
    assert (await api.get(f"/v2/apps/{mine}")).json()["name"] == "mine"
    assert [(await api.get(path)).json()["items"] for path in of_foreign] == before
    assert (await asked("POST", "apps", name="new"))[0] == 403
    for path in (f"fns?app_id={foreign}", f"triggers?app_id={foreign}", "apps?name=foreign"):
        assert (await api.get(f"/v2/{path}", headers=deployer)).json() == {"items": []}
    assert [shown["name"] for shown in (await api.get("/v2/apps", headers=deployer)).json()["items"]] == ["mine"]
    assert (await asked("GET", f"runner/apps/{foreign}/triggerBySource/http//t"))[0] == 404
    assert (await asked("POST", "fns", app_id=mine, name="n", image="tag"))[0] == 403
    assert (await asked("PUT", f"fns/{mine_fn}", image="tag"))[0] == 403
    assert (await asked("POST", "fns", app_id=mine, name="n", image=PINNED))[0] == 200
    assert (await asked("PUT", f"triggers/{mine_trigger}", source="/new"))[0] == 200
    assert (await asked("GET", f"fns/{mine_fn}/calls"))[0] == 403


async def test_a_viewer_sees_names_and_no_values(stored_api: httpx.AsyncClient, tokens: dict[str, str]) -> None:
    api, viewer = stored_api, bearing(tokens["viewer"])
    app_id = await app(api, "mine", config={"A": "secret"})
    fn_id = await fn(api, app_id, config={"B": "secret"})
    for path, config in ((f"apps/{app_id}", {"A": "***"}), (f"fns/{fn_id}", {"B": "***"})):
        assert (await api.get(f"/v2/{path}", headers=viewer)).json()["config"] == config
        assert (await api.put(f"/v2/{path}", headers=viewer, json={})).status_code == 403
    assert (await api.get(f"/v2/fns/{fn_id}/calls", headers=viewer)).status_code == 200
    invoker = bearing(tokens["invoker"])
    assert (await api.get(f"/v2/fns/{fn_id}", headers=invoker)).status_code == 403
    assert (await api.get(f"/v2/fns/{fn_id}/calls", headers=invoker)).status_code == 200


async def test_changes_are_audited_with_their_app(stored_api: httpx.AsyncClient) -> None:
    api = stored_api
    app_id = await app(api, "mine")
    fn_id = await fn(api, app_id)
    await api.put(f"/v2/fns/{fn_id}", json={"image": "new"})
    await api.delete(f"/v2/apps/{app_id}")
    events = (await api.get("/v1/audit")).json()["events"]
    assert [(event["action"], event["app"], event["resource"]) for event in reversed(events)] == [
        ("apps:write", "mine", f"POST /v2/apps {app_id}"),
        ("fns:write", "mine", f"POST /v2/fns {fn_id}"),
        ("fns:write", "mine", f"PUT /v2/fns/{fn_id} fn"),
        ("apps:write", "mine", f"DELETE /v2/apps/{app_id}"),
    ]


# -- calls -----------------------------------------------------------------------------------------------------------


async def test_the_calls_of_a_fn_are_its_own(api: httpx.AsyncClient, datastore: SqlDatastore) -> None:
    app_id = await app(api)
    before = (await made(api, "fns", app_id=app_id, name="fn", image="i"))["id"]
    old = await record(datastore, before, 1)
    await api.delete(f"/v2/fns/{before}")
    fn_id = await fn(api, app_id)
    calls = [await record(datastore, fn_id, number) for number in (2, 3, 4)]
    await record(datastore, await fn(api, app_id, "other"), 5)
    path = f"/v2/fns/{fn_id}/calls"
    first = (await api.get(f"{path}?per_page=2")).json()
    assert [call["id"] for call in first["items"]] == [calls[2], calls[1]]
    rest = (await api.get(f"{path}?cursor={first['next_cursor']}")).json()
    assert [call["id"] for call in rest["items"]] == [calls[0]]
    assert "next_cursor" not in rest
    shown = (await api.get(f"{path}/{calls[0]}")).json()
    assert (shown["fn_id"], shown["app_id"], shown["app_name"], shown["status"]) == (fn_id, app_id, "app", "success")
    assert shown["execution_duration"] == 250_000_000
    assert error(await api.get(f"{path}/{old}")) == (404, "Call not found")
    assert error(await api.get(f"{path}/{old}/log")) == (404, "Call log not found")
    assert (await api.get(f"{path}/{calls[0]}/log")).json() == {"call_id": calls[0], "log": "log 2 ü\ufffd"}
    text = await api.get(f"{path}/{calls[0]}/log", headers={"Accept": "text/plain"})
    assert (text.content, text.headers["content-type"]) == (b"log 2 \xc3\xbc\xff", "text/plain; charset=utf-8")
    refused = await api.get(f"{path}/{calls[0]}/log", headers={"Accept": "image/png"})
    assert error(refused) == (406, "unable to respond within acceptable response content types")
    assert error(await api.get(f"{path}?from_time=x")) == (400, "from_time is not an epoch time")
    assert error(await api.get(f"{path}?to_time=x")) == (400, "to_time is not an epoch time")
    assert error(await api.get(f"/v2/fns/{NOWHERE}/calls")) == (404, "Fn not found")
    assert (await api.get(f"{path}?to_time=1000")).json() == {"items": []}


async def record(datastore: SqlDatastore, fn_id: str, number: int) -> str:
    found = await datastore.get_fn(fn_id)
    owner = await datastore.get_app_by_id(found.app_id)
    began = dt.datetime.now(dt.UTC)
    call = Call(
        id=encode(number),
        app_name=owner.name,
        path=found.name,
        status="success",
        created_at=began,
        started_at=began,
        completed_at=began + dt.timedelta(milliseconds=250),
    )
    await datastore.put_calls([(call, f"log {number} ü".encode() + b"\xff")])
    return call.id
