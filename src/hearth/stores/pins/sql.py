"""The pins of functions in SQL: a column of routes and fns. It is NULL where no node has looked."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from hearth.models.image import Pin
from hearth.sql.database import Database, Read, Steps, Write
from hearth.sql.fields import Fields
from hearth.sql.query import Query, Row, param
from hearth.sql.schema.tables import fns, routes, versions
from hearth.stores.pins.base import PinStore
from hearth.telemetry.node import Telemetry

_IS_ROUTE: Final = sa.and_(routes.c.app_name == param("key_app"), routes.c.path == param("key_function"))
_IS_FN: Final = fns.c.id == param("key_function")
_LOCK_ROUTE: Final = Query(sa.select(routes.c.image, routes.c.digest).where(_IS_ROUTE).with_for_update())
_LOCK_FN: Final = Query(sa.select(fns.c.image, fns.c.digest).where(_IS_FN).with_for_update())
_PIN_ROUTE: Final = Query(sa.update(routes).where(_IS_ROUTE), ["digest"])
_PIN_FN: Final = Query(sa.update(fns).where(_IS_FN), ["digest"])
_VERSIONS: Final = (
    sa.select(versions.c.id, versions.c.image, versions.c.digest)
    .where(versions.c.function == param("key_function"))
    .order_by(versions.c.id.desc())
    .limit(1)
)
_NEWEST_OF_FN: Final = Query(_VERSIONS)
_NEWEST_OF_ROUTE: Final = Query(_VERSIONS.where(versions.c.app_name == param("key_app")))
_PIN_VERSION: Final = Query(sa.update(versions).where(versions.c.id == param("key_id")), ["digest"])
_UNPINNED_ROUTES: Final = Query(
    sa.select(routes.c.app_name, routes.c.path, routes.c.image).where(routes.c.digest.is_(None))
)
_UNPINNED_FNS: Final = Query(sa.select(fns.c.id, fns.c.image).where(fns.c.digest.is_(None)))


class SqlPins(PinStore):
    """The pins of functions in one database."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._span = telemetry.tracing.span
        self._database = database

    async def pin(self, pin: Pin) -> bool:
        """Compare the function and write its digest, in one transaction with the newest version."""
        lock, update = (_LOCK_ROUTE, _PIN_ROUTE) if pin.is_of_route else (_LOCK_FN, _PIN_FN)
        newest = _NEWEST_OF_ROUTE if pin.is_of_route else _NEWEST_OF_FN
        key = {"key_function": pin.function} | ({"key_app": pin.app_name} if pin.is_of_route else {})

        def steps() -> Steps[bool]:
            found = yield Read(lock, key)
            if not found or not _is_open(found[0], pin):
                return False
            yield Write(update, [{"digest": pin.digest, **key}])
            versions = (yield Read(newest, key)) if pin.digest else []
            if versions and _is_open(versions[0], pin):
                yield Write(_PIN_VERSION, [{"digest": pin.digest, "key_id": versions[0]["id"]}])
            return True

        with self._span("ds_pin"):
            return await self._database.transaction(steps)

    async def get_unpinned(self) -> list[Pin]:
        """Read the functions without a digest."""
        with self._span("ds_get_unpinned"):
            of_routes = [Fields(row) for row in await self._database.query(_UNPINNED_ROUTES)]
            of_fns = [Fields(row) for row in await self._database.query(_UNPINNED_FNS)]
        return [
            *[Pin(row.text("app_name"), row.text("path"), row.text("image")) for row in of_routes],
            *[Pin("", row.text("id"), row.text("image")) for row in of_fns],
        ]


def _is_open(row: Row, pin: Pin) -> bool:
    return row["image"] == pin.image and not row["digest"]
