"""What every source of secrets does: of a node with a database, and of a runner over HTTP."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.stored_worlds import World, opened_world

from hearth.models.app import App
from hearth.models.errors import SecretGone, SecretUnreadable
from hearth.stores.secrets.keyring import FILE, Keyring
from hearth.stores.secrets.vault import Vault

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
VALUE = "sesam öffne dich\n"


@pytest.fixture(params=["local", "remote"])
async def world(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with opened_world(request.param, database, tmp_path) as opened:
        await opened.stores.datastore.insert_app(App(name="app", id="app-1"))
        vault = Vault(opened.stores.datastore, Keyring("", None, tmp_path / FILE))
        await vault.put("app", "KEY", VALUE, NOW)
        await vault.put("app", "OTHER", "other", NOW)
        yield opened


async def test_a_function_gets_the_secrets_that_it_names_with_their_versions(world: World, tmp_path: Path) -> None:
    found = await world.secrets.values("app", "app-1", ["KEY", "KEY"])
    assert found.values == {"KEY": VALUE}
    assert list(found.versions) == ["KEY"]
    assert VALUE not in repr(found)
    vault = Vault(world.stores.datastore, Keyring("", None, tmp_path / FILE))
    await vault.put("app", "KEY", "changed", NOW)
    changed = await world.secrets.values("app", "app-1", ["OTHER", "KEY"])
    assert changed.values == {"KEY": "changed", "OTHER": "other"}
    assert changed.versions["KEY"] != found.versions["KEY"]
    assert (await world.secrets.values("app", "app-1", [])).values == {}


async def test_a_secret_that_does_not_exist_is_named(world: World) -> None:
    for app, app_id, names in (
        ("app", "app-1", ["KEY", "NONE"]),
        ("none", "app-1", ["NONE"]),
        ("app", "app-2", ["NONE"]),
        ("app", "app-1", ["../app/NONE"]),
    ):
        with pytest.raises(SecretGone) as caught:
            await world.secrets.values(app, app_id, names)
        assert (caught.value.name, caught.value.code) == (names[-1], 502)


async def test_a_lost_key_is_reported_without_a_value(world: World, tmp_path: Path) -> None:
    (tmp_path / FILE).unlink()
    with pytest.raises(SecretUnreadable, match="cannot be decrypted: this node does not have its key") as caught:
        await world.secrets.values("app", "app-1", ["KEY"])
    assert caught.value.code == 500


async def test_no_file_of_a_runner_contains_a_value(world: World, tmp_path: Path) -> None:
    assert (await world.secrets.values("app", "app-1", ["KEY"])).values == {"KEY": VALUE}
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if VALUE.strip().encode() in file.read_bytes()]
