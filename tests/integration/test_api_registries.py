"""The logins of apps at registries: stored like secrets, shown to nobody, given to no function."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from hearth.access.logins import StoredLogins
from hearth.aio.clock import SystemClock
from hearth.models.errors import SecretUnreadable
from hearth.models.registry_login import RegistryLogin
from hearth.server.api import Api
from hearth.stores.secrets.keyring import FILE, Keyring
from hearth.stores.secrets.vault import Vault
from hearth.stores.sql import SqlDatastore

APP, REGISTRIES = "/v1/apps/myapp", "/v1/apps/myapp/registries"
USERNAME = "Invalid registry login: username must have 1 to 255 characters without a colon"
ME = {"username": "me", "password": "pass-w0rd:ö"}


class World:
    """The API with two apps, and what runs their functions."""

    def __init__(self, datastore: SqlDatastore, folder: Path) -> None:
        self.datastore = datastore
        self.vault = Vault(datastore, Keyring("", None, folder / FILE))
        self.logins = StoredLogins(self.vault)
        api = Api(datastore, SystemClock(), dict, vault=self.vault)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://api")

    async def login(self, app: str, registry: str = "ghcr.io") -> RegistryLogin | None:
        """The login with which an image of an app is pulled."""
        return await self.logins.find(app, (await self.datastore.get_app(app)).id, registry)


@pytest.fixture
async def world(datastore: SqlDatastore, tmp_path: Path) -> AsyncIterator[World]:
    opened = World(datastore, tmp_path)
    for name in ("myapp", "other"):
        assert (await opened.http.post("/v1/apps", json={"app": {"name": name}})).status_code == 200
    yield opened
    await opened.http.aclose()


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["message"]


async def test_a_login_is_stored_listed_used_and_deleted(world: World) -> None:
    with capture_logs() as logged:
        answer = await world.http.put(f"{REGISTRIES}/GHCR.io", json=ME)
        stored = answer.json()["registry"]
        assert answer.json() == {"message": "Registry login successfully stored", "registry": stored}
        assert (stored["registry"], stored["version"]) == ("ghcr.io", 1)
        again = (await world.http.put(f"{REGISTRIES}/ghcr.io", json={**ME, "password": "other"})).json()["registry"]
        assert again["version"] == 2
        listed = await world.http.get(REGISTRIES)
        assert listed.json() == {"message": "Successfully listed registries", "registries": [again]}
        assert await world.login("myapp") == RegistryLogin("me", "other")
        removed = await world.http.delete(f"{REGISTRIES}/ghcr.io")
        assert (removed.status_code, removed.json()) == (200, {"message": "Registry login deleted"})
        assert await world.login("myapp") is None
        assert told(await world.http.delete(f"{REGISTRIES}/ghcr.io")) == (404, "Registry login not found")
    assert "pass-w0rd" not in f"{logged}{answer.text}{listed.text}"
    assert set(stored) == {"registry", "version", "updated_at"}


async def test_the_public_registry_has_one_login_whatever_it_is_called(world: World) -> None:
    for name in ("docker.io", "index.docker.io", "hub.docker.com"):
        await world.http.put(f"{REGISTRIES}/{name}", json=ME)
    (one,) = (await world.http.get(REGISTRIES)).json()["registries"]
    assert (one["registry"], one["version"]) == ("docker.io", 3)
    assert await world.login("myapp", "docker.io") == RegistryLogin(**ME)


async def test_the_login_of_one_app_is_for_no_other_and_for_one_registry(world: World) -> None:
    await world.http.put(f"{REGISTRIES}/ghcr.io", json=ME)
    assert await world.login("other") is None
    for registry in ("ghcr.io:443", "a.ghcr.io", "ghcr.io.evil.example", "ghcr", "registry:ghcr.io", ""):
        assert await world.login("myapp", registry) is None
    await world.http.delete(APP)
    await world.http.post("/v1/apps", json={"app": {"name": "myapp"}})
    assert await world.login("myapp") is None, "an app of the same name is another one"


async def test_no_function_gets_a_login_and_no_list_of_secrets_shows_one(world: World) -> None:
    await world.http.put(f"{REGISTRIES}/ghcr.io", json=ME)
    await world.http.put(f"{APP}/secrets/KEY", json={"value": "value"})
    assert [one["name"] for one in (await world.http.get(f"{APP}/secrets")).json()["secrets"]] == ["KEY"]
    assert [one["registry"] for one in (await world.http.get(REGISTRIES)).json()["registries"]] == ["ghcr.io"]
    for name in ("registry:ghcr.io", "ghcr.io"):
        route = {"path": "/r", "image": "x", "secrets": [name]}
        assert (await world.http.post(f"{APP}/routes", json={"route": route})).status_code == 400
        signature = {"style": "github", "secret": name}
        signed = {"path": "/r", "image": "x", "auth": "signed", "signature": signature}
        assert (await world.http.post(f"{APP}/routes", json={"route": signed})).status_code == 400
        assert (await world.http.put(f"{APP}/secrets/{name}", json={"value": "x"})).status_code == 400


async def test_the_database_does_not_contain_it_and_a_lost_key_is_an_error(world: World, tmp_path: Path) -> None:
    await world.http.put(f"{REGISTRIES}/ghcr.io", json=ME)
    files = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    assert not [data for data in files if b"pass-w0rd" in data]
    (tmp_path / FILE).unlink()
    lost = StoredLogins(Vault(world.datastore, Keyring("", None, tmp_path / FILE)))
    with pytest.raises(SecretUnreadable):
        await lost.find("myapp", (await world.datastore.get_app("myapp")).id, "ghcr.io")


@pytest.mark.parametrize(
    "name", ["UPPER CASE", "-x", "a_b", "ghcr.io:port", "user@ghcr.io", "x" * 201, "ghcr.io%2Fteam"]
)
async def test_what_is_no_registry_has_no_login(world: World, name: str) -> None:
    problem = "Invalid registry: it must be HOST or HOST:PORT, such as ghcr.io"
    assert told(await world.http.put(f"{REGISTRIES}/{name}", json=ME))[0] in (400, 404)
    if "%2F" not in name:
        assert told(await world.http.put(f"{REGISTRIES}/{name}", json=ME)) == (400, problem)
        assert told(await world.http.delete(f"{REGISTRIES}/{name}")) == (400, problem)
    assert (await world.http.get(REGISTRIES)).json()["registries"] == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, USERNAME),
        ({**ME, "username": "a:b"}, USERNAME),
        (
            {**ME, "username": "x" * 256},
            "Invalid registry login: username must have 1 to 255 characters without a colon",
        ),
        ({"username": "me"}, "Invalid registry login: password must have 1 to 16384 characters"),
        ({**ME, "password": "pass-w0rd\n"}, "Invalid registry login: password must have 1 to 16384 characters"),
        ({**ME, "password": 1}, "Invalid JSON"),
        ([], "Invalid JSON"),
    ],
    ids=str,
)
async def test_a_login_that_cannot_be_sent_is_refused(world: World, given: object, problem: str) -> None:
    assert told(await world.http.put(f"{REGISTRIES}/ghcr.io", json=given)) == (400, problem)


async def test_an_app_that_does_not_exist_has_no_logins(world: World) -> None:
    for answer in (
        await world.http.put("/v1/apps/none/registries/ghcr.io", json=ME),
        await world.http.get("/v1/apps/none/registries"),
        await world.http.delete("/v1/apps/none/registries/ghcr.io"),
    ):
        assert told(answer) == (404, "App not found")
