"""The histories of functions in SQL."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from hearth.models.image import pinned
from hearth.models.times import format_time
from hearth.models.version import KEPT, Version
from hearth.sql.database import Database, Read, Steps, Write
from hearth.sql.fields import Fields, report
from hearth.sql.query import Query, Row, param
from hearth.sql.schema.tables import versions
from hearth.stores.versions.base import VersionStore
from hearth.telemetry.node import Telemetry

_INSERT: Final = Query(sa.insert(versions))
_DELETE: Final = Query(sa.delete(versions).where(versions.c.id == param("key_id")))
_OF_FUNCTION: Final = sa.and_(versions.c.app_name == param("app"), versions.c.function == param("function"))
_LIST: Final = Query(sa.select(versions).where(_OF_FUNCTION).order_by(versions.c.id.desc()))
_LOCKED: Final = Query(sa.select(versions).where(_OF_FUNCTION).order_by(versions.c.id.desc()).with_for_update())
_IMAGES: Final = Query(sa.select(versions.c.image, versions.c.digest).distinct())


class SqlVersions(VersionStore):
    """The histories of functions in one database."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._span = telemetry.tracing.span
        self._database = database

    async def add_version(self, version: Version) -> bool:
        """Store a version in one transaction with the removal of old ones."""

        def steps() -> Steps[bool]:
            stored = yield Read(_LOCKED, {"app": version.app_name, "function": version.function})
            if stored and _to_version(stored[0]).is_same(version):
                return False
            yield Write(_INSERT, [_from_version(version)])
            if gone := [{"key_id": row["id"]} for row in stored[KEPT - 1 :]]:
                yield Write(_DELETE, gone)
            return True

        with self._span("ds_insert_version"):
            return await self._database.transaction(steps)

    async def get_versions(self, app_name: str, function: str) -> list[Version]:
        """Read the versions of a function, newest first."""
        with self._span("ds_get_versions"):
            found = await self._database.query(_LIST, app=app_name, function=function)
        return [_to_version(row) for row in found]

    async def get_version_images(self) -> set[str]:
        """Read the images of all versions."""
        with self._span("ds_get_version_images"):
            found = await self._database.query(_IMAGES)
        return {pinned(Fields(row).text("image"), Fields(row).text("digest")) for row in found}


def _from_version(version: Version) -> dict[str, Any]:
    return {
        "id": version.id,
        "app_name": version.app_name,
        "function": version.function,
        "image": version.image,
        "digest": version.digest,
        "config_hash": version.config_hash,
        "principal": version.principal,
        "created_at": format_time(version.created_at),
    }


def _to_version(row: Row) -> Version:
    """Return a row as a version. Columns that cannot be read are empty."""
    fields = Fields(row)
    version = Version(
        id=fields.text("id"),
        app_name=fields.text("app_name"),
        function=fields.text("function"),
        image=fields.text("image"),
        digest=fields.text("digest"),
        config_hash=fields.text("config_hash"),
        principal=fields.text("principal"),
        created_at=fields.time("created_at"),
    )
    if fields.unreadable:
        report(f"version {version.id}", fields.unreadable)
    return version
