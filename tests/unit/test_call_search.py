"""Lists of calls with filters for which no index exists: what is found, and where a search stops."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hearth.models.app import App
from hearth.models.call import ERROR, SUCCESS, Call
from hearth.models.ids import encode
from hearth.server.ui.calls import MAX_SCANNED, Wanted, list_calls
from hearth.stores.datastore import Datastore
from hearth.stores.records.base import CallFilter
from hearth.stores.sql import open_datastore

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
CALLS = MAX_SCANNED + 700


def call(number: int) -> Call:
    """The call with this number: each hundredth failed, and took a second."""
    failed = number % 100 == 0
    made = Call(id=encode((1 << 50) + number), app_name="shop" if number % 2 else "bank", path="/f", created_at=NOW)
    made.status, made.error = (ERROR, f"Boom {number}") if failed else (SUCCESS, "")
    made.started_at, made.completed_at = NOW, NOW + dt.timedelta(seconds=1 if failed else 0)
    return made


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Datastore]:
    datastore = await open_datastore(f"sqlite3://{tmp_path}/calls.db")
    for name in ("shop", "bank"):
        await datastore.insert_app(App(name=name))
    await datastore.put_calls([(call(number), None) for number in range(CALLS)])
    yield datastore
    await datastore.close()


def numbers(found: dict[str, Any]) -> list[int]:
    return [int(one["error"].removeprefix("Boom ")) for one in found["calls"]]


async def test_a_filter_without_an_index_reads_a_bounded_number_of_calls_and_goes_on_there(store: Datastore) -> None:
    found = await list_calls(store, Wanted(error="BOOM", per_page=100))
    assert numbers(found) == list(range(2600, 600, -100))
    assert (found["scanned"], found["is_cut"]) == (MAX_SCANNED, True)
    assert found["stopped_at"].startswith("2026-01-01")
    rest = await list_calls(store, Wanted(error="boom", per_page=100, cursor=found["next_cursor"]))
    assert numbers(rest) == [600, 500, 400, 300, 200, 100, 0]
    assert (rest["scanned"], rest["next_cursor"], rest["is_cut"], rest["stopped_at"]) == (700, "", False, "")


async def test_pages_join_without_a_gap_or_a_repetition(store: Datastore) -> None:
    seen: list[int] = []
    cursor, pages = "", 0
    while pages == 0 or cursor:
        found = await list_calls(store, Wanted(app="bank", status=ERROR, per_page=4, cursor=cursor))
        seen += numbers(found)
        cursor, pages = found["next_cursor"], pages + 1
    assert seen == list(range(2600, -1, -100))


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"min_ms": 1000}, 20),
        ({"min_ms": 1001}, 0),
        ({"error": "boom 26"}, 1),
        ({"app": "bank", "status": ERROR, "error": "boom 26"}, 1),
        ({"app": "shop", "error": "boom"}, 0),
        ({"apps": frozenset({"shop"}), "error": "boom"}, 0),
        ({"apps": frozenset({"bank", "other"}), "error": "boom"}, 20),
        ({"app": "bank", "path": "/f", "status": ERROR}, 27),
        ({"path": "/g"}, 0),
        ({"status": ERROR}, 20),
    ],
)
async def test_each_filter_finds_what_fits(store: Datastore, wanted: dict[str, Any], count: int) -> None:
    assert len((await list_calls(store, Wanted(per_page=100, **wanted)))["calls"]) == count


async def test_no_query_is_left_to_a_filter_without_an_index() -> None:
    asked: list[CallFilter] = []

    class Store:
        async def get_calls(self, which: CallFilter) -> list[Call]:
            asked.append(which)
            return []

    for wanted in (
        Wanted(status=ERROR, path="/f"),
        Wanted(app="a", path="/f", status=ERROR),
        Wanted(app="a", status=SUCCESS),
        Wanted(app="a", status=ERROR),
    ):
        await list_calls(Store(), wanted)  # type: ignore[arg-type]
    assert [(one.app_name, one.path, one.status) for one in asked] == [
        ("", "", ""),
        ("a", "/f", ""),
        ("a", "", ""),
        ("a", "", ERROR),
    ]
