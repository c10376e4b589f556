"""hearth migrate: show, upgrade or downgrade the schema of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, TypeVar

import sqlalchemy as sa
import typer

from hearth import settings
from hearth.cli.output import say
from hearth.models.errors import StoreUnavailable
from hearth.sql import schema
from hearth.sql.address import Address, parse
from hearth.sql.engine import WRITES, connect
from hearth.sql.engine import migrate as bring_up
from hearth.sql.errors import failures, reason
from hearth.sql.schema import shapes

T = TypeVar("T")

migrate = typer.Typer(no_args_is_help=True, help="Show, upgrade or downgrade the schema of the database (FN_DB_URL).")

Url = Annotated[str, typer.Option("--db-url", help="Database (default: FN_DB_URL).", show_default=False)]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for a server that is not ready.")]
FnVersion = Annotated[
    int, typer.Option("--fn-version", min=0, max=shapes.FN_VERSION, help="Version of Fn's schema to go back to.")
]


@migrate.command()
def status(db_url: Url = "", wait: Wait = 5.0) -> None:
    """Print the version of the schema. Exit status 0: up to date; 2: a start of Hearth would migrate it.

    Examples:
        hearth migrate status
        hearth migrate status --db-url postgres://fn:pw@db/fn --wait 30
    """
    version = asyncio.run(_run(db_url, wait, schema.look))
    say(f"{_address(db_url).shown}: {version}")
    if not version.current:
        say(f"hearth migrate up brings it to Hearth schema {schema.head()}")
        raise typer.Exit(2)
    say("up to date")


@migrate.command()
def up(db_url: Url = "", wait: Wait = 5.0) -> None:
    """Upgrade the database to the schema of this release, as a start does; a database of Fn keeps its rows.

    Examples:
        hearth migrate up
        hearth migrate up --db-url sqlite3:///var/lib/hearth/fn.db
    """

    async def run() -> None:
        engine = await connect(_address(db_url), wait_s=wait)
        try:
            await bring_up(engine, _address(db_url))
        finally:
            await engine.dispose()

    asyncio.run(run())
    say(f"{_address(db_url).shown}: Hearth schema {schema.head()}")


@migrate.command()
def down(db_url: Url = "", wait: Wait = 5.0, fn_version: FnVersion = shapes.FN_VERSION) -> None:
    """Turn the database into one that an Fn server opens. Stop every node first.

    Examples:
        hearth migrate down --db-url sqlite3:///var/lib/hearth/fn.db
    """

    def take_back(connection: sa.Connection, shown: str) -> None:
        schema.down(connection, shown, fn_version)

    asyncio.run(_run(db_url, wait, take_back))
    say(f"{_address(db_url).shown}: Fn schema {fn_version}")


def _address(db_url: str) -> Address:
    return parse(db_url or settings.load().database, "--db-url" if db_url else "FN_DB_URL")


async def _run(db_url: str, wait_s: float, act: Callable[[sa.Connection, str], T]) -> T:
    """Act in one transaction on the database as it is."""
    address = _address(db_url)
    engine = await connect(address, wait_s=wait_s)
    try:
        async with engine.execution_options(**WRITES).begin() as connection:
            return await connection.run_sync(act, address.shown)
    except failures() as exc:
        raise StoreUnavailable(f"{address.shown}: {reason(exc)}") from exc
    finally:
        await engine.dispose()
