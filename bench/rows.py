"""What a page of calls costs when there are very many: flat, whatever the filter, or not.

``python -m bench.rows [--rows 10000000] [--database sqlite]``; also ``postgres`` and ``mysql``, whose servers it starts
itself. Rows are loaded by the database's own quick way; ten million take some minutes and gigabytes.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import functools
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support import servers
from tests.support.databases import folder, plain, url

from hearth.models import ids
from hearth.models.times import format_time
from hearth.sql.engine import WRITES
from hearth.stores.records.base import CallFilter
from hearth.stores.sql import open_datastore

BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
STEP_MS, APPS, PATHS, PER_PAGE, ROUNDS, CHUNK = 100, 10, 10, 100, 15, 20_000
COLUMNS = ("created_at", "started_at", "completed_at", "status", "id", "app_name", "path", "stats", "error")


def made(first: int, last: int) -> Iterator[tuple[str, ...]]:
    """Rows of calls a hundred milliseconds apart, of some apps with some paths each."""
    begin_ms = int(BEGIN.timestamp() * 1000)
    for number in range(first, last):
        moment = format_time(BEGIN + dt.timedelta(milliseconds=STEP_MS * number))
        call_id = ids.encode((begin_ms + STEP_MS * number) << 80 | number)
        app, path = f"app{number % APPS}", f"/{number // APPS % PATHS}"
        yield (moment, moment, moment, "success", call_id, app, path, "", "")


async def load(address: str, first: int, last: int, place: Path) -> None:
    """Store rows past the datastore, in the database's own way."""
    async with plain(address) as engine:
        await _load(engine, first, last, place)


async def _load(engine: AsyncEngine, first: int, last: int, place: Path) -> None:
    dialect = engine.dialect.name
    rows = made(first, last)
    while chunk := list(itertools.islice(rows, CHUNK)):
        async with engine.execution_options(**WRITES).begin() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            if dialect == "postgresql":
                await raw.copy_records_to_table("calls", records=chunk, columns=COLUMNS)
            elif dialect == "mysql":
                (place / "rows").write_text("".join(["\t".join(row) + "\n" for row in chunk]))
                await connection.exec_driver_sql(
                    f"LOAD DATA INFILE '{place}/rows' INTO TABLE calls ({', '.join(COLUMNS)})"
                )
            else:
                marks = ", ".join("?" * len(COLUMNS))
                await raw.executemany(f"INSERT INTO calls ({', '.join(COLUMNS)}) VALUES ({marks})", chunk)
    async with engine.connect() as connection:
        if dialect != "sqlite":
            analyze = sa.text("ANALYZE calls" if dialect == "postgresql" else "ANALYZE TABLE calls")
            await connection.execute(analyze)
            await connection.commit()


async def median_ms(act: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds, the median of some rounds."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


def filters(rows: int) -> dict[str, CallFilter]:
    """The pages that are asked for."""
    end = BEGIN + dt.timedelta(milliseconds=STEP_MS * rows)
    middle, minutes = BEGIN + (end - BEGIN) / 2, dt.timedelta(minutes=10)
    old = ids.first_of(int((BEGIN + minutes).timestamp() * 1000))
    windows: dict[str, dict[str, Any]] = {
        "ten minutes in the middle": {"from_time": middle, "to_time": middle + minutes},
        "the oldest ten minutes": {"to_time": BEGIN + minutes},
        "the newest ten minutes": {"from_time": end - minutes},
        "all but the newest half": {"to_time": middle},
        "all but the oldest half": {"from_time": middle},
        "all": {"from_time": BEGIN - minutes, "to_time": end + minutes},
        "all, after an old cursor": {"from_time": BEGIN - minutes, "to_time": end + minutes, "cursor": old},
    }
    asked: dict[str, dict[str, Any]] = {"first page": {}, "after an old cursor": {"cursor": old}, **windows}
    both: dict[str, dict[str, Any]] = {"app": {}, "app and path": {"path": "/3"}}
    return {
        f"{kind}: {name}": CallFilter(app_name="app1", per_page=PER_PAGE, **more, **which)
        for kind, more in both.items()
        for name, which in asked.items()
    }


async def measure(address: str, sizes: list[int], place: Path) -> None:
    """Fill one database step by step; print what pages cost at each size."""
    store = await open_datastore(address)
    taken: dict[str, list[str]] = {name: [] for name in filters(1)}
    stored = 0
    for size in sizes:
        begun = time.perf_counter()
        await load(address, stored, size, place)
        stored = size
        print(f"{size} rows after {time.perf_counter() - begun:.0f} s more", flush=True)
        for name, which in filters(size).items():
            found = await store.get_calls(which)
            assert found, name
            taken[name].append(f"{await median_ms(functools.partial(store.get_calls, which)):.1f}")
    print(f"| {address.partition('://')[0]}, ms | {' | '.join(f'{size:,}' for size in sizes)} |")
    for name, medians in taken.items():
        print(f"| {name} | {' | '.join(medians)} |", flush=True)
    await store.close()


def main() -> None:
    """Measure one kind of database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--database", choices=["sqlite", "postgres", "mysql"], default="sqlite")
    chosen = parser.parse_args()
    sizes = [chosen.rows // 100, chosen.rows // 10, chosen.rows]
    with folder() as place:
        if chosen.database == "sqlite":
            asyncio.run(measure(f"sqlite3://{place}/fn.db", sizes, place))
            return
        place.chmod(0o755)
        start = servers.postgres if chosen.database == "postgres" else servers.mariadb
        with start(place) as server:
            asyncio.run(measure(url(chosen.database, server), sizes, place))


if __name__ == "__main__":
    main()
