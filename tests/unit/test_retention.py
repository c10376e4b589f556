"""What is old enough is removed, in steps; what has not ended, or is young, stays."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from tests.support.clock import FakeClock
from tests.support.databases import transaction
from typer.testing import CliRunner

from hearth import settings
from hearth.aio.clock import SystemClock
from hearth.cli.data_lock import data_lock
from hearth.cli.main import app as cli
from hearth.models.app import App
from hearth.models.audit import AuditEvent
from hearth.models.call import ERROR, QUEUED, RUNNING, SUCCESS, Call
from hearth.models.errors import CallLogNotFound, StartUpError, StoreUnavailable
from hearth.models.fn import Fn
from hearth.models.function import ASYNC
from hearth.models.ids import first_of
from hearth.models.log_reader import LogReader, read_all
from hearth.models.patch import RoutePatch
from hearth.models.route import Route
from hearth.models.schedule import Definition, Firing, FiringState, schedule_of
from hearth.models.times import EPOCH
from hearth.models.timing import Timing
from hearth.nodes.retention import Builds
from hearth.queues.base import Queue
from hearth.queues.open import open_queue
from hearth.stores import retention
from hearth.stores.audit.base import AuditFilter
from hearth.stores.logs.base import Log, LogStore
from hearth.stores.logs.open import open_logstore
from hearth.stores.records.base import CallFilter, DeadLetterFilter
from hearth.stores.retention import Limits, Retention
from hearth.stores.schedules.base import Claim
from hearth.stores.sql import SqlDatastore, open_datastore

DAY = dt.timedelta(days=1)


@pytest.fixture
async def store(database: str) -> AsyncIterator[SqlDatastore]:
    opened = await open_datastore(database)
    yield opened
    await opened.close()


def made(age: dt.timedelta, now: dt.datetime, **fields: object) -> Call:
    at = now - age
    call_id = first_of((at - EPOCH) // dt.timedelta(milliseconds=1))
    return msgspec.structs.replace(Call(id=call_id, app_name="app", path="/a", status=SUCCESS, created_at=at), **fields)


async def kept(store: SqlDatastore) -> list[str]:
    return [call.id for call in await store.get_calls(CallFilter())]


async def sweep(store: SqlDatastore, clock: SystemClock, monkeypatch: pytest.MonkeyPatch, limits: Limits) -> object:
    monkeypatch.setattr(retention, "PAUSE_S", 0)
    monkeypatch.setattr(retention, "AT_ONCE", 7)
    return await Retention(store, clock, limits).sweep()


async def test_old_calls_go_with_their_logs(
    store: SqlDatastore, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SystemClock()
    now = clock.now()
    calls = [made(n * DAY, now) for n in range(30)]
    unended = [made(20 * DAY + DAY / 3, now, status=QUEUED), made(20 * DAY + DAY / 4, now, status=RUNNING)]
    strays = [made(1 * DAY, now, id="old stray", created_at=now - 20 * DAY), made(1 * DAY, now, id="01")]
    await store.put_calls([(call, b"log") for call in (*calls, *unended, *strays)])
    limits = Limits(calls_s=9.5 * 86400)
    assert (await Retention(store, clock, limits).look()).calls == 21
    await sweep(store, clock, monkeypatch, limits)
    assert sorted(await kept(store)) == sorted(call.id for call in (*calls[:10], *unended, strays[1]))
    assert await read_all(await store.get_log("app", calls[9].id)) == b"log"
    async with transaction(database) as connection:
        assert (await connection.exec_driver_sql("SELECT count(*) FROM logs")).scalar_one() == 13


async def test_old_dead_letters_go_and_their_records_stay(store: SqlDatastore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    now = clock.now()
    dead = {"type": ASYNC, "status": ERROR, "dead": True}
    calls = [made(n * DAY, now, completed_at=now - n * DAY, **dead) for n in range(20)]
    await store.put_calls([(call, None) for call in calls])
    await sweep(store, clock, monkeypatch, Limits(dead_letters_s=9.5 * 86400))
    left = await store.get_dead_letters(DeadLetterFilter(app_name="app", per_page=100))
    assert [one.call.id for one in left] == [call.id for call in calls[:10]]
    assert len(await kept(store)) == 20


async def test_firings_of_schedules_go_after_a_week(store: SqlDatastore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    now = clock.now()
    rule = Definition(function="/a", timing=Timing(every="1d"))
    await store.insert_app(App(name="app", id="A"))
    for age in (9, 8, 6):
        schedule = await store.put_schedule(
            "app", "s", lambda app_id, stored: schedule_of(rule, "app", app_id, "s", stored, "S", now)
        )
        due = now - age * DAY
        claimed = Firing(
            schedule_id="S", due=due, app_name="app", call_id="1", state=FiringState.SKIPPED, claimed_at=due
        )
        await store.claim_firings([Claim(schedule, (claimed,), schedule.next_at, due)])
    await sweep(store, clock, monkeypatch, Limits())
    assert await store.remove_firings(now, 9) == 1


@pytest.mark.parametrize("count", [1, 3, 4, 5, 19, 20, 100])
async def test_so_many_calls_are_kept(store: SqlDatastore, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("hearth.stores.records.sql.STEP", 4)
    clock = SystemClock()
    calls = [made(n * DAY, clock.now()) for n in range(20)]
    await store.put_calls([(call, None) for call in calls])
    await sweep(store, clock, monkeypatch, Limits(calls=count))
    assert await kept(store) == [call.id for call in calls[:count]]


async def test_logs_may_go_before_their_calls(store: SqlDatastore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    calls = [made(n * DAY, clock.now()) for n in range(20)]
    await store.put_calls([(call, b"log") for call in calls])
    await sweep(store, clock, monkeypatch, Limits(logs_s=4.5 * 86400))
    assert await kept(store) == [call.id for call in calls]
    logs = [await read_all(await store.get_log("app", call.id)) for call in calls]
    assert logs == [b"log"] * 5 + [b""] * 15


async def test_a_look_counts_the_logs_that_a_sweep_would_remove(
    store: SqlDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SystemClock()
    calls = [made(n * DAY, clock.now()) for n in range(20)]
    await store.put_calls([(call, b"log") for call in calls])
    for limits in (Limits(logs_s=4.5 * 86400), Limits(calls_s=9.5 * 86400, logs_s=4.5 * 86400)):
        seen = await Retention(store, clock, limits).look()
        assert seen == await sweep(store, clock, monkeypatch, limits)
        await store.put_calls([(call, b"log") for call in calls])


@pytest.mark.parametrize(("size", "logs"), [(1, 0), (299, 2), (300, 3), (550, 5), (2000, 20), (9999, 20)])
async def test_so_many_bytes_of_logs_are_kept(
    store: SqlDatastore, monkeypatch: pytest.MonkeyPatch, size: int, logs: int
) -> None:
    monkeypatch.setattr("hearth.sql.old_logs.STEP", 3)
    clock = SystemClock()
    calls = [made(n * DAY, clock.now()) for n in range(20)]
    await store.put_calls([(call, b"x" * 100) for call in calls])
    limits = Limits(logs_bytes=size)
    assert (await Retention(store, clock, limits).look()).logs == 20 - logs
    await sweep(store, clock, monkeypatch, limits)
    assert await kept(store) == [call.id for call in calls]
    texts = [await read_all(await store.get_log("app", call.id)) for call in calls]
    assert [bool(text) for text in texts] == [True] * logs + [False] * (20 - logs)


async def test_logs_in_a_store_of_their_own_go_with_their_calls_and_by_their_own_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAUSE_S", 0)
    clock = SystemClock()
    calls = [made(n * DAY, clock.now()) for n in range(20)]
    store = await open_datastore(f"sqlite3://{tmp_path}/fn.db")
    logs = await open_logstore(f"sqlite3://{tmp_path}/logs.db", wait_s=5)
    await store.put_calls([(call, None) for call in calls])
    await logs.put_logs([Log("app", call.id, b"log") for call in calls])

    async def present() -> int:
        count = 0
        for call in calls:
            with contextlib.suppress(CallLogNotFound):
                count += bool(await read_all(await logs.get_log("app", call.id)))
        return count

    for limits, left in ((Limits(calls_s=9.5 * 86400), 10), (Limits(logs_s=4.5 * 86400), 5), (Limits(logs_bytes=7), 2)):
        sweeper = Retention(store, clock, limits, logs=logs)
        seen = await sweeper.look()
        assert (seen.logs, await present() - left) == (seen.logs, seen.logs)
        await sweeper.sweep()
        assert await present() == left
    await logs.close()
    await store.close()


async def test_a_failed_sweep_of_logs_keeps_no_builds_from_being_removed(tmp_path: Path) -> None:
    class Broken(LogStore):
        async def close(self) -> None: ...
        async def put_logs(self, logs: object) -> None: ...
        async def get_log(self, app_name: str, call_id: str) -> LogReader:
            raise CallLogNotFound

        async def time_beyond(self, log_bytes: int) -> dt.datetime | None:
            raise StoreUnavailable("no list")

    store = await open_datastore(f"sqlite3://{tmp_path}/fn.db")
    clock, done = FakeClock(), asyncio.Event()

    async def also() -> None:
        done.set()

    async with Retention(store, clock, Limits(logs_bytes=1), logs=Broken(), also=also):
        while not clock.pending:
            await asyncio.sleep(0)
        clock.advance(300)
        await done.wait()
    await store.close()


async def test_the_file_returns_space_in_steps_once_much_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hearth.sql.sqlite.SPARE_PAGES", 100)
    monkeypatch.setattr("hearth.sql.write_ahead_log.LOOK_S", 0.01)
    monkeypatch.setattr("hearth.sql.write_ahead_log.WORTH_BYTES", 1)
    monkeypatch.setattr(retention, "PAUSE_S", 0)
    clock = SystemClock()
    store = await open_datastore(f"sqlite3://{tmp_path}/fn.db")
    calls = [made(n * DAY, clock.now()) for n in range(400)]
    for start in range(0, 400, 50):
        await store.put_calls([(call, os.urandom(20_000)) for call in calls[start : start + 50]])
    await sweep(store, clock, monkeypatch, Limits(calls_s=9.5 * 86400))
    await store.put_calls([(calls[0], b"new")])
    async with asyncio.timeout(60):
        while (tmp_path / "fn.db").stat().st_size >= 2 << 20:  # it shrinks once the log is copied
            await asyncio.sleep(0.01)
    assert await read_all(await store.get_log("app", calls[0].id)) == b"new"
    await store.close()


def test_a_file_that_keeps_its_space_is_rewritten_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN_DATA_DIR", str(tmp_path))
    path = tmp_path / "fn.db"
    with contextlib.closing(sqlite3.connect(path)) as old:  # as one of an earlier version
        old.executescript("PRAGMA auto_vacuum = NONE; CREATE TABLE apps (name VARCHAR(256) NOT NULL PRIMARY KEY)")
        old.executescript("DROP TABLE apps")

    async def fill() -> None:
        store = await open_datastore(f"sqlite3://{path}")
        now = dt.datetime.now(dt.UTC)
        await store.put_calls([(made(n * DAY, now), os.urandom(20_000)) for n in range(100)])
        await store.close()

    asyncio.run(fill())
    monkeypatch.setenv("FN_KEEP_CALLS", "1d")
    run = CliRunner()
    assert run.invoke(cli, ["prune"]).exit_code == 0
    assert path.stat().st_size > 1_900_000
    with data_lock(tmp_path):
        refused = run.invoke(cli, ["prune", "--vacuum"])
    assert refused.exit_code != 0
    done = run.invoke(cli, ["prune", "--vacuum"])
    assert (done.exit_code, path.stat().st_size < 400_000) == (0, True), done.output
    with contextlib.closing(sqlite3.connect(path)) as now:
        assert now.execute("PRAGMA auto_vacuum").fetchone()[0] == 2


def test_only_a_file_can_be_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("FN_DB_URL", "postgres://nobody@127.0.0.1:1/none")
    refused = CliRunner().invoke(cli, ["prune", "--vacuum"])
    assert (refused.exit_code != 0, "only SQLite" in str(refused.exception) + refused.output) == (True, True)


@pytest.mark.parametrize(
    ("text", "seconds"), [("", None), ("90s", 90), ("30m", 1800), ("1.5h", 5400), ("30d", 30 * 86400)]
)
def test_an_age_has_a_unit(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float | None) -> None:
    monkeypatch.setenv("FN_KEEP_CALLS", text)
    assert settings.load().keep_calls == seconds


@pytest.mark.parametrize("text", ["30", "0d", "-1d", "soon", "3w"])
def test_an_age_of_no_use_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FN_KEEP_CALLS", text)
    with pytest.raises(StartUpError, match=r"FN_KEEP_CALLS=.*90s, 30m, 12h or 30d"):
        settings.load()


def test_builds_stay_for_two_hours_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN_KEEP_BUNDLES", "119m")
    with pytest.raises(StartUpError, match=r"FN_KEEP_BUNDLES=.*at least 2h"):
        settings.load()


class World:
    """A data folder with builds, a datastore and a queue."""

    def __init__(self, folder: Path, store: SqlDatastore, queue: Queue, **limits: object) -> None:
        self.settings = settings.load(data_dir=folder, **limits)
        self.store, self.queue, self.clock = store, queue, SystemClock()
        self.builds = Builds(self.settings, store, queue, self.clock)

    def build(self, number: int, *, age: dt.timedelta = 30 * DAY, size: int = 10) -> tuple[str, Path]:
        """Make a build; return its reference and its folder."""
        digest = f"{number:064x}"
        folder = self.settings.bundles / "f" / f".sha256-{digest}"
        folder.mkdir(parents=True)
        (folder.parent / ".swapping").touch()
        (folder / "file").write_bytes(bytes(size))
        at = (self.clock.now() - age).timestamp()
        os.utime(folder, (at, at))
        return f"f:1@sha256:{digest}", folder


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Callable[..., World]]:
    store = await open_datastore(f"sqlite3://{tmp_path}/fn.db")
    queue = await open_queue("memory://", SystemClock())
    yield lambda **limits: World(tmp_path, store, queue, **limits)
    await queue.close()
    await store.close()


async def test_a_build_that_a_waiting_or_running_call_or_a_function_needs_stays(world: Callable[..., World]) -> None:
    here = world(keep_bundles=86400.0)
    (waiting, a), (running, b), (later, c), (routed, d), (of_fn, e), (_, dead) = [here.build(n) for n in range(6)]
    calls = [Call(id=str(n), app_name="a", path="/f", image=image) for n, image in enumerate((running, waiting, later))]
    calls[2].delay = 3600
    await here.queue.push(calls)
    [reserved] = await here.queue.reserve(1)
    assert reserved.call.image == running
    await here.store.insert_app(App(name="a", id="A"))
    await here.store.insert_route(Route(app_name="a", path="/f", image=routed))
    await here.store.insert_fn(Fn(id="F", name="f", app_id="A", image=of_fn))
    assert await here.builds.prune(dry_run=True) == [dead]
    assert await here.builds.prune() == [dead]
    await here.queue.acknowledge([reserved.lease])
    for folder in (a, b, c, d, e):
        os.utime(folder, (1, 1))
    assert await here.builds.prune() == [b]  # its call has ended
    assert [folder.exists() for folder in (a, b, c, d, e)] == [True, False, True, True, True]


async def test_each_sweep_notes_the_builds_that_are_needed(world: Callable[..., World]) -> None:
    here = world(keep_bundles=86400.0)
    needed, folder = here.build(1)
    await here.store.insert_app(App(name="a"))
    await here.store.insert_route(Route(app_name="a", path="/f", image=needed))
    await here.builds.prune(dry_run=True)
    assert here.clock.now().timestamp() - folder.stat().st_mtime > 86400
    await here.builds.prune()
    await here.store.remove_route("a", "/f")
    assert await here.builds.prune() == []
    assert folder.exists()


async def test_a_build_that_was_needed_a_moment_ago_stays(world: Callable[..., World]) -> None:
    here = world(keep_bundles=86400.0)
    (old, first), (new, _) = here.build(1), here.build(2)
    await here.store.insert_app(App(name="a"))
    await here.store.insert_route(Route(app_name="a", path="/f", image=old))
    await here.builds.sweep()  # the first look of a node
    await here.store.update_route("a", "/f", RoutePatch(image=new), here.clock.now(), lambda _: None)
    await here.builds.sweep()
    assert first.exists()  # calls may still run the route as it was
    os.utime(first, (1, 1))
    await here.builds.sweep()
    assert not first.exists()


async def test_the_first_look_of_a_node_removes_no_build(world: Callable[..., World]) -> None:
    here = world(keep_bundles=86400.0)
    _, dead = here.build(1)
    await here.builds.sweep()
    assert dead.exists()
    await here.builds.sweep()
    assert not dead.exists()


async def test_builds_that_nothing_needs_have_so_many_bytes_at_most(world: Callable[..., World]) -> None:
    here = world(keep_bundles_bytes=2500)
    folders = [here.build(n, age=(n + 1) * DAY, size=1000)[1] for n in range(5)]
    fresh = here.build(9, age=DAY / 24, size=9000)[1]  # too young, whatever its size
    routed, needed = here.build(10, age=90 * DAY, size=9000)
    await here.store.insert_app(App(name="a"))
    await here.store.insert_route(Route(app_name="a", path="/f", image=routed))
    assert set(await here.builds.prune()) == set(folders)
    assert (fresh.exists(), needed.exists()) == (True, True)
    folders = [here.build(n, age=(n + 1) * DAY, size=1000)[1] for n in range(20, 25)]
    os.utime(fresh, (1, 1))
    assert set(await here.builds.prune()) == {fresh, *folders[2:]}


async def test_no_build_goes_while_the_queue_cannot_say_what_it_needs(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(keep_bundles=86400.0)
    _, dead = here.build(1)
    await here.queue.push([Call(id="1", app_name="a", path="/" + "x" * 20_000, image="f:1")])
    with pytest.raises(StoreUnavailable, match="which builds"):
        await here.builds.prune()
    assert dead.exists()


def test_the_command_shows_what_it_would_remove_then_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("FN_KEEP_CALLS", "10d")
    monkeypatch.setenv("FN_KEEP_LOGS", "5d")
    monkeypatch.setenv("FN_KEEP_BUNDLES", "1d")
    build = tmp_path / "bundles" / "f" / (".sha256-" + "0" * 64)
    build.mkdir(parents=True)
    (build.parent / ".swapping").touch()
    os.utime(build, (1, 1))
    now = dt.datetime.now(dt.UTC)

    async def fill() -> None:
        store = await open_datastore(f"sqlite3://{tmp_path}/fn.db")
        await store.put_calls([(made(n * DAY, now), b"log") for n in range(20)])
        await store.close()

    asyncio.run(fill())
    run = CliRunner()
    with data_lock(tmp_path):  # a node runs
        beside = run.invoke(cli, ["prune", "--dry-run"])
    assert (beside.exit_code, "builds are left to the running node" in beside.output) == (0, True)
    shown = run.invoke(cli, ["prune", "--dry-run"])
    assert (
        shown.exit_code,
        "would remove 10 calls, 5 logs of other calls" in shown.output,
        str(build) in shown.output,
    ) == (0, True, True)
    assert build.exists()
    done = run.invoke(cli, ["prune"])
    assert (done.exit_code, "removed 10 calls, 5 logs of other calls" in done.output, str(build) in done.output) == (
        0,
        True,
        True,
    )
    assert not build.exists()
    again = run.invoke(cli, ["prune", "--dry-run"])
    assert "would remove 0 calls, 0 logs" in again.output


async def test_old_events_of_the_audit_log_are_removed(
    store: SqlDatastore, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SystemClock()
    now = clock.now()
    events = [
        AuditEvent(
            id=made(n * DAY, now).id,
            created_at=now - n * DAY,
            principal="admin",
            action="apps:write",
            resource="DELETE /v1/apps/a",
            status=200,
        )
        for n in range(1, 31)
    ]
    await store.add_events(events)
    await sweep(store, clock, monkeypatch, Limits())
    assert len(await store.get_events(AuditFilter())) == 30
    await sweep(store, clock, monkeypatch, Limits(audit_s=10.5 * 86400))
    assert [event.id for event in await store.get_events(AuditFilter())] == [event.id for event in events[:10]]
