"""The proof that routes ask of callers, as API v1 stores and shows it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from hearth.aio.clock import SystemClock
from hearth.server.api import Api
from hearth.stores.secrets.keyring import FILE, Keyring
from hearth.stores.secrets.vault import Vault
from hearth.stores.sql import SqlDatastore

APP, ROUTES = "/v1/apps/myapp", "/v1/apps/myapp/routes"
GITHUB = {"style": "github", "secret": "HOOK"}
SHOWN = {**GITHUB, "header": "X-Hub-Signature-256", "tolerance": 300}


@pytest.fixture
async def app(datastore: SqlDatastore, tmp_path: Path) -> httpx.AsyncClient:
    """The API, with an app that has a secret."""
    api = Api(datastore, SystemClock(), dict, vault=Vault(datastore, Keyring("", None, tmp_path / FILE)))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://api")
    assert (await client.post("/v1/apps", json={"app": {"name": "myapp"}})).status_code == 200
    assert (await client.put(f"{APP}/secrets/HOOK", json={"value": "key"})).status_code == 200
    return client


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["message"]


async def test_a_route_and_an_app_that_ask_for_nothing_do_not_mention_it(app: httpx.AsyncClient) -> None:
    made = (await app.post(ROUTES, json={"route": {"path": "/r", "image": "x"}})).json()["route"]
    assert not {"auth", "signature"} & set(made)
    assert "auth" not in (await app.get(APP)).json()["app"]


async def test_a_route_asks_for_a_token_until_that_is_taken_back(app: httpx.AsyncClient) -> None:
    made = (await app.post(ROUTES, json={"route": {"path": "/r", "image": "x", "auth": "token"}})).json()["route"]
    assert made["auth"] == "token"
    kept = (await app.put(f"{ROUTES}/r", json={"route": {"memory": 64, "auth": ""}})).json()["route"]
    assert kept["auth"] == "token", "an empty value changes nothing, as in every change"
    opened = (await app.patch(f"{ROUTES}/r", json={"route": {"auth": "open"}})).json()["route"]
    assert opened["auth"] == "open"
    assert "auth" not in (await app.patch(f"{ROUTES}/r", json={"route": {"auth": "default"}})).json()["route"]
    assert "auth" not in (await app.get(f"{ROUTES}/r")).json()["route"]


async def test_an_app_asks_for_a_token_until_that_is_taken_back(app: httpx.AsyncClient) -> None:
    assert (await app.patch(APP, json={"app": {"auth": "token"}})).json()["app"]["auth"] == "token"
    assert (await app.patch(APP, json={"app": {"config": {"A": "b"}}})).json()["app"]["auth"] == "token"
    assert "auth" not in (await app.patch(APP, json={"app": {"auth": "default"}})).json()["app"]
    made = (await app.post("/v1/apps", json={"app": {"name": "other", "auth": "token"}})).json()["app"]
    assert made["auth"] == "token"


async def test_a_signature_is_shown_with_the_defaults_of_its_style(app: httpx.AsyncClient) -> None:
    route = {"path": "/r", "image": "x", "auth": "signed", "signature": GITHUB}
    made = (await app.post(ROUTES, json={"route": route})).json()["route"]
    assert (made["auth"], made["signature"]) == ("signed", SHOWN)
    assert (await app.get(f"{ROUTES}/r")).json()["route"]["signature"] == SHOWN
    other = {"STYLE": "stripe", "secret": "HOOK", "header": "X-S", "tolerance": 5}
    changed = (await app.patch(f"{ROUTES}/r", json={"route": {"signature": other}})).json()["route"]
    assert changed["signature"] == {"style": "stripe", "secret": "HOOK", "header": "X-S", "tolerance": 5}


async def test_what_a_route_shows_can_be_sent_back(app: httpx.AsyncClient) -> None:
    route = {"path": "/r", "image": "x", "auth": "signed", "signature": GITHUB}
    made = (await app.post(ROUTES, json={"route": route})).json()["route"]
    again = (await app.put(f"{ROUTES}/r", json={"route": made})).json()["route"]
    assert again == made


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"auth": "none"}, "auth: it must be open, token or signed (default: as the app says)"),
        ({"auth": "OPEN"}, "auth: it must be open, token or signed (default: as the app says)"),
        ({"auth": "signed"}, "signature: auth signed needs a signature with its style and its secret"),
        ({"signature": {"style": "sha1", "secret": "HOOK"}}, "signature: style must be one of github, stripe, generic"),
        (
            {"signature": {"style": "github"}},
            "signature: secret must be the name of a secret of the app, which is the key",
        ),
        (
            {"signature": {"style": "github", "secret": "../x"}},
            "signature: secret must be the name of a secret of the app, which is the key",
        ),
        ({"signature": {**GITHUB, "header": "X: y"}}, "signature: header must be at most 64 letters, digits and -"),
        ({"signature": {**GITHUB, "tolerance": 0}}, "signature: tolerance must be from 1 to 86400 seconds"),
        ({"signature": {**GITHUB, "tolerance": 86401}}, "signature: tolerance must be from 1 to 86400 seconds"),
    ],
    ids=str,
)
async def test_a_proof_that_cannot_be_is_refused(
    app: httpx.AsyncClient, fields: dict[str, object], problem: str
) -> None:
    assert (await app.post(ROUTES, json={"route": {"path": "/r", "image": "x"}})).status_code == 200
    for answer in (
        await app.post(ROUTES, json={"route": {"path": "/new", "image": "x", **fields}}),
        await app.patch(f"{ROUTES}/r", json={"route": fields}),
    ):
        assert told(answer) == (400, f"Invalid route {problem}")
    assert [route["path"] for route in (await app.get(ROUTES)).json()["routes"]] == ["/r"]


@pytest.mark.parametrize(
    "given", [{"auth": 1}, {"signature": "github"}, {"signature": []}, {"signature": {"style": 1}}]
)
async def test_a_proof_of_another_type_is_no_json_of_a_route(app: httpx.AsyncClient, given: dict[str, object]) -> None:
    answer = await app.post(ROUTES, json={"route": {"path": "/r", "image": "x", **given}})
    assert told(answer) == (400, "Invalid JSON")


async def test_the_key_of_a_signature_is_a_secret_that_the_app_has(app: httpx.AsyncClient) -> None:
    signature = {"style": "github", "secret": "NONE"}
    answer = await app.post(ROUTES, json={"route": {"path": "/r", "image": "x", "signature": signature}})
    assert told(answer) == (400, "Unknown secret NONE: store it first (hearth secrets set myapp NONE)")
    elsewhere = await app.post(
        "/v1/apps/other/routes", json={"route": {"path": "/r", "image": "x", "signature": GITHUB}}
    )
    assert told(elsewhere) == (400, "Unknown secret HOOK: store it first (hearth secrets set other HOOK)")


@pytest.mark.parametrize("auth", ["signed", "none", "Token"])
async def test_an_app_asks_for_nothing_that_only_a_route_can_ask_for(app: httpx.AsyncClient, auth: str) -> None:
    problem = "Invalid app auth: it must be open or token (default: as the node says)"
    assert told(await app.patch(APP, json={"app": {"auth": auth}})) == (400, problem)
    assert told(await app.post("/v1/apps", json={"app": {"name": "new", "auth": auth}})) == (400, problem)
