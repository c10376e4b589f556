"""The datastore in SQL: all stores in one database."""

from __future__ import annotations

from hearth.sql.database import Database
from hearth.sql.engine import WAIT_S, BeforeChange
from hearth.sql.open import open_database
from hearth.stores.audit.sql import SqlAudit
from hearth.stores.datastore import Datastore
from hearth.stores.definitions.sql import SqlDefinitions
from hearth.stores.fns.sql import SqlFns
from hearth.stores.keys.sql import SqlKeys
from hearth.stores.pins.sql import SqlPins
from hearth.stores.records.sql import SqlRecords
from hearth.stores.schedules.sql import SqlSchedules
from hearth.stores.secrets.sql import SqlSecrets
from hearth.stores.tokens.sql import SqlTokens
from hearth.stores.versions.sql import SqlVersions
from hearth.telemetry.node import Telemetry


async def open_datastore(
    url: str,
    *,
    telemetry: Telemetry | None = None,
    wait_s: float = WAIT_S,
    before_change: BeforeChange | None = None,
) -> SqlDatastore:
    """Open the datastore of an address.

    Args:
        url: The address, in one of Fn's forms.
        telemetry: What times the operations; without it, nobody sees the times.
        wait_s: How long to wait for a server that is not ready.
        before_change: Awaited before the database is changed, if it has to be; what it raises leaves it unchanged.

    Raises:
        StartUpError: The address is wrong, or the database is not Hearth's or Fn's.
        StoreUnavailable: It cannot be opened.
    """
    database = await open_database(url, wait_s=wait_s, before_change=before_change)
    return SqlDatastore(database, telemetry or Telemetry())


class SqlDatastore(
    SqlDefinitions,
    SqlFns,
    SqlSecrets,
    SqlRecords,
    SqlKeys,
    SqlTokens,
    SqlAudit,
    SqlVersions,
    SqlPins,
    SqlSchedules,
    Datastore,
):
    """All stores, and the database that they share."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        SqlDefinitions.__init__(self, database, telemetry)
        SqlFns.__init__(self, database, telemetry)
        SqlSecrets.__init__(self, database, telemetry)
        SqlRecords.__init__(self, database, telemetry)
        SqlKeys.__init__(self, database, telemetry)
        SqlTokens.__init__(self, database, telemetry)
        SqlAudit.__init__(self, database, telemetry)
        SqlVersions.__init__(self, database, telemetry)
        SqlPins.__init__(self, database, telemetry)
        SqlSchedules.__init__(self, database, telemetry)

    async def check(self) -> None:
        """Write a row as it is: a full disk, a deleted file or a server that only reads shows here."""
        await self._database.check()

    async def close(self) -> None:
        """Wait for what was asked for, then release the connections."""
        await SqlDefinitions.finish(self)
        await SqlRecords.finish(self)
        await SqlTokens.finish(self)
        await self._database.close()
