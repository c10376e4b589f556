"""Calls and logs in every datastore: swaps, races, sizes, and the indexes that lists come from."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy.dialects import sqlite
from tests.support import fn_databases
from tests.support.databases import migrate, plain, prepared, transaction

from hearth.models import errors, ids
from hearth.models.app import App
from hearth.models.call import CANCELLED, ERROR, QUEUED, RUNNING, STAT_NAMES, STATUSES, SUCCESS, Call, Stat
from hearth.models.call_result import CallResult
from hearth.models.function import ASYNC, SYNC
from hearth.models.log_reader import read_all
from hearth.models.retry import Attempt
from hearth.models.times import ZERO
from hearth.sql.schema import down
from hearth.stores.records import sql as records
from hearth.stores.records.base import CallFilter, DeadLetterFilter
from hearth.stores.records.lists import listing
from hearth.stores.sql import SqlDatastore, open_datastore

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
TICK = dt.timedelta(seconds=1)
CALL = Call(
    id="id",
    app_name="app",
    path="/a",
    status=ERROR,
    error="ya dun goofed",
    created_at=NOW,
    started_at=NOW,
    completed_at=NOW,
)
WITHOUT_ERROR = msgspec.structs.replace(CALL, status=SUCCESS, error="")


async def from_fn(address: str) -> None:
    """Make the tables of Fn, of this release, and of Fn again, and again of this release."""
    async with plain(address) as engine:
        await fn_databases.make(engine, 0)
    await migrate(address)
    async with transaction(address) as connection:
        await connection.run_sync(down, "it", 0)
    await migrate(address)


@pytest.fixture(params=[migrate, from_fn], ids=["fresh", "from Fn, down and up"])
async def database(request: pytest.FixtureRequest, database_place: str, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a database without rows, whatever its tables came from."""
    async with contextlib.AsyncExitStack() as stack:
        yield await prepared(request, stack, database_place, tmp_path, request.param)


@pytest.fixture
async def store(database: str) -> AsyncIterator[SqlDatastore]:
    """A store without rows."""
    opened = await open_datastore(database)
    yield opened
    await opened.close()


async def test_queued_calls_of_an_app_are_counted_up_to_a_limit(store: SqlDatastore) -> None:
    statuses = [QUEUED, QUEUED, QUEUED, RUNNING, SUCCESS]
    some = [msgspec.structs.replace(CALL, id=str(n), status=status) for n, status in enumerate(statuses)]
    await store.add_calls([*some, msgspec.structs.replace(CALL, id="9", app_name="other", status=QUEUED)])
    assert [await store.count_queued("app", most) for most in (2, 3, 10)] == [2, 3, 3]
    assert await store.count_queued("nobody", 10) == 0


async def test_queued_calls_of_a_function_are_counted(store: SqlDatastore) -> None:
    queued = [msgspec.structs.replace(CALL, id=f"{n}", path=f"/{n % 2}", status=QUEUED, error="") for n in range(5)]
    await store.add_calls(queued)
    assert [await store.count_queued("app", 10, path) for path in ("/0", "/1", "/2", "")] == [3, 2, 0, 5]
    assert await store.count_queued("app", 2, "/0") == 2


async def test_the_bytes_of_an_app_are_those_of_its_results_logs_and_dead_letters(
    store: SqlDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "SIZES_AT_ONCE", 2)
    result = CallResult(status=200, headers=(("X", "y"),), body=bytes(range(256)), expires_at=NOW)
    done = msgspec.structs.replace(WITHOUT_ERROR, type=ASYNC)
    await store.put_calls([(msgspec.structs.replace(done, id="0"), "ü".encode() * 50)])
    assert await store.stored_bytes("app", 10_000) == 100
    await store.put_calls([(msgspec.structs.replace(done, id="1", result=result), b"\xff" * 10)])
    with_result = await store.stored_bytes("app", 10_000)
    assert 100 + 10 + 256 < with_result < 600, "the body, and its head"
    await store.put_calls([(msgspec.structs.replace(done, id=str(n)), b"x" * 1000) for n in range(2, 7)])
    await store.put_calls([(msgspec.structs.replace(done, id="8", app_name="other"), b"x" * 3000)])
    assert await store.stored_bytes("app", 10_000) == with_result + 5000
    assert 2000 <= await store.stored_bytes("app", 1500) < with_result + 5000, "no further than asked for"
    assert await store.stored_bytes("nobody", 10_000) == 0
    large = [dead(f"dead {n}", app_name="dead", payload=b"x" * 1000) for n in range(5)]
    await store.put_calls([(one, None) for one in large])
    assert 5000 < await store.stored_bytes("dead", 100_000) < 10_000
    assert 2000 <= await store.stored_bytes("dead", 1500) < 5000, "no further than asked for"


async def test_a_swap_stores_the_new_call_only_over_the_expected_one(store: SqlDatastore) -> None:
    with pytest.raises(errors.CallNotFound):
        await store.update_call(CALL, WITHOUT_ERROR)
    await store.put_calls([(CALL, None)])
    await store.update_call(CALL, WITHOUT_ERROR)
    assert await store.get_call("app", "id") == WITHOUT_ERROR
    stale = msgspec.structs.replace(WITHOUT_ERROR, status=RUNNING)
    other_stats = msgspec.structs.replace(WITHOUT_ERROR, stats=[Stat(timestamp=NOW, metrics={"net_rx": 1})])
    for before in (stale, other_stats):
        with pytest.raises(errors.DatastoreCannotUpdateCall):
            await store.update_call(before, CALL)
    with pytest.raises(errors.DatastoreCannotSwap, match="refer to different app/ID"):
        await store.update_call(CALL, msgspec.structs.replace(CALL, id="another"))
    assert await store.get_call("app", "id") == WITHOUT_ERROR


async def test_of_many_swaps_from_one_call_one_wins(store: SqlDatastore) -> None:
    await store.put_calls([(CALL, None)])
    swaps = [store.update_call(CALL, msgspec.structs.replace(CALL, error=f"by {n}")) for n in range(10)]
    outcomes = await asyncio.gather(*swaps, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, errors.DatastoreCannotUpdateCall) for outcome in outcomes) == 9


async def test_of_many_starts_of_one_call_one_wins(store: SqlDatastore) -> None:
    running = msgspec.structs.replace(CALL, status=RUNNING, error="")
    stored = [msgspec.structs.replace(running, id=f"q{n}", status=QUEUED) for n in range(3)]
    await store.add_calls(stored)
    batch = [msgspec.structs.replace(running, id=name) for name in ("q2", "new", "q0", "q1")]
    found = await asyncio.gather(*[store.start_calls(batch if n % 2 else batch[::-1]) for n in range(8)])
    assert sorted(status for batch in found for status in batch) == [""] * 4 + [RUNNING] * 28


@pytest.mark.parametrize("kind", [SYNC, ASYNC])
async def test_a_call_that_is_stored_again_as_it_is_gets_the_longer_log(store: SqlDatastore, kind: str) -> None:
    ended = msgspec.structs.replace(CALL, type=kind)
    for log in (b"early\n", b"early\nlate\n"):
        assert await store.put_calls([(ended, log)]) == [True]
    assert await read_all(await store.get_log("app", "id")) == b"early\nlate\n"


@pytest.mark.parametrize("before", [None, QUEUED, RUNNING])
async def test_of_many_ends_of_one_accepted_call_the_first_stays_with_its_log(
    store: SqlDatastore, before: str | None
) -> None:
    accepted = msgspec.structs.replace(CALL, type=ASYNC)
    if before:
        await store.start_calls([msgspec.structs.replace(accepted, status=before, error="", completed_at=ZERO)])
    ends = [
        (msgspec.structs.replace(accepted, error=f"by {n}", completed_at=NOW + dt.timedelta(seconds=n)), b"log %d" % n)
        for n in range(8)
    ]
    sync = msgspec.structs.replace(CALL, id="a sync one")
    stored = await asyncio.gather(*[store.put_calls([end, (sync, None)]) for end in ends])
    assert [ours for _, ours in stored] == [True] * 8
    assert [ours for ours, _ in stored].count(True) == 1
    winner = [ours for ours, _ in stored].index(True)
    kept = (await store.get_call("app", "id"), await read_all(await store.get_log("app", "id")))
    assert kept == (msgspec.structs.replace(ends[winner][0], type=SYNC), ends[winner][1])
    assert await store.put_calls([ends[winner]]) == [True]  # sent again after a lost answer
    assert await store.start_calls([msgspec.structs.replace(accepted, status=RUNNING)]) == [ERROR]
    assert (await store.get_call("app", "id")).status == ERROR


def result(body: bytes = b"\xff\x00answer", **fields: Any) -> CallResult:
    """A result with fields of every kind."""
    given: dict[str, Any] = {
        "status": 201,
        "headers": (("X-Function", "ü"), ("X-Function", "")),
        "of_route": (("x-route", "r"),),
        "waited_s": 0.25,
        "expires_at": NOW + TICK,
        **fields,
    }
    return CallResult(body=body, **given)


async def test_a_result_is_stored_with_the_final_record_and_read_as_it_was(store: SqlDatastore) -> None:
    ended = msgspec.structs.replace(CALL, type=ASYNC, result=result(), result_digest="d" * 64)
    failed = msgspec.structs.replace(ended, id="failed", result=result(b"", error="a\0b\ud800", headers=()))
    large = msgspec.structs.replace(ended, id="large", result=result(bytes(1 << 20)))
    assert await store.put_calls([(ended, b"log"), (failed, None), (large, None)]) == [True] * 3
    assert await store.get_result("app", "id") == ended.result
    assert (await store.get_call("app", "id")).result_digest == "d" * 64
    told = await store.get_result("app", "failed")
    assert told is not None
    assert (told.error, told.body) == ("a\N{REPLACEMENT CHARACTER}b?", b"")
    assert await store.get_result("app", "large") == large.result
    assert [await store.get_result("other", "id"), await store.get_result("app", "none")] == [None, None]


async def test_of_many_ends_of_one_call_the_result_is_that_of_the_record_that_stays(store: SqlDatastore) -> None:
    running = msgspec.structs.replace(CALL, type=ASYNC, status=RUNNING, error="", completed_at=ZERO)
    await store.start_calls([running])
    ends = [
        msgspec.structs.replace(
            CALL, type=ASYNC, error=f"by {n}", completed_at=NOW + n * TICK, result=result(b"by %d" % n)
        )
        for n in range(8)
    ]
    await asyncio.gather(*[store.put_calls([(end, None)]) for end in ends])
    told = await store.get_result("app", "id")
    assert told is not None
    assert told.body.decode() == (await store.get_call("app", "id")).error


async def test_a_record_that_cannot_be_stored_leaves_no_result(store: SqlDatastore) -> None:
    refused = msgspec.structs.replace(CALL, type=ASYNC, path="/" + "x" * 300, result=result())
    try:
        await store.put_calls([(refused, None)])
    except errors.HearthError:
        assert await store.get_result("app", "id") is None
    else:
        assert await store.get_call("app", "id")  # SQLite limits no text


async def test_expired_results_are_removed_oldest_first_and_those_of_removed_calls_and_apps(
    store: SqlDatastore,
) -> None:
    await store.insert_app(App(name="app"))
    app = await store.get_app("app")
    calls = [
        msgspec.structs.replace(
            CALL, id=f"{n}", app_id=app.id, type=ASYNC, result=result(b"%d" % n, expires_at=NOW + n * TICK)
        )
        for n in range(5)
    ]
    await store.put_calls([(call, None) for call in calls])

    async def kept() -> list[int]:
        return [n for n in range(5) if await store.get_result("app", f"{n}") is not None]

    assert await store.remove_results(NOW, 10) == 0
    assert await store.remove_results(NOW + 4 * TICK, 1) == 1
    assert await kept() == [1, 2, 3, 4]
    assert await store.remove_results(NOW + 3 * TICK, 10) == 2
    assert await kept() == [3, 4]
    assert (await store.get_call("app", "0")).status == ERROR, "its record stays"
    await store.remove_app("app")
    assert await kept() == []


async def test_the_result_of_a_removed_call_goes_with_it(store: SqlDatastore) -> None:
    await store.put_calls([(msgspec.structs.replace(CALL, type=ASYNC, result=result()), None)])
    assert (await store.remove_calls(NOW + TICK, 10)).calls == 1
    assert await store.get_result("app", "id") is None


def at(attempt: int, status: str, **fields: Any) -> Call:
    """An async call in an attempt."""
    past = tuple(Attempt(attempt=n, node="n", status=ERROR, error="why") for n in range(1, attempt))
    return msgspec.structs.replace(CALL, type=ASYNC, attempt=attempt, attempts=past, status=status, error="", **fields)


async def test_the_next_attempt_of_a_call_replaces_the_last_one_only(store: SqlDatastore) -> None:
    assert await store.start_calls([at(1, RUNNING)]) == [""]
    await store.retry_calls([(at(2, QUEUED), b"log of the first")])
    stored = await store.get_call("app", "id")
    assert (stored.status, stored.attempt, stored.attempts) == (QUEUED, 2, at(2, QUEUED).attempts)
    assert await store.put_calls([(at(1, SUCCESS), None)]) == [False], "the end of an attempt that is over"
    assert await store.start_calls([at(1, RUNNING)]) == [QUEUED]
    assert await store.start_calls([at(2, RUNNING)]) == [""]
    await store.retry_calls([(at(2, QUEUED), None)])
    assert (await store.get_call("app", "id")).status == RUNNING, "repeated after a lost answer"
    assert await store.start_calls([at(2, RUNNING)]) == [RUNNING]
    assert await store.start_calls([at(3, RUNNING)]) == [""], "the record was away when the second attempt ended"
    assert await store.put_calls([(at(3, SUCCESS), None)]) == [True]
    await store.retry_calls([(at(4, QUEUED), None)])
    assert await store.start_calls([at(4, RUNNING)]) == [SUCCESS]
    assert (await store.get_call("app", "id")).attempt == 3


def cancelled(stored: Call) -> Call:
    return msgspec.structs.replace(
        stored, status=CANCELLED, completed_at=NOW + TICK, result=result(b"", error="cancelled")
    )


@pytest.mark.parametrize("status", [QUEUED, RUNNING])
async def test_a_call_that_has_not_ended_is_cancelled_for_good(store: SqlDatastore, status: str) -> None:
    given = msgspec.structs.replace(CALL, type=ASYNC, status=status, error="", completed_at=ZERO, attempt=1)
    await store.start_calls([given])
    ended = await store.cancel_call("app", "id", cancelled)
    assert (ended.status, (await store.get_call("app", "id")).status) == (CANCELLED, CANCELLED)
    assert (await store.get_result("app", "id")) == ended.result
    assert await store.cancelled(["id", "none"]) == {"id"}
    with pytest.raises(errors.CallEnded, match="cancelled"):
        await store.cancel_call("app", "id", cancelled)
    for call_id, app in (("id", "other"), ("none", "app")):
        with pytest.raises(errors.CallNotFound):
            await store.cancel_call(app, call_id, cancelled)
    again = msgspec.structs.replace(given, status=QUEUED, attempt=2)
    await store.retry_calls([(again, None)])
    assert await store.start_calls([msgspec.structs.replace(again, status=RUNNING)]) == [CANCELLED]
    success = msgspec.structs.replace(given, status=SUCCESS, completed_at=NOW + 2 * TICK)
    assert await store.put_calls([(success, b"of a success")]) == [False]
    where_it_ran = msgspec.structs.replace(success, status=CANCELLED, result=result(b"late"))
    assert await store.put_calls([(where_it_ran, b"what it wrote")]) == [True]
    assert await read_all(await store.get_log("app", "id")) == b"what it wrote"
    assert (await store.get_call("app", "id")).completed_at == NOW + TICK
    assert (await store.get_result("app", "id")) == ended.result


def dead(call_id: str, **fields: Any) -> Call:
    given = {"type": ASYNC, "dead": True, "payload": b"\xff\x00of %s" % call_id.encode(), "method": "POST", **fields}
    return msgspec.structs.replace(CALL, id=call_id, headers={"X": ["ü"]}, config={"SECRET": "x"}, **given)


async def test_a_dead_letter_is_stored_with_the_final_record_and_read_as_it_was(store: SqlDatastore) -> None:
    given = dead("1", error="a\0b", attempt=3, attempts=(Attempt(attempt=1, status=ERROR),))
    assert await store.put_calls([(given, b"log"), (msgspec.structs.replace(CALL, id="2", type=ASYNC), None)]) == [
        True,
        True,
    ]
    letter, payload = await store.get_dead_letter("app", "1")
    assert (payload, letter.payload_bytes, letter.redriven_as) == (given.payload, len(given.payload), "")
    assert (letter.call.headers, letter.call.method, letter.call.attempts) == (given.headers, "POST", given.attempts)
    assert (letter.call.config, letter.call.payload) == ({}, b"")
    assert [(await store.get_call("app", call_id)).dead for call_id in "12"] == [True, False]
    for app, call_id in (("app", "2"), ("other", "1")):
        with pytest.raises(errors.DeadLetterNotFound):
            await store.get_dead_letter(app, call_id)
    assert await store.put_calls([(given, b"log")]) == [True]  # sent again after a lost answer
    late = msgspec.structs.replace(given, error="another end", completed_at=NOW + TICK, payload=b"of another end")
    assert await store.put_calls([(late, None)]) == [False]
    assert (await store.get_dead_letter("app", "1"))[1] == given.payload


async def test_dead_letters_are_listed_newest_failure_first_page_by_page(store: SqlDatastore) -> None:
    at = {"0": 0, "3": 1, "2": 2, "5": 3, "4": 3, "1": 4}  # not in the order of the calls, two at one time
    letters = [dead(one, path="/b" if int(one) % 2 else "/a", completed_at=NOW + n * TICK) for one, n in at.items()]
    await store.put_calls([(one, None) for one in letters])

    async def listed(**which: Any) -> str:
        found = await store.get_dead_letters(DeadLetterFilter(**{"app_name": "app", "per_page": 10, **which}))
        cursors.update({one.call.id: one.cursor for one in found})
        return "".join(one.call.id for one in found)

    cursors: dict[str, str] = {}
    assert await listed() == "154230"
    assert [await listed(per_page=2), await listed(per_page=2, cursor=cursors["5"])] == ["15", "42"]
    assert [await listed(path="/b"), await listed(died_from=NOW + 3 * TICK)] == ["153", "154"]
    assert await listed(path="/b", died_from=NOW + 3 * TICK, cursor=cursors["1"]) == "5"
    assert await listed(app_name="other") == ""
    (counted,) = await store.count_dead_letters()
    assert (counted.app_name, counted.count, counted.oldest) == ("app", 6, NOW)
    assert [await store.remove_dead_letter("app", "5"), await store.remove_dead_letter("app", "5")] == [True, False]
    assert not await store.remove_dead_letter("other", "4")
    assert [await store.remove_dead_letters(NOW + 3 * TICK, most) for most in (2, 2, 2)] == [2, 1, 0]
    assert await listed() == "14"
    assert (await store.get_call("app", "0")).dead, "its record stays"


async def test_of_many_redrives_of_a_dead_letter_all_get_one_id(store: SqlDatastore) -> None:
    await store.put_calls([(dead("1"), None)])
    found = await asyncio.gather(*[store.claim_dead_letter("app", "1", f"new {n}") for n in range(4)])
    assert len(set(found)) == 1
    assert (await store.get_dead_letter("app", "1"))[0].redriven_as == found[0]
    with pytest.raises(errors.DeadLetterNotFound):
        await store.claim_dead_letter("other", "1", "new")


async def test_the_dead_letters_of_an_app_go_with_it(store: SqlDatastore) -> None:
    await store.insert_app(App(name="app", id="1", created_at=NOW, updated_at=NOW))
    await store.put_calls([(dead("1"), None)])
    await store.remove_app("app")
    assert await store.count_dead_letters() == []


async def test_of_cancels_and_ends_of_one_call_the_first_stays(store: SqlDatastore) -> None:
    await store.start_calls([msgspec.structs.replace(CALL, type=ASYNC, status=RUNNING, error="", completed_at=ZERO)])
    ends = [msgspec.structs.replace(CALL, type=ASYNC, completed_at=NOW + n * TICK) for n in range(4)]
    found = await asyncio.gather(
        *[store.put_calls([(end, None)]) for end in ends],
        *[store.cancel_call("app", "id", cancelled) for _ in range(4)],
        return_exceptions=True,
    )
    won = [one for one in found if one == [True] or isinstance(one, Call)]
    assert len(won) == 1
    assert (await store.get_call("app", "id")).status == (CANCELLED if isinstance(won[0], Call) else ERROR)


async def test_the_next_attempt_of_a_call_that_is_not_stored_is_stored(store: SqlDatastore) -> None:
    await store.retry_calls([(at(2, QUEUED), None)])
    assert await store.get_call("app", "id") == msgspec.structs.replace(at(2, QUEUED), type=SYNC)


async def test_the_trigger_of_a_call_is_kept(store: SqlDatastore) -> None:
    triggered = msgspec.structs.replace(CALL, path="fn", trigger_id="T")
    await store.put_calls([(triggered, None)])
    assert await store.get_call("app", "id") == triggered


async def test_what_is_accepted_late_replaces_nothing(store: SqlDatastore) -> None:
    await store.put_calls([(CALL, b"log")])
    await store.add_calls([msgspec.structs.replace(CALL, status=QUEUED)])
    assert await store.get_call("app", "id") == CALL


async def test_a_log_of_a_mebibyte_and_its_marker_comes_back(store: SqlDatastore) -> None:
    log = bytes(range(256)) * 4096 + b"\n-----max log size 1048576 bytes exceeded, truncating log-----\n"
    await store.put_calls([(CALL, log), (msgspec.structs.replace(CALL, id="empty"), b"")])
    assert await read_all(await store.get_log("app", "id")) == log
    assert await read_all(await store.get_log("app", "empty")) == b""


async def test_errors_and_stats_of_any_size_and_kind_come_back(store: SqlDatastore) -> None:
    metrics = dict.fromkeys(STAT_NAMES, 2**63 - 1)
    large = msgspec.structs.replace(CALL, error="ü" * 100_000, stats=[Stat(timestamp=NOW, metrics=metrics)] * 240)
    nul = msgspec.structs.replace(CALL, id="nul", error="a\0b\ud800")
    await store.put_calls([(large, None), (nul, None)])
    assert await store.get_call("app", "id") == large
    assert (await store.get_call("app", "nul")).error == "a\N{REPLACEMENT CHARACTER}b?"


async def test_many_calls_with_any_logs_come_back(store: SqlDatastore) -> None:
    log = b"%s \\' \" ; :name -- \0 \xff\n" * 200
    calls = [msgspec.structs.replace(CALL, id=f"{n:03}", path=f"/'%\\{n}\N{BUG}") for n in range(300)]
    assert await store.put_calls([(call, b"%d" % n + log) for n, call in enumerate(calls)]) == [True] * 300
    assert await store.get_calls(CallFilter(app_name="app")) == calls[::-1]
    assert [await read_all(await store.get_log("app", f"{n:03}")) for n in (0, 150, 299)] == [
        b"%d" % n + log for n in (0, 150, 299)
    ]


async def test_a_log_is_empty_once_its_call_has_ended_and_is_not_there_before(store: SqlDatastore) -> None:
    await store.start_calls([msgspec.structs.replace(CALL, type=ASYNC, status=RUNNING, error="", completed_at=ZERO)])
    with pytest.raises(errors.CallLogNotFound):
        await read_all(await store.get_log("app", "id"))
    await store.put_calls([(msgspec.structs.replace(CALL, type=ASYNC), b"")])
    assert await read_all(await store.get_log("app", "id")) == b""
    with pytest.raises(errors.CallLogNotFound):
        await read_all(await store.get_log("other", "id"))


async def test_texts_come_back_whatever_they_hold(store: SqlDatastore) -> None:
    for sign in ("'", '"', "\\", "','", '","', "{NULL}", "NULL", "", "%s", "$1", ":x", "\n", "); --"):
        texts = [sign, f"a{sign}", f"{sign}b", f"a{sign}b", f"{sign}{sign}", "plain"]
        calls = [msgspec.structs.replace(CALL, id=f"{n}", path=f"/{text}", error=text) for n, text in enumerate(texts)]
        await store.put_calls([(call, b"") for call in calls])
        assert await store.get_calls(CallFilter(app_name="app")) == calls[::-1]


async def test_a_batch_of_any_size_is_stored_as_a_whole_or_not_at_all(store: SqlDatastore) -> None:
    nowhere: Any = None
    kept: list[Call] = []
    for size in (1, 2, 3, 63, 64, 65, 129):
        calls = [msgspec.structs.replace(CALL, id=f"{size:03}.{n:03}") for n in range(size)]
        with pytest.raises(errors.StoreRefused):
            await store.put_calls(
                [(call, b"") for call in (*calls, msgspec.structs.replace(CALL, id="z", path=nowhere))]
            )
        assert await store.get_calls(CallFilter(app_name="app")) == kept[::-1]
        assert await store.put_calls([(call, b"") for call in calls]) == [True] * size
        kept += calls
        assert await store.get_calls(CallFilter(app_name="app")) == kept[::-1]


async def test_a_batch_is_stored_as_a_whole_or_not_at_all(store: SqlDatastore, database: str) -> None:
    nowhere: Any = None
    with pytest.raises(errors.StoreRefused):
        await store.put_calls([(CALL, b"log"), (msgspec.structs.replace(CALL, id="j", path=nowhere), b"log")])
    large = [(msgspec.structs.replace(CALL, id=f"{n}"), b"x" * 100_000) for n in range(5)]
    async with transaction(database) as connection:
        await connection.exec_driver_sql("ALTER TABLE logs RENAME TO away")
    with pytest.raises(errors.StoreUnavailable):
        await store.put_calls(large)
    assert await store.get_calls(CallFilter(app_name="app")) == []
    async with transaction(database) as connection:
        await connection.exec_driver_sql("ALTER TABLE away RENAME TO logs")
    assert await store.put_calls(large) == [True] * 5
    assert await read_all(await store.get_log("app", "4")) == b"x" * 100_000


async def test_names_differ_by_every_byte(store: SqlDatastore) -> None:
    for name in ("Test", "test", "Abcdefg"):
        await store.insert_app(App(name=name))
    with pytest.raises(errors.AppsNotFound):
        await store.get_app("TEST")
    await store.put_calls([(CALL, b"log")])
    with pytest.raises(errors.CallNotFound):
        await store.get_call("APP", "id")
    with pytest.raises(errors.CallLogNotFound):
        await read_all(await store.get_log("app", "ID"))


async def test_a_record_with_a_time_that_cannot_be_read_is_listed_without_it(
    store: SqlDatastore, database: str
) -> None:
    await store.put_calls([(CALL, None)])
    async with transaction(database) as connection:
        await connection.exec_driver_sql("UPDATE calls SET created_at = 'yesterday'")
    (found,) = await store.get_calls(CallFilter(app_name="app"))
    assert found == msgspec.structs.replace(CALL, created_at=ZERO)


def id_at(moment: dt.datetime, number: int = 0) -> str:
    """An id that was made at a time."""
    return ids.encode(int(moment.timestamp() * 1000) << 80 | number)


async def test_a_list_of_a_time_misses_no_call_whatever_its_id_says(store: SqlDatastore) -> None:
    second, hour = dt.timedelta(seconds=1), dt.timedelta(hours=1)
    times = {
        id_at(NOW, 1): NOW,
        id_at(NOW, 2): NOW + second,
        id_at(NOW + 2 * second): NOW + second,
        id_at(NOW + hour): NOW + second,  # the clock was set back
        id_at(NOW - hour): NOW + second,
        id_at(NOW, 3): NOW - hour,
        id_at(NOW + second, 9).lower(): NOW + second,
        "07": NOW + second,
        "zz": NOW + second,
        id_at(NOW + 3 * second): NOW + 2 * second,
    }
    calls = [msgspec.structs.replace(CALL, id=name, created_at=moment) for name, moment in times.items()]
    await store.put_calls([(call, None) for call in calls[:4]])
    await store.add_calls(calls[4:7])
    await store.start_calls(calls[7:9])
    await store.put_calls([(calls[9], None)])
    await store.add_calls([msgspec.structs.replace(call, created_at=NOW) for call in calls])  # changes nothing
    late = CallFilter(app_name="app", from_time=NOW, to_time=NOW + 2 * second)
    expected = sorted([name for name, moment in times.items() if moment == NOW + second], reverse=True)
    assert len(expected) == 7
    assert [call.id for call in await store.get_calls(late)] == expected
    for size in (1, 2, 3):
        pages: list[str] = []
        while page := await store.get_calls(
            dataclasses.replace(late, per_page=size, cursor=pages[-1] if pages else "", path="/a")
        ):
            pages += [call.id for call in page]
        assert pages == expected
    assert [call.id for call in await store.get_calls(CallFilter(from_time=NOW + second))] == [calls[9].id]
    assert await store.get_calls(CallFilter(app_name="other", to_time=NOW + hour)) == []


@pytest.mark.parametrize("status", STATUSES)
async def test_a_list_may_be_of_one_status(store: SqlDatastore, status: str) -> None:
    calls = [
        msgspec.structs.replace(CALL, id=id_at(NOW + n * TICK), created_at=NOW + n * TICK, status=STATUSES[n % 5])
        for n in range(20)
    ]
    astray = msgspec.structs.replace(CALL, id="astray", status=status)
    await store.put_calls([(call, None) for call in (*calls, astray)])
    of_status = [call for call in calls if call.status == status][::-1]
    which = CallFilter(app_name="app", path="/a", status=status)
    assert await store.get_calls(which) == [astray, *of_status]
    since = dataclasses.replace(which, from_time=NOW - TICK, per_page=3)
    assert await store.get_calls(since) == [astray, *of_status[:2]]


async def test_an_app_that_is_created_again_has_no_call_or_log_of_its_predecessor(store: SqlDatastore) -> None:
    first = await store.insert_app(App(name="app"))
    running = msgspec.structs.replace(CALL, id="running", app_id=first.id)
    accepted = msgspec.structs.replace(CALL, id="accepted", app_id=first.id, status=QUEUED, type=ASYNC)
    await store.put_calls([(msgspec.structs.replace(CALL, app_id=first.id), b"log")])
    await store.remove_app("app")
    second = await store.insert_app(App(name="app"))
    assert second.id != first.id
    await store.put_calls([(running, b"late log")])
    await store.add_calls([accepted])
    await store.start_calls([msgspec.structs.replace(accepted, status=RUNNING)])
    await store.put_calls([(msgspec.structs.replace(accepted, status=SUCCESS), b"")])
    mine = msgspec.structs.replace(CALL, id="mine", app_id=second.id)
    await store.put_calls([(mine, b"my log")])
    for which in (CallFilter(), CallFilter(app_name="app"), CallFilter(app_name="app", from_time=NOW - TICK)):
        assert await store.get_calls(which) == [mine]
    for name in ("id", "running", "accepted"):
        with pytest.raises(errors.CallNotFound):
            await store.get_call("app", name)
        with pytest.raises(errors.CallLogNotFound):
            await read_all(await store.get_log("app", name))
    assert (await store.get_call("app", "mine"), await read_all(await store.get_log("app", "mine"))) == (
        mine,
        b"my log",
    )


async def test_calls_without_the_id_of_an_app_belong_to_its_name(store: SqlDatastore) -> None:
    await store.insert_app(App(name="app"))
    await store.put_calls([(CALL, b"log")])
    assert await store.get_calls(CallFilter(app_name="app")) == [CALL]
    assert (await store.get_call("app", "id"), await read_all(await store.get_log("app", "id"))) == (CALL, b"log")


async def test_a_call_whose_time_is_changed_is_listed_at_its_new_one(store: SqlDatastore) -> None:
    hour = dt.timedelta(hours=1)
    call = msgspec.structs.replace(CALL, id=id_at(NOW))
    for moment in (NOW + hour, NOW, NOW - hour):
        moved = msgspec.structs.replace(call, created_at=moment)
        await store.put_calls([(moved, None)])
        around = CallFilter(app_name="app", from_time=moment - hour / 9, to_time=moment + hour / 9)
        assert await store.get_calls(around) == [moved]
    await store.update_call(moved, msgspec.structs.replace(call, created_at=NOW + hour))
    assert len(await store.get_calls(CallFilter(app_name="app", from_time=NOW))) == 1
    assert await store.get_calls(CallFilter(app_name="app", to_time=NOW)) == []


INDEXES: dict[str, tuple[CallFilter, str]] = {
    "first page": (CallFilter(app_name="app", per_page=5), "calls_by_app"),
    "next page": (CallFilter(app_name="app", per_page=5, cursor=id_at(NOW + 5000 * TICK)), "calls_by_app"),
    "path": (CallFilter(app_name="app", path="/1", per_page=5), "calls_by_path"),
    "path, next page": (
        CallFilter(app_name="app", path="/1", per_page=5, cursor=id_at(NOW + 5000 * TICK)),
        "calls_by_path",
    ),
    "old": (CallFilter(app_name="app", to_time=NOW + 9 * TICK, per_page=5), "calls_by_app"),
    "wide": (CallFilter(app_name="app", from_time=NOW + 9 * TICK, per_page=5), "calls_by_app"),
    "path, wide": (CallFilter(app_name="app", path="/1", from_time=NOW + 9 * TICK, per_page=5), "calls_by_path"),
    "status": (CallFilter(app_name="app", status=QUEUED, per_page=5), "calls_by_status"),
}


async def test_lists_come_from_an_index(empty_database: str) -> None:
    store = await open_datastore(empty_database)
    calls = [
        msgspec.structs.replace(
            CALL,
            id=id_at(NOW + n * TICK),
            app_name=f"app{n % 400 or ''}",
            path=f"/{n % 7}",
            created_at=NOW + n * TICK,
            status=QUEUED if n % 1000 == 0 else SUCCESS,
        )
        for n in range(6000)
    ]
    await store.put_calls([(call, None) for call in calls])
    await store.close()
    plans = {}
    async with plain(empty_database) as engine, engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            analyze = "ANALYZE TABLE calls" if engine.dialect.name == "mysql" else "ANALYZE calls"
            (await connection.exec_driver_sql(analyze)).close()
        explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
        for name, (which, _) in INDEXES.items():
            query, params = listing(which)
            compiled = query.compiled(engine.dialect)
            values = tuple(compiled.values(params))
            plans[name] = str((await connection.exec_driver_sql(f"{explain} {compiled.text}", values)).all())
    assert [name for name, plan in plans.items() if INDEXES[name][1] not in plan or "TEMP B-TREE" in plan] == [], plans


def test_a_cursor_and_a_time_are_one_bound() -> None:
    """SQLite walks from one bound to the other, if there are two."""
    which = CallFilter(app_name="app", cursor=id_at(NOW), from_time=NOW - TICK, to_time=NOW + TICK)
    assert listing(which).query.compiled(sqlite.dialect()).text.count("calls.id <") == 1
