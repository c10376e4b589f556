"""SQLite's log is copied beside the commits, stays short, and loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.clock import FakeClock

from hearth.sql import write_ahead_log
from hearth.sql.open import open_database
from hearth.sql.sqlite import SqliteDatabase
from hearth.sql.upserts import STORE, CallRow, LogRow

_KIB = 1 << 10


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Time, and logs that are long soon."""
    monkeypatch.setattr(write_ahead_log, "LONG_BYTES", 256 * _KIB)
    monkeypatch.setattr(write_ahead_log, "WORTH_BYTES", 64 * _KIB)
    return FakeClock()


@pytest.fixture
async def database(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteDatabase]:
    opened = await open_database(f"sqlite3://{tmp_path}/fn.db", clock=clock)
    assert isinstance(opened, SqliteDatabase)
    yield opened
    await opened.close()


async def write(database: SqliteDatabase, number: int, size: int = 20 * _KIB) -> None:
    call = CallRow(f"{number:05}", "app", "/", "success", *[""] * 8)
    await database.write(STORE, [call], [], [LogRow(call.id, "app", b"x" * size)])


def log_size(tmp_path: Path) -> int:
    return (tmp_path / "fn.db-wal").stat().st_size


def stored(tmp_path: Path) -> int:
    """The number of calls in the file, without what is only in the log."""
    connection = sqlite3.connect(f"file:{tmp_path}/fn.db?immutable=1", uri=True)
    try:
        found: int = connection.execute("SELECT count(*) FROM calls").fetchone()[0]
        return found
    finally:
        connection.close()


async def test_no_commit_copies_the_log(database: SqliteDatabase, tmp_path: Path) -> None:
    before = (tmp_path / "fn.db").stat()
    for number in range(40):
        await write(database, number, 500 * _KIB)  # SQLite itself would copy it after a thousand pages
    assert log_size(tmp_path) > 40 * 500 * _KIB
    assert ((tmp_path / "fn.db").stat().st_mtime_ns, stored(tmp_path)) == (before.st_mtime_ns, 0)


async def test_the_log_stays_short_while_writes_go_on(
    database: SqliteDatabase, tmp_path: Path, clock: FakeClock
) -> None:
    for number in range(300):
        await write(database, number)
        if log_size(tmp_path) > 256 * _KIB:
            clock.advance(1)
            writes = number
            while log_size(tmp_path) > 256 * _KIB:  # others write all the time
                writes += 1
                await write(database, 1000 + writes % 50)
                clock.advance(1)
    assert log_size(tmp_path) <= 256 * _KIB + 100 * _KIB
    assert stored(tmp_path) > 250


async def test_a_quiet_moment_empties_the_log(database: SqliteDatabase, tmp_path: Path, clock: FakeClock) -> None:
    for number in range(3):
        await write(database, number)
    assert 64 * _KIB < log_size(tmp_path) < 256 * _KIB
    clock.advance(1)  # a second in which there were writes
    assert stored(tmp_path) == 0
    while log_size(tmp_path) > 0:
        clock.advance(1)
        await asyncio.sleep(0)
    assert (stored(tmp_path), clock.pending) == (3, 0)
    await write(database, 9)
    assert clock.pending == 1


async def test_a_reader_that_stays_keeps_no_commit_waiting(
    database: SqliteDatabase, tmp_path: Path, clock: FakeClock
) -> None:
    await write(database, 0)
    reader = sqlite3.connect(tmp_path / "fn.db", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM calls").fetchone()[0] == 1
    for number in range(1, 30):
        await write(database, number)
        clock.advance(1)
    assert log_size(tmp_path) > 256 * _KIB
    reader.close()
    while log_size(tmp_path) > 256 * _KIB:
        await write(database, 30)
        clock.advance(1)


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), OSError(5, "disk I/O error")], ids=type)
async def test_a_copy_that_fails_is_reported_once_and_commits_go_on(
    database: SqliteDatabase,
    tmp_path: Path,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    copy, tries = write_ahead_log.copy_back, 0

    def fails(db: sqlite3.Connection, worth: int) -> None:
        nonlocal tries
        tries += 1
        raise error

    monkeypatch.setattr(write_ahead_log, "copy_back", fails)
    number = 0
    while tries < 3:
        number += 1
        await write(database, number)
        clock.advance(1)
    said = capsys.readouterr().out
    assert said.count("write-ahead log grows: it cannot be copied") == 1
    assert "disk I/O error" in said
    monkeypatch.setattr(write_ahead_log, "copy_back", copy)
    while "write-ahead log copied again" not in said:
        await write(database, 1)
        clock.advance(1)
        said += capsys.readouterr().out


#: Writes, with copies all the time, and says which calls are stored.
_WRITER = """
import asyncio, sys
from hearth.aio.clock import SystemClock
from hearth.sql import write_ahead_log
from hearth.sql.open import open_database
from hearth.sql.upserts import STORE, CallRow, LogRow

write_ahead_log.LOOK_S, write_ahead_log.LONG_BYTES, write_ahead_log.WORTH_BYTES = 0.001, 1 << 16, 0

async def main():
    database = await open_database(sys.argv[1])
    for number in range(100_000):
        row = CallRow(f"{number:06}", "app", "/", "success", *[""] * 8)
        await database.write(STORE, [row], [], [LogRow(row.id, "app", b"x" * 5000)])
        print(f"stored {row.id}", flush=True)

asyncio.run(main())
"""


def test_what_is_committed_survives_the_sudden_death_of_its_process(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, f"sqlite3://{tmp_path}/fn.db"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FN_LOG_LEVEL": "error"},
    )
    assert writer.stdout is not None
    told: list[str] = []
    with writer.stdout as lines:
        for line in lines:
            if line.startswith("stored "):
                told.append(line.split()[1])
            if len(told) == 400:
                writer.send_signal(signal.SIGKILL)
                break
        told += [line.split()[1] for line in lines if line.startswith("stored ") and line.endswith("\n")]
    writer.wait()
    with sqlite3.connect(tmp_path / "fn.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = {row[0] for row in connection.execute("SELECT calls.id FROM calls JOIN logs ON logs.id = calls.id")}
    connection.close()
    assert len(told) >= 400
    assert set(told) <= found
