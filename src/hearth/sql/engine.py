"""Connect to the database of an address, and migrate it to the present schema."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hearth.aio.clock import Clock, SystemClock, pause
from hearth.host import private_files
from hearth.models.errors import StartUpError, StoreUnavailable
from hearth.sql import schema
from hearth.sql.address import Address
from hearth.sql.errors import failures, is_busy, is_hopeless, reason
from hearth.telemetry.logs import get_logger

#: Seconds that a start waits for a server that does not answer yet.
WAIT_S: Final = 30.0
_PROGRESS_S: Final = 5.0
_RETRY_S: Final = 0.25

#: Execution options of a connection that will write: SQLite takes the lock before it reads, so nothing that it has read
#: is stale.
WRITES: Final = {"begin": "BEGIN IMMEDIATE"}

#: Opens what has to work before a database is migrated.
BeforeChange = Callable[[], Awaitable[None]]

#: SQLite's number for a file that can return its free pages to the disk, some at a time.
INCREMENTAL: Final = 2

_log = get_logger(__name__)


async def connect(address: Address, *, wait_s: float = WAIT_S, clock: Clock | None = None) -> AsyncEngine:
    """Return an engine whose database answers, with any schema. SQLite's file is created if it is missing.

    Args:
        address: Where the database is.
        wait_s: How long to wait for a server that is not ready.
        clock: What waits.

    Raises:
        StartUpError: The server refuses the user or the database of the address.
        StoreUnavailable: The database cannot be opened, or did not answer in time.
    """
    if address.path is not None:
        await asyncio.to_thread(_make_file, address)
    engine = _engine(address)
    try:
        await _until_it_answers(engine, address, wait_s, clock or SystemClock())
    except BaseException:
        await engine.dispose()
        raise
    return engine


async def migrate(engine: AsyncEngine, address: Address, before_change: BeforeChange | None = None) -> None:
    """Migrate a database to the present schema.

    Args:
        engine: What :func:`connect` returned.
        address: Where the database is.
        before_change: Awaited before the database is changed, if it has to be; what it raises leaves it unchanged.

    Raises:
        StartUpError: It is not Hearth's or Fn's, or newer than this release; it is unchanged.
        StoreUnavailable: The migration failed; where the database can roll it back, nothing was changed.
    """
    try:
        async with engine.connect() as connection:
            version = await connection.run_sync(schema.look, address.shown)
        if address.path is not None and not os.access(address.path, os.W_OK):
            raise StoreUnavailable(f"{address.shown}: cannot write to the database: {os.strerror(errno.EACCES)}")
        if not version.current and before_change is not None:
            await before_change()
        if address.path is not None:
            await _set_kind_of_file(engine, SystemClock())
        if not version.current:
            async with engine.execution_options(**WRITES).begin() as connection:
                await connection.run_sync(schema.up, address.shown)
    except failures() as exc:
        raise StoreUnavailable(f"{address.shown}: cannot migrate the database: {reason(exc)}") from exc


async def rewrite(engine: AsyncEngine) -> None:
    """Rewrite SQLite's file without its free space, as one that returns space later. Nobody can write meanwhile.

    Raises:
        StoreUnavailable: It failed, or another process uses the file; nothing was changed.
    """
    try:
        async with engine.execution_options(begin="").connect() as connection:
            await connection.exec_driver_sql(f"PRAGMA auto_vacuum = {INCREMENTAL}")
            await connection.exec_driver_sql("VACUUM")
            await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    except failures() as exc:
        raise StoreUnavailable(f"cannot rewrite the database: {reason(exc)}") from exc


async def _set_kind_of_file(engine: AsyncEngine, clock: Clock) -> None:
    """Set what cannot be set within a transaction.

    SQLite does not wait for another node that does the same: two that each wait for the other would never end.
    """
    end = clock.monotonic() + WAIT_S
    while True:
        try:
            async with engine.execution_options(begin="").connect() as connection:
                # of a new file; an existing one keeps its kind until it is rewritten
                await connection.exec_driver_sql(f"PRAGMA auto_vacuum = {INCREMENTAL}")
                await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except failures() as exc:
            if not is_busy(exc) or clock.monotonic() >= end:
                raise
        else:
            return
        await pause(clock, _RETRY_S)


def _engine(address: Address) -> AsyncEngine:
    options: dict[str, Any] = {"connect_args": address.connect_args, "hide_parameters": True}
    if address.path is not None:
        engine = create_async_engine(address.url, **options)
        sa.event.listen(engine.sync_engine, "connect", _configure)
        sa.event.listen(engine.sync_engine, "begin", _begin)
        return engine
    return create_async_engine(address.url, isolation_level="READ COMMITTED", **options)


async def _until_it_answers(engine: AsyncEngine, address: Address, wait_s: float, clock: Clock) -> None:
    start = logged_at = clock.monotonic()
    while True:
        try:
            async with engine.connect() as connection:
                await connection.execute(sa.select(1))
        except failures() as exc:
            waited = clock.monotonic() - start
            if is_hopeless(exc):
                raise StartUpError(f"{address.shown}: {reason(exc)}") from exc
            if address.path is not None:
                raise StoreUnavailable(f"{address.shown}: cannot open the database: {reason(exc)}") from exc
            if waited >= wait_s:
                raise StoreUnavailable(f"{address.shown}: couldn't ping db for {waited:.0f} s: {reason(exc)}") from exc
            if clock.monotonic() - logged_at >= _PROGRESS_S:
                logged_at = clock.monotonic()
                _log.warning(
                    "waiting for the database", datastore=address.shown, waited_s=int(waited), error=reason(exc)
                )
        else:
            return
        await pause(clock, _RETRY_S)


def _make_file(address: Address) -> None:
    assert address.path is not None
    try:
        private_files.make_file(address.path)
    except OSError as exc:
        raise StoreUnavailable(f"{address.shown}: cannot open the database: {exc}") from exc


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin says, not where the driver guesses
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    if statement := connection.get_execution_options().get("begin", "BEGIN"):
        connection.exec_driver_sql(statement)
