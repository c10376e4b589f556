"""What the stores rely on, whichever the database: one interface to read, to write and for transactions."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from hearth.models.errors import StoreRefused, StoreUnavailable
from hearth.sql.database import Database, Put, Read, Steps, Write
from hearth.sql.errors import Conflict
from hearth.sql.open import open_database
from hearth.sql.query import Query, number, param
from hearth.sql.schema.tables import apps, calls
from hearth.sql.upserts import ADD, STORE, CallRow, LogRow

NAMES = Query(sa.select(apps.c.name).order_by(apps.c.name).limit(number("most")))
LOCKED = Query(sa.select(apps.c.config).where(apps.c.name == param("name")).with_for_update())
INSERT = Query(sa.insert(apps))
UPDATE = Query(sa.update(apps).where(apps.c.name == param("key")), ["config"])
CALLS = Query(sa.select(calls.c.id, calls.c.status).order_by(calls.c.id))


def app(name: str, config: str = "") -> dict[str, str]:
    return {"name": name, "config": config, "created_at": "", "updated_at": "", "id": name}


def call(number: int, status: str = "success", error: str = "", **fields: Any) -> CallRow:
    empty = ("created_at", "started_at", "completed_at", "stats", "app_id", "response_status", "details")
    texts = dict.fromkeys(empty, "")
    return CallRow(f"{number:05}", "app", **{"path": "/", "status": status, "error": error, **texts, **fields})


@pytest.fixture
async def opened(database: str) -> AsyncIterator[Database]:
    found = await open_database(database)
    yield found
    await found.close()


async def names(database: Database) -> list[str]:
    return [row["name"] for row in await database.query(NAMES, most=100)]


def insert(*given: str) -> Steps[int]:
    yield Write(INSERT, [app(name) for name in given])
    return len((yield Read(NAMES, {"most": 100})))


async def test_a_transaction_reads_what_it_has_written_and_returns_its_result(opened: Database) -> None:
    assert await opened.transaction(lambda: insert("a", "b")) == 2
    assert await names(opened) == ["a", "b"]


async def test_an_error_of_the_steps_undoes_them_and_is_raised(opened: Database) -> None:
    def steps() -> Steps[None]:
        yield Write(INSERT, [app("a")])
        yield Put(ADD, ([call(1)], []))
        raise LookupError

    with pytest.raises(LookupError):
        await opened.transaction(steps)
    assert await names(opened) == []
    assert await opened.query(CALLS) == []
    assert await opened.transaction(lambda: insert("b")) == 1


async def test_a_row_that_the_database_rejects_undoes_all(opened: Database) -> None:
    def steps() -> Steps[None]:
        yield Write(INSERT, [app("a")])
        yield Put(STORE, ([call(1, path=None)], [], []))

    with pytest.raises(StoreRefused):
        await opened.transaction(steps)
    assert await names(opened) == []


async def test_a_transaction_that_meets_another_is_repeated(opened: Database) -> None:
    runs = 0

    def steps() -> Steps[int]:
        nonlocal runs
        runs += 1
        yield Write(INSERT, [app("a")])
        if runs < 3:
            raise Conflict("another transaction")
        return runs

    if type(opened).__name__ == "SqliteDatabase":
        pytest.skip("nobody else writes during a transaction of SQLite")
    assert await opened.transaction(steps) == 3
    assert await names(opened) == ["a"]


async def test_a_transaction_that_always_meets_another_fails_in_the_end(opened: Database) -> None:
    def steps() -> Steps[None]:
        yield Read(NAMES, {"most": 1})
        raise Conflict("another transaction")

    with pytest.raises(StoreUnavailable, match="another transaction"):
        await opened.transaction(steps)


async def test_what_is_read_for_update_waits_for_who_changes_it(opened: Database) -> None:
    await opened.transaction(lambda: insert("a"))

    def increment() -> Steps[None]:
        (row,) = yield Read(LOCKED, {"name": "a"})
        yield Write(UPDATE, [{"config": f"{row['config']}x", "key": "a"}])

    await asyncio.gather(*[opened.transaction(increment) for _ in range(12)])
    (row,) = await opened.query(LOCKED, name="a")
    assert row["config"] == "x" * 12


async def test_many_large_rows_are_one_transaction(opened: Database) -> None:
    rows = [call(number, error="\N{BUG}" * 20_000) for number in range(70)]
    await opened.write(STORE, rows, [], [LogRow(rows[0].id, "app", b"'\\\0" * 200_000)])
    assert len(await opened.query(CALLS)) == 70
    with pytest.raises(StoreRefused):
        await opened.write(STORE, [*[call(n, "error") for n in range(70)], call(99, path=None)], [], [])
    assert {row["status"] for row in await opened.query(CALLS)} == {"success"}


async def test_what_is_submitted_calls_back_when_it_is_stored(opened: Database) -> None:
    outcomes: list[Exception | None] = []
    ended = asyncio.Event()

    def done(error: Exception | None) -> None:
        outcomes.append(error)
        if len(outcomes) == 3:
            ended.set()

    opened.submit(STORE, ([call(1)], [], [LogRow("00001", "app", b"log")]), done)
    opened.submit(STORE, ([call(2), call(3, path=None)], [], []), done)
    opened.submit(STORE, ([], [], []), done)
    assert outcomes == []
    await ended.wait()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "NoneType", "StoreRefused"]
    assert [row["id"] for row in await opened.query(CALLS)] == ["00001"]


async def test_closing_waits_for_what_is_submitted(database: str) -> None:
    opened, outcomes = await open_database(database), list[Exception | None]()
    opened.submit(STORE, ([call(1)], [], []), outcomes.append)
    await opened.close()
    assert outcomes == [None]


async def test_rows_that_are_added_replace_nothing(opened: Database) -> None:
    await opened.write(STORE, [call(1)], [], [])
    await opened.write(ADD, [call(1, "queued"), call(2, "queued")], [])
    assert [row["status"] for row in await opened.query(CALLS)] == ["success", "queued"]


async def test_nothing_to_write_is_no_error(opened: Database) -> None:
    await opened.write(STORE, [], [], [])
    await opened.transaction(lambda: (yield from ()))  # type: ignore[arg-type, return-value]


async def test_who_gives_up_leaves_the_database_to_others(opened: Database) -> None:
    tasks = [asyncio.ensure_future(opened.transaction(functools.partial(insert, f"a{n}"))) for n in range(30)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, int) for outcome in outcomes[1::2]), outcomes
    assert {f"a{n}" for n in range(1, 30, 2)} <= set(await names(opened))


async def test_who_adds_what_another_has_just_added_looks_again(opened: Database) -> None:
    def add() -> Steps[bool]:
        if (yield Read(LOCKED, {"name": "a"})):
            return False
        yield Write(INSERT, [app("a")])
        return True

    outcomes = await asyncio.gather(*[opened.transaction(add) for _ in range(8)])
    assert sorted(outcomes) == [False] * 7 + [True]
