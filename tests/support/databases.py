"""Empty databases, one for each test, on whichever server a parameter names; only that server is started."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hearth.sql.address import parse
from hearth.sql.engine import WRITES, connect
from tests.support import memory_folders, servers
from tests.support.servers import Server

#: Every database that Hearth keeps its rows in.
DIALECTS = ("sqlite", "postgres", "mysql")
_numbers = itertools.count()


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
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The address of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite3://{tmp_path}/fn.db"
        return
    if request.param.startswith("named "):
        dialect = request.param.removeprefix("named ")
        async with made(dialect, named(dialect)) as url:
            yield url
        return
    server: Server = request.getfixturevalue(f"{request.param}_server")
    async with made(request.param, server) as url:
        yield url


@contextlib.asynccontextmanager
async def made(dialect: str, server: Server | str) -> AsyncIterator[str]:
    """An empty database on a server, dropped at the end."""
    name = f"fn{next(_numbers)}" if isinstance(server, Server) else f"hearth_{os.urandom(6).hex()}"
    await _order(url(dialect, server), f"CREATE DATABASE {name}")
    yield url(dialect, server, name)
    force = " WITH (FORCE)" if dialect == "postgres" else ""
    await _order(url(dialect, server), f"DROP DATABASE {name}{force}")


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
