"""Encrypted secrets in SQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from hearth.models import ids
from hearth.models.errors import MAX_SECRETS, AppsNotFound, SecretsNotFound, SecretsTooMany
from hearth.models.secret import Secret
from hearth.models.times import format_time
from hearth.sql.database import Database, Read, Steps, Write
from hearth.sql.fields import Fields
from hearth.sql.query import Query, Row, number, param
from hearth.sql.schema.tables import apps, secrets
from hearth.stores.secrets.base import Seal, SecretStore
from hearth.telemetry.node import Telemetry

_APP: Final = sa.select(apps.c.id).where(apps.c.name == param("app"))
_READ_APP: Final = Query(_APP)
_LOCK_APP: Final = Query(_APP.with_for_update())
_SHOWN: Final = [column for column in secrets.columns if column.name != "sealed"]
_LIST: Final = Query(sa.select(*_SHOWN).where(secrets.c.app_name == param("app")).order_by(secrets.c.name))
_LOCK: Final = Query(
    sa.select(*_SHOWN).where(secrets.c.app_name == param("app")).order_by(secrets.c.name).with_for_update()
)
_FIND: Final = sa.select(secrets).where(secrets.c.app_name == param("app"), secrets.c.app_id == param("app_id"))
_IS_SECRET: Final = sa.and_(secrets.c.app_name == param("key_app"), secrets.c.name == param("key_name"))
_IS_VERSION: Final = sa.and_(
    _IS_SECRET,
    secrets.c.id == param("key_id_of_secret"),
    secrets.c.version == param("key_version"),
    secrets.c.key_id == param("key_key"),
)
_COLUMNS: Final = tuple([column.name for column in secrets.columns if not column.primary_key])
_INSERT: Final = Query(sa.insert(secrets))
_UPDATE: Final = Query(sa.update(secrets).where(_IS_SECRET), _COLUMNS)
_RESEAL: Final = Query(sa.update(secrets).where(_IS_SECRET), ("key_id", "sealed"))
_READ_VERSION: Final = Query(sa.select(secrets.c.name).where(_IS_VERSION).with_for_update())
_DELETE: Final = Query(sa.delete(secrets).where(_IS_SECRET))
_KEYS: Final = Query(sa.select(secrets.c.key_id, sa.func.count().label("amount")).group_by(secrets.c.key_id))
_OF_KEY: Final = Query(
    sa.select(secrets)
    .where(
        secrets.c.key_id == param("key"),
        sa.or_(
            secrets.c.app_name > param("after_app"),
            sa.and_(secrets.c.app_name == param("after_app"), secrets.c.name > param("after_name")),
        ),
    )
    .order_by(secrets.c.app_name, secrets.c.name)
    .limit(number("most"))
)


class SqlSecrets(SecretStore):
    """Encrypted secrets in one database."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._span = telemetry.tracing.span
        self._database = database

    async def put_secret(self, app_name: str, name: str, now: dt.datetime, seal: Seal) -> Secret:
        """Store it while nobody else changes the secrets of the app."""

        def steps() -> Steps[Secret]:
            app_id = _id_of((yield Read(_LOCK_APP, {"app": app_name})))
            stored = [_secret(row) for row in (yield Read(_LOCK, {"app": app_name}))]
            foreign = [secret for secret in stored if secret.app_id != app_id]  # of an app that another server deleted
            if foreign:
                yield Write(_DELETE, [_key(secret) for secret in foreign])
            ours = {secret.name: secret for secret in stored if secret.app_id == app_id}
            known = ours.get(name)
            if known is None and len(ours) >= MAX_SECRETS:
                raise SecretsTooMany
            made = Secret(
                app_name=app_name,
                app_id=app_id,
                name=name,
                id=ids.random_id() if known is None else known.id,
                version=1 if known is None else known.version + 1,
                updated_at=now,
            )
            made = seal(made)
            yield Write(_INSERT, [_row(made)]) if known is None else Write(_UPDATE, [{**_row(made), **_key(made)}])
            return made

        with self._span("ds_insert_secret"):
            return await self._database.transaction(steps)

    async def list_secrets(self, app_name: str) -> list[Secret]:
        """Read the secrets of the app that has this name now."""

        def steps() -> Steps[list[Secret]]:
            app_id = _id_of((yield Read(_READ_APP, {"app": app_name})))
            found = [_secret(row) for row in (yield Read(_LIST, {"app": app_name}))]
            return [secret for secret in found if secret.app_id == app_id]

        with self._span("ds_get_secrets"):
            return await self._database.transaction(steps)

    async def find_secrets(self, app_name: str, app_id: str, names: Sequence[str]) -> list[Secret]:
        """Read some secrets of an app."""
        if not names:
            return []
        query = Query(_FIND.where(secrets.c.name.in_(list(names))))
        with self._span("ds_get_secret_values"):
            found = await self._database.query(query, app=app_name, app_id=app_id)
        return [_secret(row) for row in found]

    async def remove_secret(self, app_name: str, name: str) -> None:
        """Delete it if the app that has this name now has it."""

        def steps() -> Steps[None]:
            app_id = _id_of((yield Read(_LOCK_APP, {"app": app_name})))
            stored = [_secret(row) for row in (yield Read(_LOCK, {"app": app_name}))]
            found = [_key(secret) for secret in stored if (secret.name, secret.app_id) == (name, app_id)]
            if not found:
                raise SecretsNotFound
            yield Write(_DELETE, found)

        with self._span("ds_remove_secret"):
            await self._database.transaction(steps)

    async def secret_keys(self) -> dict[str, int]:
        """Count the rows of each key."""
        with self._span("ds_get_secret_keys"):
            return {row["key_id"]: int(row["amount"]) for row in await self._database.query(_KEYS)}

    async def secrets_of_key(self, key_id: str, after: tuple[str, str], most: int) -> list[Secret]:
        """Read some rows of a key."""
        app_name, name = after
        with self._span("ds_get_secrets_of_key"):
            found = await self._database.query(_OF_KEY, key=key_id, after_app=app_name, after_name=name, most=most)
        return [_secret(row) for row in found]

    async def reseal_secret(self, before: Secret, after: Secret) -> bool:
        """Compare and swap."""
        is_before = {
            **_key(before),
            "key_id_of_secret": before.id,
            "key_version": before.version,
            "key_key": before.key_id,
        }

        def steps() -> Steps[bool]:
            if not (yield Read(_READ_VERSION, is_before)):
                return False
            yield Write(_RESEAL, [{**_key(before), "key_id": after.key_id, "sealed": after.sealed}])
            return True

        with self._span("ds_update_secret"):
            return await self._database.transaction(steps)


def _id_of(found: Sequence[Row]) -> str:
    """Return the id of the app that was read; empty if it has none."""
    if not found:
        raise AppsNotFound
    return str(found[0]["id"] or "")


def _key(secret: Secret) -> dict[str, Any]:
    return {"key_app": secret.app_name, "key_name": secret.name}


def _row(secret: Secret) -> dict[str, Any]:
    return {**msgspec.structs.asdict(secret), "updated_at": format_time(secret.updated_at)}


def _secret(row: Row) -> Secret:
    fields = Fields(row)
    return Secret(
        app_name=fields.text("app_name"),
        app_id=fields.text("app_id"),
        name=fields.text("name"),
        id=fields.text("id"),
        version=fields.number("version", 1),
        updated_at=fields.time("updated_at"),
        key_id=fields.text("key_id"),
        sealed=bytes(row["sealed"]) if "sealed" in row.keys() else b"",  # sqlite3.Row looks among its values
    )
