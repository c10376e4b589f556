"""The stored world as each kind of node sees it, over a real database and a real queue."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from hearth import settings
from hearth.access.base import (
    AcceptedCalls,
    CallRecords,
    Definitions,
    FnDefinitions,
    IdempotencyKeys,
    PinTarget,
    ReadySource,
    SecretSource,
    StoredWorld,
    TokenSource,
)
from hearth.access.local import LocalAcceptedCalls, LocalCallRecords, LocalIdempotencyKeys
from hearth.access.queued_calls import QueuedCalls
from hearth.access.quota_cache import CachedQuotas
from hearth.access.remote.client import parse_api_url
from hearth.access.remote.world import open_remote
from hearth.access.stored_bytes import StoredBytes
from hearth.aio.clock import SystemClock
from hearth.models.call import Call
from hearth.models.log_reader import read_all
from hearth.models.quotas import NO_QUOTAS
from hearth.nodes import Options, open_node
from hearth.queues.base import Queue
from hearth.queues.open import open_queue
from hearth.stores.datastore import Datastore
from hearth.stores.logs.base import LogStore
from hearth.stores.logs.open import open_logstore
from hearth.stores.secrets.keyring import FILE, Keyring
from hearth.stores.secrets.vault import Vault
from hearth.stores.sql import open_datastore
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.node import Telemetry

VISIBILITY_S: Final = 45.0
_CLOCK: Final = SystemClock()
_TOKEN: Final = "token-of-the-runners"


@dataclasses.dataclass(frozen=True, slots=True)
class Stores:
    """What is behind the interfaces."""

    datastore: Datastore
    queue: Queue
    logs: LogStore | None

    async def call(self, call_id: str) -> Call:
        """Return the record of a call."""
        return await self.datastore.get_call("app", call_id)

    async def log(self, call_id: str) -> bytes:
        """Return the log of a call."""
        return await read_all(await (self.logs or self.datastore).get_log("app", call_id))


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """The interfaces, and what is behind them."""

    definitions: Definitions
    records: CallRecords
    accepted: AcceptedCalls
    secrets: SecretSource
    tokens: TokenSource
    fns: FnDefinitions
    pins: PinTarget
    keys: IdempotencyKeys
    ready: ReadySource
    stores: Stores


@contextlib.asynccontextmanager
async def _local(stores: Stores, folder: Path) -> AsyncIterator[StoredWorld]:
    records = LocalCallRecords(stores.datastore, stores.logs)
    quotas = CachedQuotas(stores.datastore, _CLOCK)
    queued = QueuedCalls(stores.datastore, quotas, _CLOCK, NO_QUOTAS, Metrics())
    stored = StoredBytes(stores.queue, stores.datastore, stores.logs, quotas, _CLOCK, NO_QUOTAS, Metrics())
    accepted = LocalAcceptedCalls(stores.queue, stores.datastore, _CLOCK, queued=queued, stored=stored, quotas=quotas)
    vault = Vault(stores.datastore, Keyring("", None, folder / FILE))
    datastore = stores.datastore
    keys = LocalIdempotencyKeys(datastore, _CLOCK)
    yield StoredWorld(
        datastore, records, accepted, vault, datastore, datastore, pins=datastore, keys=keys, ready=datastore
    )
    await stored.close()
    await records.close()
    await accepted.close()


@contextlib.asynccontextmanager
async def _remote(stores: Stores, folder: Path) -> AsyncIterator[StoredWorld]:
    """Return the view of a runner, over HTTP."""
    given = Options(datastore=stores.datastore, queue=stores.queue, logs=stores.logs)
    wanted = settings.load(node_type="api", data_dir=folder, runner_token=_TOKEN, runner_quiet_s=0.0)
    async with (
        open_node(wanted, 0, given) as node,
        _listening(node.app) as address,
        open_remote(
            parse_api_url(address),
            _CLOCK,
            token=_TOKEN,
            connect_s=5.0,
            spool=folder / "runner.spool",
            spool_bytes=1 << 20,
            telemetry=Telemetry(),
        ) as world,
    ):
        yield world


@contextlib.asynccontextmanager
async def _listening(app: ASGIApp) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


#: Each kind of node that has the interfaces, and whether its logs are in a store of their own.
KINDS: Final[dict[str, tuple[Callable[[Stores, Path], AbstractAsyncContextManager[StoredWorld]], bool]]] = {
    "local": (_local, False),
    "local with a log store": (_local, True),
    "remote": (_remote, False),
}


@contextlib.asynccontextmanager
async def opened_world(
    kind: str, database: str, folder: Path, *, visibility_s: float = VISIBILITY_S
) -> AsyncIterator[World]:
    """Open the stored world of one kind of node."""
    open_world, has_logs = KINDS[kind]
    async with contextlib.AsyncExitStack() as stack:
        datastore = await open_datastore(database)
        stack.push_async_callback(datastore.close)
        queue = await open_queue("memory://", _CLOCK, visibility_s=visibility_s)
        stack.push_async_callback(queue.close)
        logs: LogStore | None = None
        if has_logs:
            logs = await open_logstore(f"sqlite3://{folder}/logs.db", wait_s=5)
            stack.push_async_callback(logs.close)
        stores = Stores(datastore, queue, logs)
        world = await stack.enter_async_context(open_world(stores, folder))
        yield World(
            world.definitions,
            world.records,
            world.accepted,
            world.secrets,
            world.tokens,
            world.fns,
            world.pins,
            world.keys,
            world.ready,
            stores,
        )
