"""Find out which version of the schema a database has, and migrate it up or down.

A database has two notes of its version. ``schema_migrations`` is Fn's, and stays at the version that an Fn server
expects; ``alembic_version`` is Hearth's. A database with Fn's tables but without the second note was created by Fn: its
rows are copied into Hearth's tables, and the way down copies them back. Today's Fn has other tables than that of the
first API; their rows are copied, too, but there is no way back to them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from hearth.models.errors import StartUpError, StoreUnavailable
from hearth.sql.schema import shapes, tables
from hearth.sql.schema.reshape import reshape
from hearth.telemetry.logs import get_logger

MIGRATIONS: Final = Path(__file__).parent / "migrations"
#: Tables that Fn does not have.
_ADDED: Final = (
    *("stray_calls", "tokens", "audit", "secrets", "fns", "triggers", "versions", "results"),
    *("dead_letters", "schedules", "firings"),
)
_OURS: Final = frozenset({"alembic_version", "schema_migrations", *_ADDED, *shapes.TABLES})
#: Names the lock that one migrating node holds; Fn's own has another name.
_LOCK_NAME: Final = "hearth schema"
_LOCK_NUMBER: Final = 0x48656172
_LOCK_WAIT_S: Final = 600

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """The version of a database.

    Attributes:
        hearth: Hearth's revision; ``""`` if Hearth has not migrated it.
        fn: Fn's version; ``None`` if there is no note of it.
        empty: Whether there is nothing at all.
    """

    hearth: str
    fn: int | None
    empty: bool

    @property
    def is_newest_fn(self) -> bool:
        """Return whether it was made by today's Fn."""
        return not self.hearth and self.fn == shapes.NEWEST_FN_VERSION

    @property
    def current(self) -> bool:
        """Return whether this release needs to change nothing."""
        return self.hearth == head()

    def __str__(self) -> str:
        if self.empty:
            return "empty"
        by_fn = f"Fn schema {self.fn or 0}"
        return f"Hearth schema {self.hearth}, {by_fn}" if self.hearth else f"{by_fn}, made by Fn"


def revisions() -> list[str]:
    """Return the revisions that this release knows, oldest first: the name of each migration begins with its own."""
    return sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def head() -> str:
    """Return the revision of this release."""
    return revisions()[-1]


def look(connection: sa.Connection, shown: str) -> Version:
    """Return the version of a database; nothing is changed.

    Args:
        connection: To the database.
        shown: Its address, for errors.

    Raises:
        StartUpError: The database is neither Hearth's nor Fn's, or newer than this release, or half migrated.
    """
    tables = set(sa.inspect(connection).get_table_names())
    revision = _revision(connection) if "alembic_version" in tables else ""
    if revision and revision not in revisions():
        raise StartUpError(f"{shown}: schema {revision} is newer than this Hearth; use the release that made it")
    if tables and not revision and not _is_fns(connection, tables):
        raise StartUpError(f"{shown}: this database was not made by Hearth or Fn; name another one")
    return Version(revision, _fn_version(connection, tables, shown), not tables)


def up(connection: sa.Connection, shown: str) -> None:
    """Migrate the database to this release's schema, in the transaction of the connection.

    Raises:
        StartUpError: As in :func:`look`.
        StoreUnavailable: Another node has been migrating for very long.
    """
    with _locked(connection, shown):
        version = look(connection, shown)
        if version.current:
            return
        _log.info("migrating the database", datastore=shown, found=str(version))
        _migrate(connection, version)
        _log.info("migrated the database", datastore=shown)


def down(connection: sa.Connection, shown: str, fn_version: int = shapes.FN_VERSION) -> None:
    """Turn Hearth's database into one of Fn's.

    Bytes of logs that are no UTF-8 are replaced. Tokens, the audit log and secrets are deleted.

    Raises:
        StartUpError: As in :func:`look`, or it is not Hearth's.
    """
    with _locked(connection, shown):
        if not look(connection, shown).hearth:
            raise StartUpError(f"{shown}: this database is not Hearth's; there is nothing to take back")
        reshape(connection, shapes.fn(fn_version))
        shapes.note_fn_version(connection, fn_version)
        for name in _ADDED:
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
        connection.exec_driver_sql("DROP TABLE alembic_version")


def _migrate(connection: sa.Connection, version: Version) -> None:
    if version.empty:
        _make(connection)
        return
    if version.is_newest_fn:
        _adopt_newest(connection)
        return
    from alembic import command  # a sixth of a start, and 10 MiB, where there is something to migrate
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    if not version.hearth:
        reshape(connection, shapes.first())
        shapes.add_index(connection, "calls", "calls_by_path", "app_name", "path", "id")
        command.stamp(config, "0001")
    command.upgrade(config, "head")


def _make(connection: sa.Connection) -> None:
    """Give an empty database what all migrations would; a test compares.

    The table of the revision comes first, and its row last: MySQL keeps what was done before an interruption, and the
    next start tells from that table that it is to go on.
    """
    noted = _note_table()
    noted.create(connection)
    tables.metadata.create_all(connection)
    shapes.note_fn_version(connection, shapes.FN_VERSION)
    connection.execute(sa.insert(noted).values(version_num=head()))


def _adopt_newest(connection: sa.Connection) -> None:
    """Copy the apps, fns and triggers of today's Fn into tables of this release, and add the others.

    An adoption that was interrupted begins again as long as Hearth's note is missing.
    """
    reshape(connection, {name: tables.metadata.tables[name] for name in shapes.NEWEST_FN_TABLES})
    for name in shapes.NEWEST_FN_TABLES:
        for index in tables.metadata.tables[name].indexes:
            index.create(connection)
    tables.metadata.create_all(connection)
    noted = _note_table()
    noted.create(connection, checkfirst=True)
    connection.execute(sa.delete(noted))
    connection.execute(sa.insert(noted).values(version_num=head()))
    shapes.note_fn_version(connection, shapes.FN_VERSION)


def _note_table() -> sa.Table:
    return sa.Table(
        "alembic_version",
        sa.MetaData(),
        sa.Column("version_num", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
    )


def _revision(connection: sa.Connection) -> str:
    return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() or "")


def _is_fns(connection: sa.Connection, tables: set[str]) -> bool:
    if tables.issuperset(shapes.NEWEST_FN_TABLES):
        return "id" in {column["name"] for column in sa.inspect(connection).get_columns("apps")}
    found = tables & set(shapes.TABLES)
    if len(found) < len(shapes.TABLES) and not (tables <= _OURS and tables & {"alembic_version", "schema_migrations"}):
        return False
    oldest = shapes.fn(0)
    inspector = sa.inspect(connection)
    return all(
        {column.name for column in oldest[name].columns} <= {column["name"] for column in inspector.get_columns(name)}
        for name in found
    )


def _fn_version(connection: sa.Connection, tables: set[str], shown: str) -> int | None:
    if "schema_migrations" not in tables:
        return None
    row = connection.exec_driver_sql("SELECT version, dirty FROM schema_migrations").first()
    if row is None:
        return None
    if row.dirty:
        raise StartUpError(f"{shown}: a migration of Fn's to schema {row.version} has failed; repair it with Fn first")
    if row.version > shapes.NEWEST_FN_VERSION:
        known = shapes.NEWEST_FN_VERSION
        raise StartUpError(f"{shown}: Fn schema {row.version} is newer than the {known} that Hearth knows")
    if shapes.FN_VERSION < row.version < shapes.NEWEST_FN_VERSION:
        raise StartUpError(
            f"{shown}: Hearth reads Fn's schemas up to {shapes.FN_VERSION}, and {shapes.NEWEST_FN_VERSION}, not "
            f"{row.version}: start the newest Fn server on this database once"
        )
    return int(row.version)


@contextlib.contextmanager
def _locked(connection: sa.Connection, shown: str) -> Iterator[None]:
    """Let one node migrate at a time. SQLite needs nothing: the transaction itself is the lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_NUMBER)))
    if connection.dialect.name != "mysql":
        yield
        return
    if connection.execute(sa.select(sa.func.get_lock(_LOCK_NAME, _LOCK_WAIT_S))).scalar() != 1:
        raise StoreUnavailable(f"{shown}: another node has been migrating the database for {_LOCK_WAIT_S} s")
    try:
        yield
    finally:
        connection.execute(sa.select(sa.func.release_lock(_LOCK_NAME)))
