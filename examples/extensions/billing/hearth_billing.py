"""What each app has used: calls and GB-seconds, by day, in a SQLite file of this node (``BILLING_DB``).

A call is on disk before its answer ends; all calls that end while one write is under way share the next. What cannot
be written is kept, and written with what comes next: billing never fails a call. ``GET /v1/apps/:app/usage`` tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request

from hearth.agent.listeners import CallListener
from hearth.aio.group_commit import GroupCommit
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.times import ZERO
from hearth.server.extensions import Server
from hearth.telemetry.logs import get_logger

SCHEMA = """CREATE TABLE IF NOT EXISTS usage (
    app TEXT, day TEXT, calls INTEGER NOT NULL, gb_ms INTEGER NOT NULL, PRIMARY KEY (app, day)
)"""
ADD = """INSERT INTO usage VALUES (?, ?, ?, ?)
    ON CONFLICT (app, day) DO UPDATE SET calls = calls + excluded.calls, gb_ms = gb_ms + excluded.gb_ms"""

log = get_logger(__name__)


class Billing:
    """The extension."""

    name = "hearth/billing"

    async def setup(self, server: Server) -> None:
        """Open the file, count calls, tell what was counted."""
        ledger = await server.enter(ledger_at(os.environ.get("BILLING_DB", "billing.db")))
        server.add_call_listener(ledger)
        if server.node_type != "runner":

            async def usage(request: Request, app: App) -> dict[str, Any]:
                return {"usage": await ledger.usage(app.name)}

            server.add_app_endpoint("GET", "/usage", usage)


@contextlib.asynccontextmanager
async def ledger_at(path: str) -> AsyncIterator[Ledger]:
    """A ledger in a file; leaving it writes what is left."""
    database = await asyncio.to_thread(open_database, path)
    ledger = Ledger(database)
    try:
        yield ledger
    finally:
        await ledger.close()
        database.close()


def open_database(path: str) -> sqlite3.Connection:
    """A file that survives the machine's sudden end."""
    database = sqlite3.connect(path, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(SCHEMA)
    return database


class Ledger(CallListener):
    """Adds calls up."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._lock = asyncio.Lock()
        self._writes = GroupCommit(self._write)
        self._calls: Counter[tuple[str, str]] = Counter()
        self._gb_ms: Counter[tuple[str, str]] = Counter()

    async def after_call(self, call: Call) -> None:
        """Count one call; a call that never ran has used nothing."""
        if call.started_at != ZERO:
            await self._writes.put(call)

    async def usage(self, app: str) -> list[dict[str, Any]]:
        """An app's days."""
        query = "SELECT day, calls, gb_ms FROM usage WHERE app = ? ORDER BY day"
        async with self._lock:
            rows = await asyncio.to_thread(lambda: self._database.execute(query, (app,)).fetchall())
        return [{"day": day, "calls": calls, "gb_seconds": gb_ms / 1000} for day, calls, gb_ms in rows]

    async def close(self) -> None:
        """Write what is left."""
        await self._writes.close()

    async def _write(self, calls: list[Call]) -> Sequence[None]:
        for call in calls:
            key = (call.app_name, f"{call.completed_at:%Y-%m-%d}")
            milliseconds = (call.completed_at - call.started_at).total_seconds() * 1000
            self._calls[key] += 1
            self._gb_ms[key] += round(milliseconds * call.memory / 1024)
        rows = [(*key, count, self._gb_ms[key]) for key, count in self._calls.items()]
        try:
            async with self._lock:
                await asyncio.to_thread(self._add, rows)
        except sqlite3.Error as exc:
            log.error("usage not written yet", apps=len(rows), error=str(exc))
        else:
            self._calls.clear()
            self._gb_ms.clear()
        return [None] * len(calls)

    def _add(self, rows: list[tuple[str, str, int, int]]) -> None:
        with self._database:
            self._database.executemany(ADD, rows)
