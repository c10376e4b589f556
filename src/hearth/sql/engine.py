"""Opens the database of an address, brought to the present schema."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hearth.clock import Clock, SystemClock, pause
from hearth.models.errors import StartUpError, StoreUnavailable
from hearth.sql import schema
from hearth.sql.address import Address, parse
from hearth.sql.failures import failures, is_hopeless, told
from hearth.telemetry.logs import get_logger

#: Seconds that a start waits for a server that does not answer yet.
WAIT_S: Final = 30.0
_PROGRESS_S: Final = 5.0
_RETRY_S: Final = 0.25
_POOL_SIZE: Final = 10
_POOL_TIMEOUT_S: Final = 10

#: Execution options of a connection that will write: on SQLite it takes the lock before it reads, so that a merge
#: cannot have read something stale. The servers lock the rows they read for that.
WRITES: Final = {"begin": "BEGIN IMMEDIATE"}

_log = get_logger(__name__)


async def open_engine(
    url: str, *, wait_s: float = WAIT_S, variable: str = "FN_DB_URL", clock: Clock | None = None
) -> AsyncEngine:
    """An engine for an address in one of Fn's forms, once the server answers; SQLite's file is made if need be.

    Args:
        url: The address.
        wait_s: How long to wait for a server that is not ready.
        variable: The setting that the address comes from; errors name it.
        clock: What waits.

    Raises:
        StartUpError: The address or the database is of no use; the database is left untouched.
        StoreUnavailable: It cannot be opened, or did not answer in time.
    """
    address = parse(url, variable)
    engine = await connect(address, wait_s=wait_s, clock=clock)
    try:
        await migrate(engine, address)
    except BaseException:
        await engine.dispose()
        raise
    _log.info("datastore dialed", datastore=address.shown)
    return engine


async def connect(address: Address, *, wait_s: float = WAIT_S, clock: Clock | None = None) -> AsyncEngine:
    """An engine whose database answers, whatever its schema.

    Raises:
        StartUpError: The server refuses us for good.
        StoreUnavailable: It cannot be opened, or did not answer in time.
    """
    if address.path is not None:
        await asyncio.to_thread(_make_folder, address)
    engine = _engine(address)
    try:
        await _until_it_answers(engine, address, wait_s, clock or SystemClock())
    except BaseException:
        await engine.dispose()
        raise
    return engine


async def migrate(engine: AsyncEngine, address: Address) -> None:
    """Bring a database to the present schema.

    Raises:
        StartUpError: It is not ours, or newer than this release; it is left untouched.
        StoreUnavailable: The migration failed; where the database can undo, nothing was changed.
    """
    try:
        async with engine.connect() as connection:
            version = await connection.run_sync(schema.look, address.shown)
        if address.path is not None:
            # kept in the file; it cannot be set inside of a transaction
            async with engine.execution_options(begin="").connect() as connection:
                await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        if not version.current:
            async with engine.execution_options(**WRITES).begin() as connection:
                await connection.run_sync(schema.up, address.shown)
        elif address.path is not None and not os.access(address.path, os.W_OK):
            raise StoreUnavailable(f"{address.shown}: cannot write to the database: {os.strerror(errno.EACCES)}")
    except failures() as exc:
        raise StoreUnavailable(f"{address.shown}: cannot migrate the database: {told(exc)}") from exc


def _engine(address: Address) -> AsyncEngine:
    options: dict[str, Any] = {"connect_args": address.connect_args, "hide_parameters": True}
    if address.path is not None:
        engine = create_async_engine(address.url, **options)
        sa.event.listen(engine.sync_engine, "connect", _configure)
        sa.event.listen(engine.sync_engine, "begin", _begin)
        return engine
    return create_async_engine(
        address.url,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_SIZE,
        pool_timeout=_POOL_TIMEOUT_S,
        pool_pre_ping=True,  # a connection that died with the server is replaced before anything is sent on it
        isolation_level="READ COMMITTED",
        **options,
    )


async def _until_it_answers(engine: AsyncEngine, address: Address, wait_s: float, clock: Clock) -> None:
    begun = told_at = clock.monotonic()
    while True:
        try:
            async with engine.connect() as connection:
                await connection.execute(sa.select(1))
        except failures() as exc:
            waited = clock.monotonic() - begun
            if is_hopeless(exc):
                raise StartUpError(f"{address.shown}: {told(exc)}") from exc
            if address.path is not None:
                raise StoreUnavailable(f"{address.shown}: cannot open the database: {told(exc)}") from exc
            if waited >= wait_s:
                raise StoreUnavailable(f"{address.shown}: couldn't ping db for {waited:.0f} s: {told(exc)}") from exc
            if clock.monotonic() - told_at >= _PROGRESS_S:
                told_at = clock.monotonic()
                _log.warning("waiting for the database", datastore=address.shown, waited_s=int(waited), error=told(exc))
        else:
            return
        await pause(clock, _RETRY_S)


def _make_folder(address: Address) -> None:
    assert address.path is not None
    try:
        address.path.parent.mkdir(parents=True, exist_ok=True)
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
