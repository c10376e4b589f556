"""The datastore: definitions, secrets, records, tokens and the audit log, which share a database."""

from __future__ import annotations

import abc

from hearth.models.instances import MOST_KEPT_READY, KeptReady
from hearth.stores.audit.base import AuditStore
from hearth.stores.definitions.base import AppFilter, DefinitionStore
from hearth.stores.fns.base import FnStore
from hearth.stores.keys.base import KeyStore
from hearth.stores.pins.base import PinStore
from hearth.stores.records.base import RecordStore
from hearth.stores.schedules.base import ScheduleStore
from hearth.stores.secrets.base import SecretStore
from hearth.stores.tokens.base import TokenStore
from hearth.stores.versions.base import VersionStore


class Datastore(
    DefinitionStore,
    FnStore,
    SecretStore,
    RecordStore,
    KeyStore,
    TokenStore,
    AuditStore,
    VersionStore,
    PinStore,
    ScheduleStore,
):
    """Apps, routes, fns, triggers, their versions and pins, secrets, schedules, calls, keys, tokens and the audit log.

    Deleting an app deletes all that belongs to it in the same transaction.
    """

    @abc.abstractmethod
    async def close(self) -> None:
        """Release connections."""

    async def kept_ready(self) -> KeptReady:
        """Return the functions that keep containers ready, as many as a node looks after."""
        return KeptReady(await self.get_ready_routes(MOST_KEPT_READY), await self.get_ready_fns(MOST_KEPT_READY))

    async def check(self) -> None:
        """Find out whether the datastore serves. One that can write without changing anything does so.

        Raises:
            StoreUnavailable: It does not; the text says why.
        """
        await self.get_apps(AppFilter(per_page=1))
