"""The API over a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.support import contract

from hearth.clock import SystemClock
from hearth.datastore.sql import SqlDatastore, open_datastore
from hearth.server.api import Api


@pytest.fixture
async def datastore(tmp_path: Path) -> AsyncIterator[SqlDatastore]:
    """An empty database."""
    opened = await open_datastore(f"sqlite3://{tmp_path}/fn.db")
    yield opened
    await opened.close()


@pytest.fixture
async def api(datastore: SqlDatastore) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API; every answer that it gets is checked against the published description."""
    app = Api(datastore, SystemClock(), lambda: {"Queue": 0, "FunctionStatsMap": {}})
    transport = httpx.ASGITransport(app)
    hooks = {"response": [contract.check]}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", event_hooks=hooks) as client:
        yield client
