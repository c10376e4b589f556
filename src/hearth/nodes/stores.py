"""The stores of a node that has no API node above it: database, queue and log store."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Awaitable, Callable, Iterator

from hearth.access.base import StoredWorld
from hearth.access.local import LocalAcceptedCalls, LocalCallRecords, LocalIdempotencyKeys
from hearth.access.queued_calls import QueuedCalls
from hearth.access.quota_cache import CachedQuotas
from hearth.access.stored_bytes import StoredBytes
from hearth.models.errors import StartUpError
from hearth.nodes.dead_letter_gauges import DeadLetterGauges
from hearth.nodes.foundation import Foundation
from hearth.nodes.queue_gauges import QueueGauges
from hearth.nodes.retention import retention
from hearth.nodes.startup_errors import DATABASE, LOG_STORE, QUEUE, NamedStartUpError, named_errors
from hearth.queues.base import Queue
from hearth.queues.open import open_queue
from hearth.server.api_v1.calls import GetLog
from hearth.server.health import Check
from hearth.settings import API, Settings
from hearth.stores.datastore import Datastore
from hearth.stores.logs.base import LogStore
from hearth.stores.logs.open import open_logstore
from hearth.stores.secrets.keyring import FILE, Keyring, check_keys
from hearth.stores.secrets.vault import Vault


@dataclasses.dataclass(frozen=True, slots=True)
class Stores:
    """The stores of a node that has no API node above it."""

    datastore: Datastore
    queue: Queue
    logs: LogStore | None
    records: LocalCallRecords
    accepted: LocalAcceptedCalls
    quotas: CachedQuotas
    vault: Vault
    keys: LocalIdempotencyKeys

    @property
    def world(self) -> StoredWorld:
        """Return the interfaces through which calls use the stores."""
        store = self.datastore
        keys = self.keys
        return StoredWorld(
            store, self.records, self.accepted, self.vault, store, store, pins=store, keys=keys, ready=store
        )

    @property
    def checks(self) -> dict[str, Check]:
        """Return the readiness checks of the stores."""
        return {"database": self.datastore.check, "queue": self.queue.check}

    @property
    def get_log(self) -> GetLog | None:
        """Return the reader of logs, if they are not in the datastore."""
        return self.logs.get_log if self.logs else None


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Import something large: the collector would look at all of it several times, and it stays."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


async def open_stores(base: Foundation, before_change: Callable[[], Awaitable[None]]) -> Stores:
    """Open the stores that the options do not give.

    A start that fails leaves databases as they were. So they are migrated last, after ``before_change``, which is
    awaited once or twice.
    """
    settings, options, stack = base.settings, base.options, base.stack
    if not (options.datastore or settings.database) or not (options.queue or settings.queue):
        kind = "Api" if settings.node_type == API else "Full"
        raise StartUpError(f"{kind} nodes must configure FN_DB_URL, FN_LOG_URL, FN_MQ_URL.")
    check_keys(settings.secret_key.get_secret_value())
    logs, queue = options.logs, options.queue

    async def open_others() -> None:
        nonlocal logs, queue
        if queue is None:
            with named_errors(*QUEUE, settings.queue):
                queue = await open_queue(settings.queue, base.clock, visibility_s=settings.visibility_s)
            stack.push_async_callback(queue.close)
        try:
            await before_change()
        except StartUpError as exc:
            raise NamedStartUpError(str(exc)) from exc  # not an error of the database, within whose opening this runs
        if logs is None and settings.logstore_url:
            with named_errors(*LOG_STORE, settings.logstore_url):
                logs = await open_logstore(settings.logstore_url, wait_s=settings.db_wait_s, telemetry=base.telemetry)
            stack.push_async_callback(logs.close)

    if (datastore := options.datastore) is None:
        with _without_collection():  # a third of a start, and 20 MiB: runners do without
            from hearth.stores.sql import open_datastore
        with named_errors(*DATABASE, settings.database):
            datastore = await open_datastore(
                settings.database, telemetry=base.telemetry, wait_s=settings.db_wait_s, before_change=open_others
            )
        stack.push_async_callback(datastore.close)
    await open_others()
    assert queue is not None
    records = LocalCallRecords(datastore, logs, base.telemetry.metrics)
    quotas = CachedQuotas(datastore, base.clock)
    queued = QueuedCalls(datastore, quotas, base.clock, settings.quotas, base.telemetry.metrics)
    stored = StoredBytes(queue, datastore, logs, quotas, base.clock, settings.quotas, base.telemetry.metrics)
    accepted = LocalAcceptedCalls(
        *(queue, datastore, base.clock, base.telemetry.tracing, queued, stored, quotas, settings.public_url)
    )
    stack.push_async_callback(stored.close)
    stack.push_async_callback(records.close)
    stack.push_async_callback(accepted.close)
    await stack.enter_async_context(retention(settings, datastore, queue, logs, base.clock))
    await stack.enter_async_context(QueueGauges(queue, base.clock, base.telemetry.metrics))
    await stack.enter_async_context(DeadLetterGauges(datastore, base.clock, base.telemetry.metrics))
    vault = Vault(datastore, keyring(settings))
    await vault.look()
    keys = LocalIdempotencyKeys(datastore, base.clock)
    return Stores(datastore, queue, logs, records, accepted, quotas, vault, keys)


def keyring(settings: Settings) -> Keyring:
    """Return the keys of the secrets of a node."""
    return Keyring(settings.secret_key.get_secret_value(), settings.secret_key_file, settings.data / FILE)
