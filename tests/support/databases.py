"""Databases for tests, on whichever server a parameter names; only that server is started."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hearth.sql.address import parse
from hearth.sql.database import Database, Steps, Write
from hearth.sql.engine import WRITES, connect
from hearth.sql.open import open_database
from hearth.sql.query import Query
from hearth.sql.schema.tables import metadata
from tests.support import memory_folders, servers
from tests.support.servers import Server

#: Every database that Hearth keeps its rows in.
DIALECTS = ("sqlite", "postgres", "mysql")
_numbers = itertools.count()
_DELETES = [Query(sa.delete(table)) for table in reversed(metadata.sorted_tables)]


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket, and open to the user that the servers run as."""
    with tempfile.TemporaryDirectory(prefix="hearth-", dir=memory_folders.root(), ignore_cleanup_errors=True) as name:
        yield Path(name)


#: Names a server of the tester's own, beside the one that the tests start: an address in Fn's form, whose user may
#: make databases.
NAMED = {"postgres": "POSTGRES_URL", "mysql": "MYSQL_URL"}


def named(dialect: str) -> str:
    """The address of the tester's own server; empty if there is none."""
    return os.environ.get(NAMED.get(dialect, ""), "")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """PostgreSQL for the whole run."""
    with folder() as place, servers.postgres(place) as server:
        yield server


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[Server]:
    """MariaDB for the whole run."""
    with folder() as place, servers.mariadb(place) as server:
        yield server


@pytest.fixture(params=[*DIALECTS, *[f"named {dialect}" for dialect in NAMED if named(dialect)]])
def database_place(request: pytest.FixtureRequest) -> str:
    """Where a database is: each dialect, and each server of the tester's own."""
    return str(request.param)


@pytest.fixture
async def empty_database(request: pytest.FixtureRequest, database_place: str, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a database without tables."""
    if database_place == "sqlite":
        yield f"sqlite3://{tmp_path}/fn.db"
        return
    dialect = database_place.removeprefix("named ")
    server = named(dialect) if dialect != database_place else request.getfixturevalue(f"{database_place}_server")
    async with made(dialect, server) as url:
        yield url


@pytest.fixture
async def database(request: pytest.FixtureRequest, database_place: str, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a database with the tables of this release, and no rows.

    Making one takes longer than most tests: on a server of this run, all tests of this worker have one in turn. They
    leave its tables as they are. SQLite's is a copy.
    """
    async with contextlib.AsyncExitStack() as stack:
        yield await prepared(request, stack, database_place, tmp_path, migrate)


Prepare = Callable[[str], Awaitable[None]]
_prepared: dict[tuple[str, Prepare], str] = {}


async def migrate(address: str) -> None:
    """Give an empty database the tables of this release."""
    await (await open_database(address)).close()


async def prepared(
    request: pytest.FixtureRequest, stack: contextlib.AsyncExitStack, place: str, folder: Path, prepare: Prepare
) -> str:
    """Return the address of a database without rows whose tables a function has made.

    Args:
        request: Of the test.
        stack: Removes what is for this test alone.
        place: Where the database is.
        folder: For SQLite's file.
        prepare: Makes the tables in an empty database that it is given the address of.
    """
    if place.startswith("named "):
        dialect = place.removeprefix("named ")
        address = await stack.enter_async_context(made(dialect, named(dialect)))
        await prepare(address)
    elif (address := _prepared.get((place, prepare), "")) == "":
        factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        if place == "sqlite":
            address = f"sqlite3://{factory.mktemp('prepared')}/fn.db"
        else:
            server: Server = request.getfixturevalue(f"{place}_server")
            address = await _make(place, server)  # it goes with its server
        await prepare(address)
        if place == "sqlite":
            async with transaction(address) as connection:
                for table in reversed(metadata.sorted_tables):
                    await connection.execute(sa.delete(table))
        _prepared[place, prepare] = address
    if place == "sqlite":
        shutil.copy(address.removeprefix("sqlite3://"), folder / "fn.db")
        return f"sqlite3://{folder}/fn.db"
    await _delete_rows(address)
    return address


async def _delete_rows(address: str) -> None:
    """Delete all rows on a server, over one connection of its driver: an engine costs more than most tests."""
    server = parse(address)
    opened: Database
    if server.dialect == "postgresql":
        from hearth.sql.postgres import PostgresDatabase

        opened = PostgresDatabase(server)
    else:
        from hearth.sql.mysql import MySQLDatabase

        opened = MySQLDatabase(server)
    try:
        await opened.transaction(_deletions)
    finally:
        await opened.close()


def _deletions() -> Steps[None]:
    for delete in _DELETES:
        yield Write(delete, [{}])


@contextlib.asynccontextmanager
async def made(dialect: str, server: Server | str) -> AsyncIterator[str]:
    """An empty database on a server, dropped at the end."""
    address = await _make(dialect, server)
    yield address
    name = address.rpartition("/")[2].partition("?")[0]
    force = " WITH (FORCE)" if dialect == "postgres" else ""
    await _order(url(dialect, server), f"DROP DATABASE {name}{force}")


async def _make(dialect: str, server: Server | str) -> str:
    name = f"fn{next(_numbers)}" if isinstance(server, Server) else f"hearth_{os.urandom(6).hex()}"
    await _order(url(dialect, server), f"CREATE DATABASE {name}")
    return url(dialect, server, name)


def url(dialect: str, server: Server | str, name: str = "") -> str:
    """The address of a database on a server, in Fn's form; without a name, that of the server's own."""
    if isinstance(server, str):
        place, mark, query = server.partition("?")
        return f"{place.rpartition('/')[0]}/{name}{mark}{query}" if name else server
    if dialect == "postgres":
        return f"postgres://fn:pass@127.0.0.1:{server.port}/{name or 'postgres'}?sslmode=disable"
    return f"mysql://fn:pass@tcp(127.0.0.1:{server.port})/{name or 'fn'}"


@contextlib.asynccontextmanager
async def plain(address: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a database as it is."""
    engine = await connect(parse(address))
    try:
        yield engine
    finally:
        await engine.dispose()


@contextlib.asynccontextmanager
async def transaction(address: str) -> AsyncIterator[AsyncConnection]:
    """A transaction past the stores, committed at the end."""
    async with plain(address) as engine, engine.execution_options(**WRITES).begin() as connection:
        yield connection


async def _order(address: str, statement: str) -> None:
    async with plain(address) as engine:
        bare = engine.execution_options(isolation_level="AUTOCOMMIT")
        async with bare.connect() as connection:
            await connection.execute(sa.text(statement))
