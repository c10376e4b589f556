"""How records of calls come into a file of SQLite."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hearth.models.call import SUCCESS, Call
from hearth.models.ids import IdGenerator
from hearth.stores.records.base import CallFilter
from hearth.stores.sql import SqlDatastore, open_datastore

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlDatastore]:
    opened = await open_datastore(f"sqlite3://{tmp_path}/fn.db")
    yield opened
    await opened.close()


def ended(count: int) -> list[tuple[Call, bytes | None]]:
    new_id = IdGenerator(1, lambda: int(NOW.timestamp() * 1000) * 1_000_000)
    return [
        (
            Call(
                id=new_id(),
                app_name="app",
                path="/a",
                status=SUCCESS,
                created_at=NOW,
                started_at=NOW,
                completed_at=NOW,
            ),
            b"",
        )
        for _ in range(count)
    ]


async def test_calls_without_logs_are_one_statement_and_others_one_transaction(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options)
        connection.set_trace_callback(lambda text: said.append(text.split()[0]))
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    store = await open_datastore(f"sqlite3://{tmp_path}/fn.db")
    await store.put_calls(ended(1))
    said.clear()
    await store.put_calls(ended(11))
    assert said == ["INSERT"]
    said.clear()
    await store.put_calls([(call, b"log") for call, _ in ended(11)])
    assert said == ["BEGIN", "INSERT", "INSERT", "COMMIT"]
    said.clear()
    await store.put_calls([])
    assert said == []
    await store.close()


async def test_a_write_waits_for_the_transaction_of_another_process(store: SqlDatastore, tmp_path: Path) -> None:
    calls = ended(2)
    other = sqlite3.connect(tmp_path / "fn.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    storing = asyncio.create_task(store.put_calls(calls))
    assert await store.get_calls(CallFilter(app_name="app")) == []
    assert not storing.done()
    other.execute("COMMIT")
    other.close()
    assert await storing == [True, True]
    assert await store.get_calls(CallFilter(app_name="app")) == [call for call, _ in reversed(calls)]
