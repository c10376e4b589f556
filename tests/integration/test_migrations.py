"""Databases of every older version, and of strangers: adopted with all their rows, or refused and left alone."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support import fn_databases
from tests.support.databases import plain
from typer.testing import CliRunner

from hearth.cli.main import app as cli
from hearth.models import errors
from hearth.models.log_reader import read_all
from hearth.models.route import Route
from hearth.models.times import ZERO
from hearth.sql import engine as engines
from hearth.sql import schema
from hearth.sql.address import parse
from hearth.sql.schema import migrate, shapes
from hearth.sql.schema.tables import metadata
from hearth.stores.definitions.base import RouteFilter
from hearth.stores.fns.base import FnFilter, TriggerFilter
from hearth.stores.records.base import CallFilter
from hearth.stores.sql import SqlDatastore, open_datastore

#: Opens a database in a process that is killed when it comes to a step.
KILLED_AT = """
import asyncio, importlib, os, signal, sys
module, _, name = sys.argv[1].rpartition(".")
setattr(importlib.import_module(f"hearth.sql.{module}"), name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
from hearth.sql.open import open_database
asyncio.run(open_database(sys.argv[2]))
"""


def comparable(index: Any) -> dict[str, Any]:
    """An index, with what it leaves out as a text."""
    return {**index, "dialect_options": {name: str(of) for name, of in index.get("dialect_options", {}).items()}}


def catalogue(connection: sa.Connection) -> dict[str, Any]:
    """All that the database says about its tables, asked for all of them at once."""
    found = sa.inspect(connection)
    keys, indexes, options = found.get_multi_pk_constraint(), found.get_multi_indexes(), found.get_multi_table_options()
    return {
        place[1]: {
            "columns": [{**column, "type": repr(column["type"])} for column in columns],
            "key": {**keys[place], "comment": None},
            "indexes": sorted(map(comparable, indexes[place]), key=lambda index: index["name"] or ""),
            "options": options[place],
        }
        for place, columns in found.get_multi_columns().items()
    }


async def contents(engine: AsyncEngine) -> dict[str, Any]:
    """Tables and rows."""
    async with engine.connect() as connection:
        tables = await connection.run_sync(catalogue)
        rows = {name: (await connection.execute(sa.text(f"SELECT * FROM {name}"))).all() for name in tables}
    return {"tables": tables, "rows": rows}


async def opened_catalogue(url: str) -> dict[str, Any]:
    """The catalogue of a database that Hearth has opened."""
    await (await open_datastore(url)).close()
    async with plain(url) as engine, engine.connect() as connection:
        return await connection.run_sync(catalogue)


async def empty(engine: AsyncEngine) -> None:
    """Drop all tables."""
    async with engine.begin() as connection:
        for name in await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()):
            await connection.exec_driver_sql(f"DROP TABLE {name}")


async def test_every_version_of_fns_becomes_the_schema_of_a_fresh_database(empty_database: str) -> None:
    async with plain(empty_database) as engine:
        await fn_databases.make(engine, 7)  # also sets the defaults of the database
        await empty(engine)
        fresh = await opened_catalogue(empty_database)
        for version in fn_databases.VERSIONS:
            await empty(engine)
            await fn_databases.make(engine, version)
            assert await opened_catalogue(empty_database) == fresh, version
        for version in fn_databases.VERSIONS:
            async with engine.execution_options(**engines.WRITES).begin() as connection:
                await connection.run_sync(schema.down, "it", version)
            assert await opened_catalogue(empty_database) == fresh, version


async def test_the_schema_is_that_of_the_tables_in_code(empty_database: str) -> None:
    await (await open_datastore(empty_database)).close()

    def difference(connection: sa.Connection) -> list[Any]:
        def ours(_object: Any, name: str | None, kind: str, *_: Any) -> bool:
            return kind != "table" or name != "schema_migrations"

        return compare_metadata(MigrationContext.configure(connection, opts={"include_object": ours}), metadata)

    async with plain(empty_database) as engine, engine.connect() as connection:
        assert await connection.run_sync(difference) == []


async def test_an_empty_database_becomes_what_the_migrations_make(empty_database: str) -> None:
    def migrated(connection: sa.Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(migrate.MIGRATIONS))
        command.upgrade(config, "head")

    async with plain(empty_database) as engine:
        await (await open_datastore(empty_database)).close()
        made = await contents(engine)
        await empty(engine)
        async with engine.execution_options(**engines.WRITES).begin() as connection:
            await connection.run_sync(migrated)
        assert await contents(engine) == made


async def test_a_database_that_was_made_by_half_is_completed_by_the_next_start(empty_database: str) -> None:
    async with plain(empty_database) as engine:
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_AT, "schema.shapes.note_fn_version", empty_database],
            capture_output=True,
            text=True,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        completed = await opened_catalogue(empty_database)
        await empty(engine)
        assert await opened_catalogue(empty_database) == completed


@pytest.mark.parametrize("version", [0, 3, 7])
async def test_a_database_made_by_fn_keeps_its_rows(empty_database: str, version: int) -> None:
    async with plain(empty_database) as engine:
        await fn_databases.make(engine, version, note=version > 0)
    store = await open_datastore(empty_database)
    try:
        await check_rows(store, version)
    finally:
        await store.close()


async def check_rows(store: SqlDatastore, version: int) -> None:
    """The rows of :mod:`fn_databases`, as a client sees them."""
    app = await store.get_app("app")
    assert (app.config, app.created_at, app.updated_at) == ({"A": "1"}, ZERO, ZERO)
    assert (await store.get_app("App")).config == {}
    routes = await store.get_routes("app", RouteFilter())
    assert [(r.path, r.memory, r.cpu_milli, r.type) for r in routes] == [
        ("/a", 128, 0, "sync"),
        ("/b", 256, 100 if version == 7 else 0, "async"),
    ]
    assert (routes[0].headers, routes[0].config, routes[1].config) == ({"X": ["1", "2"]}, {}, {"K": "v"})
    if version == 7:
        assert routes[1].created_at == dt.datetime(2018, 6, 1, 8, tzinfo=dt.UTC)
    old = await store.get_call("app", "01")
    assert old.created_at == dt.datetime(2018, 3, 1, 11, 30, 0, 250_000, tzinfo=dt.UTC)
    assert (old.status, old.error, old.stats) == ("success", "", [])
    assert await read_all(await store.get_log("app", "01")) == "grüß dich".encode()
    assert await read_all(await store.get_log("app", "02")) == b""
    # 12:30 at +01:00 is before 12:00 UTC, though not as a text
    bound = dt.datetime(2018, 3, 1, 11, 45, tzinfo=dt.UTC)
    assert [call.id for call in await store.get_calls(CallFilter(app_name="app", to_time=bound))] == ["01"]
    if version >= 3:
        new = await store.get_call("app", "03")
        assert (new.error, new.stats[0].metrics) == ("ya dun goofed", {"net_rx": 7})


async def test_fn_finds_its_own_schema_again_after_the_way_down(empty_database: str) -> None:
    async with plain(empty_database) as engine:
        await fn_databases.make(engine, 7)
    store = await open_datastore(empty_database)
    await store.put_calls([(await store.get_call("app", "01"), b"\xff\x00bytes")])
    await store.close()
    async with plain(empty_database) as engine:
        async with engine.execution_options(**engines.WRITES).begin() as connection:
            await connection.run_sync(schema.down, "it")
        async with engine.connect() as connection:
            note = (await connection.exec_driver_sql("SELECT version, dirty FROM schema_migrations")).one()
            assert (note.version, bool(note.dirty)) == (7, False)
            rows = (await connection.exec_driver_sql("SELECT * FROM calls ORDER BY id")).mappings().all()
            assert [row["error"] for row in rows] == ["", "", "ya dun goofed"]  # Fn cannot read NULL
            assert rows[0]["created_at"] == "2018-03-01T11:30:00.250Z"
            logs = (await connection.exec_driver_sql("SELECT log FROM logs ORDER BY id")).scalars().all()
            assert logs == ["\ufffdbytes", ""]
            assert "alembic_version" not in await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
    again = await open_datastore(empty_database)
    assert (await again.get_call("app", "03")).error == "ya dun goofed"
    await again.close()


async def test_fns_note_of_the_version_stays_for_fn(empty_database: str) -> None:
    await (await open_datastore(empty_database)).close()
    async with plain(empty_database) as engine, engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT version FROM schema_migrations")).scalar_one() == 7


@pytest.mark.parametrize(
    ("statements", "word"),
    [
        (["CREATE TABLE invoices (id int)"], "not made by"),
        (["CREATE TABLE apps (id int)", "CREATE TABLE users (id int)"], "not made by"),
        (["CREATE TABLE alembic_version (version_num varchar(32))", "INSERT INTO alembic_version VALUES ('9999')"], ""),
    ],
)
async def test_a_strange_database_is_refused_and_left_alone(
    empty_database: str, statements: list[str], word: str
) -> None:
    async with plain(empty_database) as engine:
        async with engine.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)
        before = await contents(engine)
        with pytest.raises(errors.StartUpError, match=word or "newer"):
            await open_datastore(empty_database)
        assert await contents(engine) == before


@pytest.mark.parametrize(
    ("version", "dirty", "word"), [(8, False, "newest Fn"), (27, False, "newer"), (4, True, "failed")]
)
async def test_a_newer_or_half_migrated_database_of_fns_is_refused(
    empty_database: str, version: int, dirty: bool, word: str
) -> None:
    async with plain(empty_database) as engine:
        await fn_databases.make(engine, 4, note=False)
        async with engine.begin() as connection:
            for statement in fn_databases.note_of(engine, version, dirty=dirty):
                await connection.exec_driver_sql(statement)
        before = await contents(engine)
        with pytest.raises(errors.StartUpError, match=word):
            await open_datastore(empty_database)
        assert await contents(engine) == before


async def test_a_refused_file_keeps_every_byte(tmp_path: Path) -> None:
    async with plain(f"sqlite3://{tmp_path}/x.db") as engine, engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE invoices (id int)")
    before = (tmp_path / "x.db").read_bytes()
    with pytest.raises(errors.StartUpError):
        await open_datastore(f"sqlite3://{tmp_path}/x.db")
    assert (tmp_path / "x.db").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.db"]


async def test_nodes_that_start_at_once_migrate_once(empty_database: str) -> None:
    async with plain(empty_database) as engine:
        await fn_databases.make(engine, 2)
    stores = await asyncio.gather(*[open_datastore(empty_database) for _ in range(4)])
    for store in stores:
        await check_rows(store, 2)
        await store.close()


@pytest.mark.parametrize(
    "step",
    [
        "schema.reshape._swap",
        "schema.shapes.add_index",
        "schema.shapes.note_fn_version",
        "time_index.note_all",
        "schema.shapes.drop_index",
    ],
)
async def test_a_migration_that_was_killed_is_done_by_the_next_start(empty_database: str, step: str) -> None:
    async with plain(empty_database) as engine:
        await fn_databases.make(engine, 3)
    killed = subprocess.run([sys.executable, "-c", KILLED_AT, step, empty_database], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = await open_datastore(empty_database)
    await check_rows(store, 3)
    await store.close()


async def test_a_database_of_hearths_first_release_goes_on(tmp_path: Path) -> None:
    url = f"sqlite3://{tmp_path}/fn.db"
    async with plain(url) as engine, engine.begin() as connection:
        for table in shapes.first().values():
            await connection.run_sync(table.create)
        for statement in (
            "CREATE INDEX calls_by_path ON calls (app_name, path, id)",
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc"
            " PRIMARY KEY (version_num))",
            "INSERT INTO alembic_version VALUES ('0001')",
            "INSERT INTO apps VALUES ('app', '{}', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')",
        ):
            await connection.exec_driver_sql(statement)
    migrated = await opened_catalogue(url)
    assert migrated == await opened_catalogue(f"sqlite3://{tmp_path}/fresh.db")
    store = await open_datastore(url)
    assert (await store.get_app("app")).config == {}
    await store.close()


def test_the_command_tells_raises_and_takes_back(tmp_path: Path) -> None:
    url = f"sqlite3://{tmp_path}/fn.db"
    run = CliRunner()

    def migrate(*arguments: str) -> tuple[int, str]:
        done = run.invoke(cli, ["migrate", *arguments, "--db-url", url])
        return done.exit_code, done.output

    code, text = migrate("status")
    assert (code, "empty" in text) == (2, True)
    assert migrate("up")[0] == 0
    code, text = migrate("status")
    assert (code, "up to date" in text) == (0, True)
    assert migrate("down", "--fn-version", "3")[0] == 0
    code, text = migrate("status")
    assert (code, "Fn schema 3" in text) == (2, True)
    assert migrate("up")[0] == 0


def test_the_address_that_is_shown_has_no_password() -> None:
    assert "geheim" not in repr(parse("postgres://fn:geheim@db/fn"))


async def test_a_database_of_todays_fn_is_adopted_with_all_its_rows(empty_database: str) -> None:
    async with plain(empty_database) as engine:
        fresh = await opened_catalogue(empty_database)
        await empty(engine)
        await fn_databases.make_newest(engine)
        assert await opened_catalogue(empty_database) == fresh
    store = await open_datastore(empty_database)
    try:
        app = await store.get_app_by_id("01A")
        assert (app.name, app.config, app.annotations) == ("app", {"A": "1"}, {"k": '[1,"x"]'})
        assert (app.syslog_url, app.shape, app.created_at.isoformat()) == (
            "tcp://logs:514",
            "GENERIC_ARM",
            "2020-01-01T00:00:00+00:00",
        )
        bare = await store.get_app("bare")
        assert (bare.id, bare.config, bare.annotations, bare.syslog_url, bare.created_at) == ("01B", {}, {}, "", ZERO)
        (fn,) = await store.get_fns(FnFilter(app_id="01A"))
        assert (fn.id, fn.image, fn.memory, fn.timeout, fn.idle_timeout) == ("01F", "img:1", 256, 60, 45)
        assert (fn.config, fn.shape) == ({"K": "v"}, "GENERIC_ARM")
        assert [one.id for one in await store.get_triggers(TriggerFilter(app_id="01A"))] == ["01T", "01U"]
        assert (await store.get_trigger_by_source("01A", "http", "/s")).annotations == {"x": "true"}
        await store.insert_route(Route(app_name="app", path="/r", image="x"))
    finally:
        await store.close()


async def test_a_killed_adoption_of_todays_fn_begins_again(empty_database: str) -> None:
    for step in ("schema.migrate._note_table", "schema.migrate.head"):
        async with plain(empty_database) as engine:
            await empty(engine)
            await fn_databases.make_newest(engine)
        killed = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", KILLED_AT, step, empty_database], check=False, capture_output=True
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        store = await open_datastore(empty_database)
        assert (await store.get_fn("01F")).app_id == "01A", step
        await store.close()


async def test_a_database_of_a_version_between_is_refused_with_the_way_out(empty_database: str) -> None:
    async with plain(empty_database) as engine:
        await fn_databases.make_newest(engine, 25)
        before = await contents(engine)
        with pytest.raises(errors.StartUpError, match="start the newest Fn server on this database once"):
            await open_datastore(empty_database)
        assert await contents(engine) == before
