"""The API over a database of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.support import contract
from tests.support.databases import migrate, prepared
from tests.support.door import guarded
from tests.support.scheduled import schedules_of

from hearth.aio.clock import SystemClock
from hearth.server.api import Api
from hearth.stores.secrets.keyring import FILE, Keyring
from hearth.stores.secrets.vault import Vault
from hearth.stores.sql import SqlDatastore, open_datastore


@pytest.fixture
async def datastore(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlDatastore]:
    """An empty database: a copy of one that this worker has migrated."""
    async with contextlib.AsyncExitStack() as stack:
        opened = await open_datastore(await prepared(request, stack, "sqlite", tmp_path, migrate))
        yield opened
        await opened.close()


@pytest.fixture
async def api(datastore: SqlDatastore, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API; every answer that it gets is checked against the published description."""
    vault = Vault(datastore, Keyring("", None, tmp_path / FILE))
    counts = {"Queue": 0, "FunctionStatsMap": {}}
    app = guarded(
        Api(datastore, SystemClock(), lambda: counts, vault=vault, schedules=schedules_of(datastore)), hosts="api"
    )
    transport = httpx.ASGITransport(app)
    hooks = {"response": [contract.check]}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", event_hooks=hooks) as client:
        yield client
