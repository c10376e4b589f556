"""What every store of secrets does, and what is in its rows."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.databases import transaction

from hearth.models import errors
from hearth.models.app import App
from hearth.models.errors import MAX_SECRETS
from hearth.models.secret import Secret
from hearth.stores.secrets.keyring import FILE, Keyring
from hearth.stores.secrets.sealing import Key
from hearth.stores.secrets.vault import Vault
from hearth.stores.sql import SqlDatastore, open_datastore

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(minutes=1)
VALUE = "sesam öffne dich\n"


@pytest.fixture
async def store(database: str) -> AsyncIterator[SqlDatastore]:
    opened = await open_datastore(database)
    for name in ("app", "other"):
        await opened.insert_app(App(name=name))
    yield opened
    await opened.close()


@pytest.fixture
def vault(store: SqlDatastore, tmp_path: Path) -> Vault:
    return vault_of(store, tmp_path)


def vault_of(store: SqlDatastore, folder: Path, given: str = "") -> Vault:
    return Vault(store, Keyring(given, None, folder / FILE))


async def value(vault: Vault, name: str = "KEY", app: str = "app") -> str:
    """The value that a function of the app gets."""
    found = await vault.values(app, (await app_of(vault, app)).id, [name])
    assert list(found.values) == [name]
    return found.values[name]


async def app_of(vault: Vault, name: str = "app") -> App:
    store = vault.store
    assert isinstance(store, SqlDatastore)
    return await store.get_app(name)


async def rows(database: str) -> list[dict[str, object]]:
    async with transaction(database) as connection:
        return [dict(row) for row in (await connection.execute(sa.text("SELECT * FROM secrets"))).mappings()]


# -- store ------------------------------------------------------------------------------------------------------------


async def test_a_secret_comes_back_and_its_list_shows_no_value(vault: Vault) -> None:
    first = await vault.put("app", "KEY", VALUE, NOW)
    assert (first.name, first.version, first.updated_at) == ("KEY", 1, NOW)
    assert await value(vault) == VALUE
    second = await vault.put("app", "KEY", "changed", LATER)
    assert (second.id, second.version, second.updated_at) == (first.id, 2, LATER)
    assert await value(vault) == "changed"
    await vault.put("app", "ANOTHER", "x", NOW)
    assert await vault.store.list_secrets("other") == []
    listed = await vault.store.list_secrets("app")
    assert [(one.name, one.version, one.updated_at, one.sealed) for one in listed] == [
        ("ANOTHER", 1, NOW, b""),
        ("KEY", 2, LATER, b""),
    ]


async def test_names_differ_by_case(vault: Vault) -> None:
    await vault.put("app", "KEY", "upper", NOW)
    await vault.put("app", "key", "lower", NOW)
    assert (await value(vault, "KEY"), await value(vault, "key")) == ("upper", "lower")


async def test_what_does_not_exist_is_reported(vault: Vault) -> None:
    with pytest.raises(errors.AppsNotFound):
        await vault.put("none", "KEY", VALUE, NOW)
    with pytest.raises(errors.AppsNotFound):
        await vault.store.list_secrets("none")
    with pytest.raises(errors.AppsNotFound):
        await vault.store.remove_secret("none", "KEY")
    with pytest.raises(errors.SecretsNotFound):
        await vault.store.remove_secret("app", "KEY")
    await vault.put("other", "KEY", VALUE, NOW)
    with pytest.raises(errors.SecretsNotFound):
        await vault.store.remove_secret("app", "KEY")
    with pytest.raises(errors.SecretGone, match="Secret KEY of app app does not exist"):
        await vault.values("app", (await app_of(vault)).id, ["KEY"])


async def test_a_deleted_secret_is_gone_and_never_has_its_old_version_again(vault: Vault) -> None:
    app = await app_of(vault)
    await vault.put("app", "KEY", VALUE, NOW)
    before = (await vault.values("app", app.id, ["KEY"])).versions
    await vault.store.remove_secret("app", "KEY")
    with pytest.raises(errors.SecretGone):
        await value(vault)
    await vault.put("app", "KEY", VALUE, NOW)
    assert (await vault.values("app", app.id, ["KEY"])).versions != before


async def test_an_app_has_a_limited_number_of_secrets(vault: Vault) -> None:
    for number in range(MAX_SECRETS):
        await vault.put("app", f"KEY_{number}", "x", NOW)
    with pytest.raises(errors.SecretsTooMany):
        await vault.put("app", "ONE_MORE", "x", NOW)
    assert (await vault.put("app", "KEY_0", "y", NOW)).version == 2
    assert (await vault.put("other", "KEY", "x", NOW)).version == 1
    await vault.store.remove_secret("app", "KEY_1")
    await vault.put("app", "ONE_MORE", "x", NOW)


async def test_changes_at_once_are_counted_and_none_is_lost(vault: Vault) -> None:
    await vault.put("app", "KEY", "0", NOW)
    done = await asyncio.gather(*[vault.put("app", "KEY", str(number), NOW) for number in range(5)])
    assert sorted(one.version for one in done) == [2, 3, 4, 5, 6]
    last = max(done, key=lambda one: one.version)
    assert await value(vault) == str(done.index(last))


async def test_secrets_go_with_their_app(vault: Vault, store: SqlDatastore, database: str) -> None:
    old = await app_of(vault)
    await vault.put("app", "KEY", VALUE, NOW)
    await vault.put("other", "KEY", "kept", NOW)
    await store.remove_app("app")
    assert [row["app_name"] for row in await rows(database)] == ["other"]
    await store.insert_app(App(name="app"))
    assert await vault.store.list_secrets("app") == []
    with pytest.raises(errors.SecretGone):
        await vault.values("app", old.id, ["KEY"])
    assert await value(vault, app="other") == "kept"


async def test_an_app_of_the_same_name_gets_no_secret_of_its_predecessor(
    vault: Vault, store: SqlDatastore, database: str
) -> None:
    """A server of Fn's deletes an app without its secrets, which it does not know."""
    old = await app_of(vault)
    await vault.put("app", "KEY", VALUE, NOW)
    await vault.put("app", "LEFT", VALUE, NOW)
    async with transaction(database) as connection:
        await connection.execute(sa.text("DELETE FROM apps WHERE name = 'app'"))
    new = await store.insert_app(App(name="app"))
    assert await vault.store.list_secrets("app") == []
    with pytest.raises(errors.SecretGone):
        await vault.values("app", new.id, ["KEY"])
    assert (await vault.put("app", "KEY", "mine", NOW)).version == 1
    assert await value(vault) == "mine"
    with pytest.raises(errors.SecretGone):
        await vault.values("app", old.id, ["KEY"])
    assert [row["name"] for row in await rows(database) if row["app_name"] == "app"] == ["KEY"]


# -- rows -------------------------------------------------------------------------------------------------------------


async def test_no_row_contains_a_value_or_a_key(vault: Vault, database: str, tmp_path: Path) -> None:
    await vault.put("app", "KEY", VALUE, NOW)
    stored = repr(await rows(database)).encode()
    key = Key.parse((tmp_path / FILE).read_text().strip())
    for secret in (VALUE, VALUE.strip(), key.text()):
        assert secret.encode() not in stored
        assert secret.encode().hex().encode() not in stored
    (first,) = await vault.store.find_secrets("app", (await app_of(vault)).id, ["KEY"])
    assert VALUE.strip() not in repr(first)
    assert first.key_id == key.id


@pytest.mark.parametrize(
    "change",
    [
        {"name": "TAKEN"},
        {"app_name": "other", "app_id": "THEIRS"},
        {"version": 1},
        {"version": 3},
        {"id": "x"},
    ],
)
async def test_a_row_that_was_moved_or_set_back_is_not_decrypted(
    vault: Vault, database: str, change: dict[str, object]
) -> None:
    await vault.put("app", "KEY", "old", NOW)
    await vault.put("app", "KEY", VALUE, NOW)
    wanted = {column: (await app_of(vault, "other")).id if new == "THEIRS" else new for column, new in change.items()}
    async with transaction(database) as connection:
        table = sa.table("secrets", *[sa.column(column) for column in wanted])
        await connection.execute(sa.update(table).values(wanted))
    app = await app_of(vault, str(wanted.get("app_name", "app")))
    with pytest.raises(errors.SecretUnreadable, match="changed or moved"):
        await vault.values(app.name, app.id, [str(wanted.get("name", "KEY"))])


@pytest.mark.parametrize("position", [0, 11, 12, -1])
async def test_a_damaged_row_is_not_decrypted_and_disturbs_no_other(vault: Vault, database: str, position: int) -> None:
    await vault.put("app", "KEY", VALUE, NOW)
    await vault.put("app", "SOUND", VALUE, NOW)
    stored = next(row for row in await rows(database) if row["name"] == "KEY")
    damaged = bytearray(bytes(stored["sealed"]))  # type: ignore[call-overload]
    damaged[position] ^= 1
    async with transaction(database) as connection:
        table = sa.table("secrets", sa.column("name"), sa.column("sealed", sa.LargeBinary))
        await connection.execute(sa.update(table).where(table.c.name == "KEY").values(sealed=bytes(damaged)))
    with pytest.raises(errors.SecretUnreadable):
        await value(vault)
    assert await value(vault, "SOUND") == VALUE


async def test_a_cut_row_is_not_decrypted(vault: Vault, database: str) -> None:
    await vault.put("app", "KEY", VALUE, NOW)
    async with transaction(database) as connection:
        table = sa.table("secrets", sa.column("sealed", sa.LargeBinary))
        await connection.execute(sa.update(table).values(sealed=b"x"))
    with pytest.raises(errors.SecretUnreadable):
        await value(vault)


# -- keys -------------------------------------------------------------------------------------------------------------


async def test_a_lost_key_is_reported_and_no_other_takes_its_place(
    vault: Vault, store: SqlDatastore, tmp_path: Path
) -> None:
    await vault.put("app", "KEY", VALUE, NOW)
    lost = tmp_path / "other"
    lost.mkdir()
    strange = vault_of(store, lost)
    await strange.look()
    assert "stored secrets need the key" in strange.warnings[0]
    with pytest.raises(errors.SecretUnreadable, match="does not have its key"):
        await value(strange)
    with pytest.raises(errors.SecretsKeyUnusable, match="rotate-key"):
        await strange.put("app", "NEW", VALUE, NOW)
    assert not (lost / FILE).exists()
    await vault.look()
    assert (vault.warnings, await value(vault)) == ((), VALUE)


async def test_another_valid_key_in_its_place_is_reported_and_both_together_lose_nothing(
    vault: Vault, store: SqlDatastore, tmp_path: Path
) -> None:
    await vault.put("app", "KEY", VALUE, NOW)
    file = tmp_path / FILE
    right, foreign = Key.parse(file.read_text().strip()), Key.generate()
    file.write_text(f"{foreign.text()}\n")
    for node in (vault, vault_of(store, tmp_path)):  # one that runs, and one that starts with it
        await node.look()
        assert node.warnings == (
            f"stored secrets need the key {right.id}, which {file} does not contain; restore it from a backup, or run "
            "hearth secrets rotate-key and store these secrets again",
        )
        with pytest.raises(errors.SecretUnreadable, match=f"does not have its key {right.id}"):
            await value(node)
    await vault.put("app", "NEW", "stored meanwhile", LATER)
    assert await value(vault, "NEW") == "stored meanwhile"
    file.write_text(f"{right.text()}\n")
    await vault.look()
    assert f"need the key {foreign.id}" in vault.warnings[0]
    assert await value(vault) == VALUE
    file.write_text(f"{right.text()}\n{foreign.text()}\n")
    await vault.look()
    assert vault.warnings == ()
    rotated = await vault.rotate()
    assert (rotated.resealed, rotated.unreadable, rotated.dropped) == (2, [], 2)
    assert [await value(vault, name) for name in ("KEY", "NEW")] == [VALUE, "stored meanwhile"]


async def test_after_a_rotation_without_the_old_key_secrets_can_be_stored_again(
    vault: Vault, store: SqlDatastore, tmp_path: Path
) -> None:
    await vault.put("app", "KEY", VALUE, NOW)
    strange = vault_of(store, tmp_path / "other")
    done = await strange.rotate()
    assert [(one.app_name, one.name) for one in done.unreadable] == [("app", "KEY")]
    await strange.put("app", "KEY", "again", NOW)
    assert await value(strange) == "again"
    await strange.look()
    assert strange.warnings == ()


async def test_a_rotation_reaches_every_row_and_keeps_versions(
    vault: Vault, store: SqlDatastore, tmp_path: Path
) -> None:
    for number in range(45):
        await vault.put("app", f"KEY_{number}", f"value {number}", NOW)
    await vault.put("other", "KEY", VALUE, NOW)
    app = await app_of(vault)
    before = await vault.values("app", app.id, ["KEY_7"])
    old = (tmp_path / FILE).read_text()
    done = await vault_of(store, tmp_path).rotate()
    assert (done.resealed, list(done.unreadable), done.dropped) == (46, [], 1)
    assert old.strip() not in (tmp_path / FILE).read_text()
    assert await store.secret_keys() == {done.key_id: 46}
    after = await vault.values("app", app.id, ["KEY_7"])  # by a node that has the old key in memory
    assert (after.values, after.versions) == (before.values, before.versions)
    assert await value(vault, app="other") == VALUE


class Killed(BaseException):
    """Ends a rotation like a kill: nothing is tidied up."""


@pytest.mark.parametrize("step", range(6))
async def test_a_rotation_that_is_killed_loses_nothing_and_is_completed_by_the_next(
    vault: Vault, store: SqlDatastore, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        await vault.put("app", f"KEY_{number}", f"value {number}", NOW)
    reseal, left = store.reseal_secret, step

    async def dying(before: Secret, after: Secret) -> bool:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        return await reseal(before, after)

    monkeypatch.setattr(store, "reseal_secret", dying)
    if step < 4:
        with pytest.raises(Killed):
            await vault_of(store, tmp_path).rotate()
    else:
        await vault_of(store, tmp_path).rotate()
    monkeypatch.undo()
    fresh = vault_of(store, tmp_path)
    for number in range(4):
        assert await value(fresh, f"KEY_{number}") == await value(vault, f"KEY_{number}") == f"value {number}"
    done = await fresh.rotate()
    assert await store.secret_keys() == {done.key_id: 4}
    assert (tmp_path / FILE).read_text().split() == (tmp_path / FILE).read_text().split()[:1]
    for number in range(4):
        assert await value(vault_of(store, tmp_path), f"KEY_{number}") == f"value {number}"


async def test_a_secret_that_is_stored_during_a_rotation_is_readable_after_it(
    vault: Vault, store: SqlDatastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await vault.put("app", "KEY", "old", NOW)
    put = store.put_secret

    async def slow(*given, **more) -> Secret:
        stored = await put(*given, **more)
        await vault_of(store, tmp_path).rotate()  # as a whole, before the node notices
        return stored

    monkeypatch.setattr(store, "put_secret", slow)
    await vault.put("app", "NEW", VALUE, NOW)
    monkeypatch.undo()
    assert await value(vault_of(store, tmp_path), "NEW") == VALUE
    assert await value(vault_of(store, tmp_path)) == "old"


async def test_a_secret_that_is_changed_during_a_rotation_keeps_its_new_value(
    vault: Vault, store: SqlDatastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await vault.put("app", "KEY", "old", NOW)
    find = store.secrets_of_key

    async def then_changed(*given, **more) -> list[Secret]:
        found = await find(*given, **more)
        if found:
            monkeypatch.undo()
            await vault.put("app", "KEY", "new", NOW)
        return found

    monkeypatch.setattr(store, "secrets_of_key", then_changed)
    await vault_of(store, tmp_path).rotate()
    assert await value(vault_of(store, tmp_path)) == "new"


async def test_keys_of_the_operator_are_rotated_by_naming_the_new_one_first(
    store: SqlDatastore, tmp_path: Path
) -> None:
    old, new = Key.generate(), Key.generate()
    await vault_of(store, tmp_path, old.text()).put("app", "KEY", VALUE, NOW)
    both = vault_of(store, tmp_path, f"{new.text()}, {old.text()}")
    assert await value(both) == VALUE
    done = await both.rotate()
    assert (done.key_id, done.resealed, done.dropped) == (new.id, 1, 0)
    assert await value(vault_of(store, tmp_path, new.text())) == VALUE
    assert list(tmp_path.glob(f"*{FILE}*")) == []


async def test_each_write_is_encrypted_differently(vault: Vault) -> None:
    app = await app_of(vault)
    seen = set()
    for _ in range(3):
        await vault.put("app", "KEY", VALUE, NOW)
        (stored,) = await vault.store.find_secrets("app", app.id, ["KEY"])
        seen.add(stored.sealed)
        assert VALUE.encode() not in stored.sealed
    assert len(seen) == 3
    assert msgspec.structs.replace(stored, sealed=b"").sealed == b""
