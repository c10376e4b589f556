"""Opens the database of a URL, brought to the present schema."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hearth.models.errors import StartUpError, StoreUnavailable

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
#: Seconds a writer waits for another process's transaction.
_BUSY_TIMEOUT_S: Final = 10


async def open_engine(url: str) -> AsyncEngine:
    """An engine for ``sqlite3:///absolute/path`` or ``sqlite3://relative/path``; the file is made if need be.

    Raises:
        StartUpError: The URL is of no use, or the database is not Hearth's; it is left untouched.
        StoreUnavailable: The file cannot be opened.
    """
    path = sqlite_path(url)
    await asyncio.to_thread(_prepare, path)
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": _BUSY_TIMEOUT_S})
    sa.event.listen(engine.sync_engine, "connect", _configure)
    sa.event.listen(engine.sync_engine, "begin", _begin)
    return engine


def sqlite_path(url: str) -> Path:
    """The file that a URL names.

    Raises:
        StartUpError: It names none.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in ("sqlite", "sqlite3") or not rest:
        raise StartUpError(f"FN_DB_URL={url}: use sqlite3:///absolute/path/to/fn.db")
    return Path(rest).absolute()


def _prepare(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_TIMEOUT_S})
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                _refuse_foreign(connection, path)
                _migrate(connection)
                connection.commit()
        finally:
            engine.dispose()
    except (OSError, sa.exc.DBAPIError) as exc:
        raise StoreUnavailable(f"{path}: cannot open the database: {exc}") from exc


def _refuse_foreign(connection: sa.Connection, path: Path) -> None:
    tables = set(sa.inspect(connection).get_table_names())
    if tables and "alembic_version" not in tables:
        raise StartUpError(f"{path}: this database was not made by Hearth; point FN_DB_URL to another file")
    revision = MigrationContext.configure(connection).get_current_revision()
    known = {file.name[:4] for file in (_MIGRATIONS / "versions").glob("[0-9]*.py")}
    if revision is not None and revision not in known:
        raise StartUpError(f"{path}: schema {revision} is newer than this Hearth; use the release that made it")


def _migrate(connection: sa.Connection) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS))
    command.upgrade(config, "head")


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin says, not where the driver guesses
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    # A writer takes the lock before it reads: a merge that has read something stale cannot happen.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")
