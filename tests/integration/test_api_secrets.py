"""Secrets through the API: exact answers, limits, and no answer with a value."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
from tests.support.api import APPS, ROUTES, make, message

from hearth.models.errors import MAX_SECRET_BYTES, MAX_SECRETS
from hearth.stores.secrets.keyring import FILE

SECRETS = f"{APPS}/myapp/secrets"
VALUE = "s3same-öffne-dich"
NAME = (
    "Invalid secret name: it must consist of letters, digits and _, not begin with a digit, FN_ or HEARTH_, and have "
    "at most 128 characters"
)


@pytest.fixture
async def app(api: httpx.AsyncClient) -> httpx.AsyncClient:
    """The API with an app."""
    assert (await api.post(APPS, json={"app": {"name": "myapp"}})).status_code == 200
    return api


async def put(api: httpx.AsyncClient, name: str, value: str = VALUE) -> httpx.Response:
    return await api.put(f"{SECRETS}/{name}", json={"value": value})


async def test_a_secret_is_stored_listed_changed_and_deleted(app: httpx.AsyncClient) -> None:
    assert (await app.get(SECRETS)).json() == {"message": "Successfully listed secrets", "secrets": []}
    first = await put(app, "KEY")
    assert first.status_code == 200
    stored = first.json()
    assert stored == {
        "message": "Secret successfully stored",
        "secret": {"name": "KEY", "version": 1, "updated_at": stored["secret"]["updated_at"]},
    }
    second = (await put(app, "KEY", "other")).json()["secret"]
    assert second["version"] == 2
    await put(app, "A_2")
    listed = (await app.get(SECRETS)).json()
    assert [(one["name"], one["version"]) for one in listed["secrets"]] == [("A_2", 1), ("KEY", 2)]
    assert all(set(one) == {"name", "version", "updated_at"} for one in listed["secrets"])
    gone = await app.delete(f"{SECRETS}/KEY")
    assert (gone.status_code, gone.json()) == (200, {"message": "Secret deleted"})
    again = await app.delete(f"{SECRETS}/KEY")
    assert (again.status_code, message(again)) == (404, "Secret not found")


async def test_no_answer_contains_a_value(app: httpx.AsyncClient) -> None:
    answers = [await put(app, "KEY"), await put(app, "1", VALUE), await put(app, "KEY", f"{VALUE}\0")]
    await make(app, secrets=["KEY"])
    await app.patch(f"{APPS}/myapp", json={"app": {"secrets": ["KEY"]}})
    paths = (SECRETS, APPS, f"{APPS}/myapp", ROUTES, f"{ROUTES}/myroute", f"{SECRETS}/KEY", "/stats", "/metrics")
    answers += [await app.get(path) for path in paths]
    assert not [one for one in answers if VALUE in one.text or "s3same" in one.text]
    assert answers[-3].status_code == 404  # nobody reads one secret


@pytest.mark.parametrize(
    "name",
    [
        *("1KEY", "KEY-1", "KEY.1", "FN_KEY", "HEARTH_1", "%C3%A4", "K" * 129),
        *("..", "%2e%2e", "KEY%20", "KEY%0A", "KEY=1", "a%5Cb"),
    ],
)
async def test_only_names_of_environment_variables_are_taken(app: httpx.AsyncClient, name: str) -> None:
    path = f"{SECRETS}/{name}"
    answer = await app.put(httpx.URL(f"http://api{SECRETS}/").copy_with(raw_path=path.encode()), json={"value": "x"})
    if answer.status_code == 404 and ".." in name:  # the client has resolved it
        return
    assert (answer.status_code, message(answer)) == (400, NAME)
    assert (await app.get(SECRETS)).json()["secrets"] == []


@pytest.mark.parametrize("name", ["KEY/x", "KEY%2Fx", "%2e%2e%2fother", "..%2f..%2fother%2fsecrets%2fKEY"])
async def test_a_path_of_several_segments_is_no_secret(app: httpx.AsyncClient, name: str) -> None:
    await app.post(APPS, json={"app": {"name": "other"}})
    url = httpx.URL("http://api/").copy_with(raw_path=f"{SECRETS}/{name}".encode())
    answer = await app.put(url, json={"value": "x"})
    assert answer.status_code in (400, 404)
    for owner in ("myapp", "other"):
        assert (await app.get(f"{APPS}/{owner}/secrets")).json()["secrets"] == []


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ("", 400, "Invalid JSON"),
        ("[]", 400, "Invalid JSON"),
        ('{"value":1}', 400, "Invalid JSON"),
        ("{}", 400, "Missing secret value"),
        ('{"value":""}', 400, "Missing secret value"),
        ('{"value":null}', 400, "Missing secret value"),
        ('{"value":"a\\u0000b"}', 400, "Invalid secret value: it must be valid Unicode without NUL"),
        ('{"value":"\\ud800"}', 400, "Invalid secret value: it must be valid Unicode without NUL"),
    ],
)
async def test_a_bad_value_is_refused(app: httpx.AsyncClient, body: str, status: int, text: str) -> None:
    answer = await app.put(f"{SECRETS}/KEY", content=body)
    assert (answer.status_code, message(answer)) == (status, text)
    assert (await app.get(SECRETS)).json()["secrets"] == []


async def test_values_and_numbers_are_limited(app: httpx.AsyncClient) -> None:
    assert (await put(app, "KEY_0", "x" * MAX_SECRET_BYTES)).status_code == 200
    large = await put(app, "KEY_1", "ä" * (MAX_SECRET_BYTES // 2) + "x")
    assert (large.status_code, message(large)) == (413, "Secret value too large: 65537 bytes > max 65536")
    for number in range(1, MAX_SECRETS):
        assert (await put(app, f"KEY_{number}")).status_code == 200
    more = await put(app, "ONE_MORE")
    assert (more.status_code, message(more)) == (409, "App has 100 secrets, which is the maximum")


async def test_an_unknown_app_has_no_secrets(api: httpx.AsyncClient) -> None:
    for answer in (await put(api, "KEY"), await api.get(SECRETS), await api.delete(f"{SECRETS}/KEY")):
        assert (answer.status_code, message(answer)) == (404, "App not found")
    assert (await api.get(APPS)).json()["apps"] == []


async def test_routes_and_apps_name_secrets_that_exist(app: httpx.AsyncClient) -> None:
    unknown = "Unknown secret KEY: store it first (hearth secrets set myapp KEY)"
    route = {"path": "/r", "image": "x", "secrets": ["KEY"]}
    for answer in (
        await app.post(ROUTES, json={"route": route}),
        await app.put(f"{ROUTES}/r", json={"route": route}),
        await app.patch(f"{APPS}/myapp", json={"app": {"secrets": ["KEY"]}}),
    ):
        assert (answer.status_code, message(answer)) == (400, unknown)
    assert (await app.get(ROUTES)).json()["routes"] == []
    await put(app, "KEY")
    await put(app, "B")
    made = await make(app, "/r", secrets=["KEY", "B", "KEY"], secrets_as="files")
    assert (made["secrets"], made["secrets_as"]) == (["B", "KEY"], "files")
    kept = (await app.patch(f"{ROUTES}/r", json={"route": {"memory": 64}})).json()["route"]
    assert (kept["secrets"], kept["secrets_as"]) == (["B", "KEY"], "files")
    await app.delete(f"{SECRETS}/B")
    assert (await app.patch(f"{ROUTES}/r", json={"route": {"memory": 65}})).status_code == 200  # no other change fails
    none = (await app.patch(f"{ROUTES}/r", json={"route": {"secrets": [], "secrets_as": "env"}})).json()["route"]
    assert "secrets" not in none
    assert "secrets_as" not in none
    changed = (await app.patch(f"{APPS}/myapp", json={"app": {"secrets": ["KEY"]}})).json()["app"]
    assert changed["secrets"] == ["KEY"]
    assert "secrets" not in (await app.patch(f"{APPS}/myapp", json={"app": {"secrets": []}})).json()["app"]


async def test_a_new_app_has_no_secrets_to_name(api: httpx.AsyncClient) -> None:
    route = {"route": {"path": "/r", "image": "x", "secrets": ["KEY"]}}
    for answer in (
        await api.post(APPS, json={"app": {"name": "myapp", "secrets": ["KEY"]}}),
        await api.post(ROUTES, json=route),
        await api.put(f"{ROUTES}/r", json={"route": {"image": "x", "secrets": ["KEY"]}}),
    ):
        assert (answer.status_code, message(answer)[:19]) == (400, "Unknown secret KEY:")
    assert (await api.get(APPS)).json()["apps"] == []


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"secrets": ["FN_X"]}, NAME),
        ({"secrets": "KEY"}, "Invalid JSON"),
        ({"secrets_as": "file"}, "Invalid route secrets_as: it must be env or files"),
    ],
)
async def test_bad_references_are_refused(app: httpx.AsyncClient, fields: dict[str, object], text: str) -> None:
    answer = await app.post(ROUTES, json={"route": {"path": "/r", "image": "x", **fields}})
    assert (answer.status_code, message(answer)) == (400, text)


async def test_a_key_that_others_can_read_is_not_used(app: httpx.AsyncClient, tmp_path: Path) -> None:
    await put(app, "KEY")
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / FILE).chmod(0o644)
    answer = await put(app, "KEY")
    assert answer.status_code == 503
    assert "other users may read it; correct its owner and mode (0600)" in message(answer)
    assert (await app.get(SECRETS)).json()["secrets"][0]["version"] == 1


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "text", "empty"])
async def test_a_file_that_is_no_key_is_not_used(app: httpx.AsyncClient, tmp_path: Path, kind: str) -> None:
    path = tmp_path / FILE
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path, 0o600)
        case "link":
            path.symlink_to("/dev/zero")
        case "text" | "empty":
            path.touch(0o600)
            path.write_text("" if kind == "empty" else "no key")
    answer = await put(app, "KEY")
    assert (answer.status_code, message(answer)[:30]) == (503, "Secrets cannot be stored: " + str(tmp_path)[:4])
    assert (await app.get(APPS)).status_code == 200
