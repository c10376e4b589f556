"""Paths, errors and logs: redirects, unknown paths, what a client is not told, the forms of a log."""

from __future__ import annotations

import re

import httpx
import pytest
import structlog
from tests.support.api import APPS, ROUTES, make, message

from hearth.models.call import SUCCESS, Call
from hearth.models.errors import StoreUnavailable
from hearth.models.ids import encode
from hearth.stores.sql import SqlDatastore


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("GET", "/v1/apps/a/", "/v1/apps/a"),
        ("PATCH", "/v1/apps/a/", "/v1/apps/a"),
        ("DELETE", "/v1/apps/a/", "/v1/apps/a"),
        ("POST", "/v1/apps/a/routes/", "/v1/apps/a/routes"),
        ("GET", "/v1/apps/a/calls/", "/v1/apps/a/calls"),
        ("GET", "/v1/apps/a/calls/x/", "/v1/apps/a/calls/x"),
        ("GET", "/v1/apps/a/calls/x/log/?a=b&c=%2F", "/v1/apps/a/calls/x/log?a=b&c=%2F"),
        ("GET", "/v1/apps/a%20%3Fb/", "/v1/apps/a%20%3Fb"),
        ("GET", "/stats/", "/stats"),
        ("GET", "/docs/", "/docs"),
    ],
)
async def test_a_redirect_leads_to_the_same_thing(api: httpx.AsyncClient, method: str, path: str, target: str) -> None:
    answer = await api.request(method, path)
    assert (answer.status_code, answer.headers["location"]) == (301 if method == "GET" else 307, target)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/apps/"),
        ("POST", "/v1/apps/a"),
        ("PUT", "/v1/apps/a"),
        ("POST", "/v1/apps/a/routes/b"),
        ("OPTIONS", "/v1/apps/a/routes/b"),
        ("POST", "/v1/apps/a/calls"),
        ("DELETE", "/v1/apps/a/calls/x"),
        ("GET", "/v1/calls/x"),
        ("GET", "/v1/app/a/calls/b"),
        ("GET", "/v1/apps/a/logs"),
        ("POST", "/version"),
        ("POST", "/"),
        ("GET", "/shutdown"),
        ("GET", "/nothing/"),
    ],
)
async def test_a_wrong_method_or_path_is_unknown(api: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await api.request(method, path)
    assert (answer.status_code, message(answer)) == (404, f"Path not found: {path}")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/apps//routes", "/v1/apps//routes/x", "/v1/apps//calls", "/v1/apps//calls/x"])
async def test_an_empty_app_segment_is_a_missing_name(api: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await api.request(method, path)
    assert (answer.status_code, message(answer)) == (400, "Missing app name")


async def test_a_path_is_decoded_before_it_is_routed(api: httpx.AsyncClient) -> None:
    answer = await api.put("/v1/apps/my%61pp%2Froutes%2Fa%2Fb", json={"route": {"image": "x"}})
    assert answer.json()["route"]["path"] == "/a/b"
    assert (await api.get(f"{ROUTES}/a/b")).json()["message"] == "Successfully loaded route"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ([], "json"),
        (["application/json"], "json"),
        (["text/plain"], "text"),
        (["*/*"], "json"),
        (["text/plain, application/json"], "json"),
        (["text/html, text/plain;q=0.5, */*"], "text"),
        (["image/png", "text/plain", "application/json"], "text"),
        (["image/png"], "none"),
        (["text/*"], "none"),
    ],
)
async def test_the_accept_header_chooses_the_form_of_a_log(
    api: httpx.AsyncClient, datastore: SqlDatastore, accept: list[str], form: str
) -> None:
    await datastore.put_calls([(Call(id=encode(1), app_name="myapp", path="/a", status=SUCCESS), b"a log")])
    del api.headers["accept"]
    answer = await api.get(f"{APPS}/myapp/calls/{encode(1)}/log", headers=[("accept", line) for line in accept])
    if form == "none":
        assert (answer.status_code, message(answer)) == (
            406,
            "unable to respond within acceptable response content types",
        )
    elif form == "text":
        assert (answer.text, answer.headers["content-type"]) == ("a log", "text/plain; charset=utf-8")
    else:
        assert answer.json()["log"] == {"call_id": encode(1), "log": "a log", "app_name": "myapp"}
        assert answer.json()["message"] == "Successfully loaded log"


async def test_a_missing_log_is_told_before_the_form(api: httpx.AsyncClient) -> None:
    answer = await api.get(f"{APPS}/myapp/calls/{encode(1)}/log", headers={"accept": "image/png"})
    assert (answer.status_code, message(answer)) == (404, "Call log not found")


async def test_logs_cannot_be_deleted(api: httpx.AsyncClient) -> None:
    path = f"{APPS}/myapp/calls/{encode(1)}/log"
    assert message(await api.delete(path)) == f"Path not found: {path}"


@pytest.mark.parametrize("raised", [StoreUnavailable("secret"), RuntimeError("secret")])
async def test_what_is_not_for_clients_is_a_500_and_logged(
    api: httpx.AsyncClient, datastore: SqlDatastore, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    async def broken(_which: object) -> list[Call]:
        raise raised

    monkeypatch.setattr(datastore, "get_calls", broken)
    with structlog.testing.capture_logs() as logged:
        answer = await api.get(f"{APPS}/myapp/calls")
    assert (answer.status_code, answer.text) == (500, '{"error":{"message":"internal server error"}}\n')
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    [entry] = logged
    assert (entry["log_level"], entry["error"], entry["exc_info"]) == ("error", "secret", raised)


async def test_success_is_compact_json(api: httpx.AsyncClient) -> None:
    answer = await api.get(APPS)
    assert answer.text == '{"message":"Successfully listed applications","next_cursor":"","apps":[]}'
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


async def test_times_are_utc_with_three_digits(api: httpx.AsyncClient) -> None:
    route = await make(api)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(route["created_at"]))


async def test_head_is_a_wrong_method(api: httpx.AsyncClient) -> None:
    assert (await api.head(APPS)).status_code == 404
