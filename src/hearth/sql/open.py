"""Open the database of an address."""

from __future__ import annotations

from hearth.aio.clock import Clock, SystemClock
from hearth.sql import engine
from hearth.sql.address import Address, parse
from hearth.sql.database import Database
from hearth.sql.engine import WAIT_S, BeforeChange
from hearth.telemetry.logs import get_logger

_log = get_logger(__name__)


async def open_database(
    url: str,
    *,
    wait_s: float = WAIT_S,
    variable: str = "FN_DB_URL",
    clock: Clock | None = None,
    before_change: BeforeChange | None = None,
) -> Database:
    """Wait until the database answers, migrate it, and return it. SQLite's file is created if it is missing.

    Args:
        url: The address, in one of Fn's forms.
        wait_s: How long to wait for a server that is not ready.
        variable: The setting that the address comes from; errors name it.
        clock: What waits.
        before_change: Awaited before the database is changed, if it has to be; what it raises leaves it unchanged.

    Raises:
        StartUpError: The address is wrong, or the database is not Hearth's or Fn's; it is unchanged.
        StoreUnavailable: It cannot be opened or migrated, or did not answer in time.
    """
    address = parse(url, variable)
    connected = await engine.connect(address, wait_s=wait_s, clock=clock)
    try:
        await engine.migrate(connected, address, before_change)
    finally:
        await connected.dispose()
    _log.info("datastore dialed", datastore=address.shown)
    return _database(address, clock or SystemClock())


def _database(address: Address, clock: Clock) -> Database:
    """Import only what this database needs."""
    if address.dialect == "sqlite":
        from hearth.sql.sqlite import SqliteDatabase

        return SqliteDatabase(str(address.url.database), clock)
    if address.dialect == "postgresql":
        from hearth.sql.postgres import PostgresDatabase

        return PostgresDatabase(address)
    from hearth.sql.mysql import MySQLDatabase

    return MySQLDatabase(address)
