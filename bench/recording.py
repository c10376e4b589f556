"""What it costs to keep calls: lists over many rows.

``python -m bench.recording [ROWS]``; a million rows by default, ten million take a while and some gigabytes.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from hearth.datastore.base import CallFilter
from hearth.datastore.sql import SqlDatastore, open_datastore
from hearth.models.call import SUCCESS, Call
from hearth.models.ids import IdGenerator

BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
APPS, PATHS, BATCH, ROUNDS = 10, 10, 5000, 15


async def fill(store: SqlDatastore, rows: int) -> None:
    """Store so many calls, a hundred milliseconds apart, of some apps with some paths each."""
    now_ms = 0
    next_id = IdGenerator(1, lambda: now_ms)
    for first in range(0, rows, BATCH):
        calls = []
        for number in range(first, min(first + BATCH, rows)):
            moment = BEGIN + dt.timedelta(milliseconds=100 * number)
            now_ms = int(moment.timestamp() * 1000)
            calls.append(
                Call(
                    id=next_id(),
                    app_name=f"app{number % APPS}",
                    path=f"/{number // APPS % PATHS}",
                    status=SUCCESS,
                    created_at=moment,
                    started_at=moment,
                    completed_at=moment,
                )
            )
        await store.put_calls([(call, None) for call in calls])


async def median_ms(act: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds, the median of some rounds."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


async def lists(store: SqlDatastore, rows: int) -> None:
    """Print what pages of 100 calls cost."""
    end = BEGIN + dt.timedelta(milliseconds=100 * rows)
    middle = BEGIN + (end - BEGIN) / 2
    minutes = dt.timedelta(minutes=10)
    cursor = (await store.get_calls(CallFilter(app_name="app1", to_time=BEGIN + minutes, per_page=1)))[0].id
    filters = {
        "first page": CallFilter(app_name="app1", per_page=100),
        "page after an old cursor": CallFilter(app_name="app1", per_page=100, cursor=cursor),
        "path": CallFilter(app_name="app1", path="/3", per_page=100),
        "ten minutes in the middle": CallFilter(
            app_name="app1", per_page=100, from_time=middle, to_time=middle + minutes
        ),
        "the oldest ten minutes": CallFilter(app_name="app1", per_page=100, to_time=BEGIN + minutes),
        "the newest ten minutes": CallFilter(app_name="app1", per_page=100, from_time=end - minutes),
        "all but the newest half": CallFilter(app_name="app1", per_page=100, to_time=middle),
        "all but the oldest half": CallFilter(app_name="app1", per_page=100, from_time=middle),
    }
    for name, which in filters.items():
        print(f"| {rows} | {name} | {await median_ms(lambda which=which: store.get_calls(which)):.2f} |", flush=True)


async def per_record_us(store: SqlDatastore) -> float:
    """Microseconds that one record with a log of a line costs, in batches as a busy node has them."""
    next_id = IdGenerator(2, lambda: int(time.monotonic() * 1000))
    log = b"one line that a function wrote\n"

    async def batch() -> None:
        await store.put_calls(
            [(Call(id=next_id(), app_name="app", path="/a", status=SUCCESS), log) for _ in range(100)]
        )

    return await median_ms(batch) * 1000 / 100


async def main(rows: int) -> None:
    """Fill a file, read it."""
    with tempfile.TemporaryDirectory() as folder:
        store = await open_datastore(f"sqlite3://{Path(folder)}/fn.db")
        print(f"one record and its log: {await per_record_us(store):.0f} us, a hundred in a transaction")
        print("| rows | list | ms |\n|---|---|---|")
        for size in (rows // 100, rows):
            await fill(store, size)
            await lists(store, size)
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
