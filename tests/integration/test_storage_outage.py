"""Databases that are late, gone, frozen, full: what a start and the recorder make of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support import servers
from tests.support.databases import folder, plain, url
from tests.support.servers import Server

from hearth.access.base import EndedCall
from hearth.access.local import LocalCallRecords
from hearth.agent.recorder import Recorder
from hearth.models.app import App
from hearth.models.call import SUCCESS, Call
from hearth.models.errors import StartUpError, StoreRefused, StoreUnavailable
from hearth.models.log_reader import read_all
from hearth.sql import server as sql_server
from hearth.sql.database import Steps, Write
from hearth.sql.open import open_database
from hearth.stores.definitions.base import AppFilter
from hearth.stores.records.base import CallFilter
from hearth.stores.sql import SqlDatastore, open_datastore
from hearth.telemetry.metrics import Metrics
from hearth.telemetry.node import Telemetry

STARTERS = {"postgres": servers.postgres, "mysql": servers.mariadb}


@pytest.fixture(scope="module", params=list(STARTERS))
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, Server]]:
    """A server of this module's own, to be ill-treated."""
    with folder() as place, STARTERS[request.param](place, durable=True) as running:
        yield request.param, running


def ended(number: int, log: bytes = b"log") -> EndedCall:
    return EndedCall(Call(id=f"{number:04}", app_name="app", path="/", status=SUCCESS), log)


async def stored(store: SqlDatastore) -> list[str]:
    return [call.id for call in await store.get_calls(CallFilter(app_name="app"))][::-1]


async def test_calls_go_on_while_the_server_is_away_and_nothing_is_lost(server: tuple[str, Server]) -> None:
    dialect, running = server
    store = await open_datastore(url(dialect, running))
    records = Recorder(LocalCallRecords(store), Metrics())
    await store.insert_app(App(name="app"))
    assert await records.record(ended(0)) is True
    running.stop()
    answered = await asyncio.gather(*[records.record(ended(number)) for number in range(1, 50)])
    await asyncio.to_thread(running.start)
    last = records.record(ended(50), is_awaited=False)
    assert await last is True
    await records.close()
    assert not any(answered)
    assert await stored(store) == [f"{number:04}" for number in range(51)]
    assert await read_all(await store.get_log("app", "0007")) == b"log"
    assert records.dropped == 0
    await store.remove_app("app")
    await store.close()


async def test_a_store_serves_again_after_the_server_has_restarted(
    server: tuple[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect, running = server
    monkeypatch.setattr(sql_server, "REST_S", 0.0)  # the server may be back within that time
    async with opened_store(url(dialect, running)) as store:
        await asyncio.gather(*[store.get_apps(AppFilter()) for _ in range(8)])  # several connections in the pool
        await asyncio.gather(*[store.put_calls([(ended(n).call, b"log")]) for n in range(4)])
        running.stop()
        with pytest.raises(StoreUnavailable):
            await store.get_apps(AppFilter())
        running.start()
        assert await store.put_calls([(ended(1).call, b"log")]) == [True]  # over connections that died with it
        await store.insert_app(App(name="app"))
        assert [app.name for app in await store.get_apps(AppFilter())] == ["app"]
        assert await stored(store) == ["0000", "0001", "0002", "0003"]
        await store.remove_app("app")


@contextlib.asynccontextmanager
async def opened_store(address: str) -> AsyncIterator[SqlDatastore]:
    store = await open_datastore(address)
    try:
        yield store
    finally:
        await store.close()


READ_ONLY = {"postgres": ("-c", "default_transaction_read_only=on"), "mysql": ("--read-only",)}


async def test_a_server_that_only_reads_is_not_ready_until_it_writes_again(server: tuple[str, Server]) -> None:
    dialect, running = server
    async with opened_store(url(dialect, running)) as store:
        await store.check()
        running.stop()
        await asyncio.to_thread(running.start, *READ_ONLY[dialect])
        await checked(store, lambda reason: "read-only" in reason or "read only" in reason)
        assert await store.get_apps(AppFilter()) == []
        running.stop()
        await asyncio.to_thread(running.start)
        await checked(store, lambda reason: not reason)


async def checked(store: SqlDatastore, wanted: Callable[[str], bool]) -> None:
    """Check until the reason is as wanted; the first check after a restart may meet a connection of before."""

    async def reason() -> str:
        try:
            await store.check()
        except (StoreRefused, StoreUnavailable) as exc:
            return str(exc)
        return ""

    async with asyncio.timeout(60):
        while not wanted(await reason()):
            await asyncio.sleep(0.01)


async def test_changes_that_share_a_transaction_when_the_server_dies_are_all_refused_and_none_is_kept(
    server: tuple[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect, running = server
    database = await open_database(url(dialect, running))
    store = SqlDatastore(database, Telemetry())
    transaction = database.transaction

    def dies_in_between(steps: Callable[[], Steps[Any]]) -> Coroutine[Any, Any, Any]:
        def until_it_writes() -> Steps[Any]:
            inner = steps()
            step = next(inner)
            while not isinstance(step, Write):
                step = inner.send((yield step))
            running.stop()
            yield step
            return (yield from inner)

        return transaction(until_it_writes)

    with monkeypatch.context() as patched:
        patched.setattr(database, "transaction", dies_in_between)
        made = [store.insert_app(App(name=name)) for name in ("a", "b", "c")]
        outcomes = await asyncio.gather(*made, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
    await asyncio.to_thread(running.start)
    assert await store.get_apps(AppFilter()) == []
    await asyncio.gather(*[store.insert_app(App(name=name)) for name in ("a", "b")])
    assert [app.name for app in await store.get_apps(AppFilter())] == ["a", "b"]
    await asyncio.gather(store.remove_app("a"), store.remove_app("b"))
    await store.close()


@pytest.mark.parametrize("server", ["mysql"], indirect=True)
async def test_a_servers_lax_mode_neither_cuts_nor_reads_otherwise(server: tuple[str, Server]) -> None:
    dialect, running = server
    async with plain(url(dialect, running)) as engine, engine.begin() as connection:
        await connection.exec_driver_sql("SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES'")
    store = await open_datastore(url(dialect, running))
    log = b"\\'), ('x', 'app', '"
    await store.put_calls([(ended(1).call, log)])
    with pytest.raises(StoreRefused):
        await store.put_calls([(msgspec.structs.replace(ended(2).call, path="/" + "x" * 256), None)])
    assert (await stored(store), await read_all(await store.get_log("app", "0001"))) == (["0001"], log)
    await store.insert_app(App(name="app"))
    await store.remove_app("app")
    await store.close()


async def test_a_frozen_server_keeps_no_answer_longer_than_the_limit(server: tuple[str, Server]) -> None:
    dialect, running = server
    store = await open_datastore(url(dialect, running))
    await store.insert_app(App(name="app"))
    records = Recorder(LocalCallRecords(store), Metrics(), limit_s=0.2)
    running.send(signal.SIGSTOP)
    try:
        assert await records.record(ended(1)) is False
    finally:
        running.send(signal.SIGCONT)
    await records.close()
    assert (await stored(store), records.dropped) == (["0001"], 0)
    await store.remove_app("app")
    await store.close()


async def test_a_start_waits_for_a_server_that_is_late(server: tuple[str, Server]) -> None:
    dialect, running = server
    running.stop()
    opening = asyncio.ensure_future(open_datastore(url(dialect, running), wait_s=60))
    done, _ = await asyncio.wait([opening], timeout=0.6)
    assert not done
    await asyncio.to_thread(running.start)
    await (await opening).close()


async def test_a_start_gives_up_with_the_drivers_own_words(server: tuple[str, Server]) -> None:
    dialect, running = server
    address = url(dialect, running).replace(str(running.port), str(servers.free_port()))
    with pytest.raises(StoreUnavailable, match=r"couldn't ping db .*onnect") as gave_up:
        await open_datastore(address, wait_s=0)
    assert "pass@" not in str(gave_up.value)


@pytest.mark.parametrize(("wrong", "right"), [("fn:pass@", "fn:wr0ng@"), ("/{name}", "/nowhere")])
async def test_a_start_that_is_refused_does_not_wait(server: tuple[str, Server], wrong: str, right: str) -> None:
    dialect, running = server
    name = {"postgres": "postgres", "mysql": "fn"}[dialect]
    address = url(dialect, running)
    wrong = wrong.format(name=name)
    head, found, tail = address.rpartition(wrong)
    assert found
    with pytest.raises(StartUpError) as refused:
        await open_datastore(head + right + tail, wait_s=600)
    assert "wr0ng" not in str(refused.value)


def test_a_start_that_waits_ends_at_a_signal(tmp_path: Path) -> None:
    address = f"postgres://fn:geheim@127.0.0.1:{servers.free_port()}/fn"
    environment = {**os.environ, "FN_DB_URL": address, "FN_DATA_DIR": str(tmp_path), "FN_PORT": "0"}
    hearth = Path(sys.executable).with_name("hearth")
    environment |= {"FN_DRIVER": "process", "FN_DB_WAIT_S": "600"}
    with subprocess.Popen([hearth, "start"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "waiting for the database" not in line:
            assert line, "it ended without a word"
            line = process.stderr.readline()
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        process.wait()
    assert time.monotonic() - begun < 300, "it did not wait for the database"
    assert "geheim" not in line + rest


async def test_a_full_disk_loses_records_counts_them_and_goes_on(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a file system of a few MiB")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], check=True)
    try:
        store = await open_datastore(f"sqlite3://{tmp_path}/fn.db")
        records = Recorder(LocalCallRecords(store), Metrics(), retry_s=0)
        storing = [records.record(ended(number, b"x" * 200_000), is_awaited=False) for number in range(20)]
        answers = [await one for one in storing]
        later = [records.record(ended(20 + number, b"x" * 200_000), is_awaited=False) for number in range(20)]
        answers += [await one for one in later]
        assert await stored(store) == [f"{number:04}" for number, kept in enumerate(answers) if kept]
        assert records.dropped == answers.count(False) > 0
        small = records.record(ended(99, b""), is_awaited=False)
        assert (await small, await read_all(await store.get_log("app", "0099"))) == (True, b"")
        await records.close()
        await store.close()
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
