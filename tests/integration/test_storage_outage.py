"""Databases that are late, gone, frozen, full: what a start and the recorder make of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from tests.support import servers
from tests.support.databases import folder, plain, url
from tests.support.servers import Server

from hearth.access.base import EndedCall
from hearth.access.local import LocalAccess
from hearth.agent.recorder import Recorder
from hearth.clock import SystemClock
from hearth.datastore.base import AppFilter, CallFilter
from hearth.datastore.sql import SqlDatastore, open_datastore
from hearth.models.app import App
from hearth.models.call import SUCCESS, Call
from hearth.models.errors import StartUpError, StoreRefused, StoreUnavailable
from hearth.queues.base import Queue
from hearth.queues.open import open_queue
from hearth.sql.query import Question, Row
from hearth.sql.writes import Changes, Decide

STARTERS = {"postgres": servers.postgres, "mysql": servers.mariadb}


@pytest.fixture(scope="module", params=list(STARTERS))
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, Server]]:
    """A server of this module's own, to be ill-treated."""
    with folder() as place, STARTERS[request.param](place, durable=True) as running:
        yield request.param, running


@pytest.fixture
async def queue() -> AsyncIterator[Queue]:
    opened = await open_queue("memory://", SystemClock())
    yield opened
    await opened.close()


def ended(number: int, log: bytes = b"log") -> EndedCall:
    return EndedCall(Call(id=f"{number:04}", app_name="app", path="/", status=SUCCESS), log)


async def stored(store: SqlDatastore) -> list[str]:
    return [call.id for call in await store.get_calls(CallFilter(app_name="app"))][::-1]


async def test_calls_go_on_while_the_server_is_away_and_nothing_is_lost(
    server: tuple[str, Server], queue: Queue
) -> None:
    dialect, running = server
    store = await open_datastore(url(dialect, running))
    access = LocalAccess(store, queue, SystemClock())
    records = Recorder(access)
    await store.insert_app(App(name="app"))
    assert await records.record(ended(0)) is True
    running.stop()
    answered = await asyncio.gather(*[records.record(ended(number)) for number in range(1, 50)])
    await asyncio.to_thread(running.start)
    last = records.add(ended(50))
    assert last is not None
    assert await last is True
    await records.close()
    assert not any(answered)
    assert await stored(store) == [f"{number:04}" for number in range(51)]
    assert await store.get_log("app", "0007") == b"log"
    assert records.dropped == 0
    await store.remove_app("app")
    await access.close()
    await store.close()


async def test_a_store_serves_again_after_the_server_has_restarted(server: tuple[str, Server]) -> None:
    dialect, running = server
    store = await open_datastore(url(dialect, running))
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
    await store.close()


async def test_changes_that_share_a_transaction_when_the_server_dies_are_all_refused_and_none_is_kept(
    server: tuple[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect, running = server
    store = await open_datastore(url(dialect, running))
    change = store._batches.change

    async def dies_in_between(questions: Sequence[Question], decide: Decide) -> None:
        def decide_and_die(answers: list[list[Row]]) -> Changes:
            changes = decide(answers)
            running.stop()
            return changes

        await change(questions, decide_and_die)

    with monkeypatch.context() as patched:
        patched.setattr(store._batches, "change", dies_in_between)
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
    assert (await stored(store), await store.get_log("app", "0001")) == (["0001"], log)
    await store.insert_app(App(name="app"))
    await store.remove_app("app")
    await store.close()


async def test_a_frozen_server_keeps_no_answer_longer_than_the_limit(server: tuple[str, Server], queue: Queue) -> None:
    dialect, running = server
    store = await open_datastore(url(dialect, running))
    await store.insert_app(App(name="app"))
    access = LocalAccess(store, queue, SystemClock())
    records = Recorder(access, limit_s=0.2)
    running.send(signal.SIGSTOP)
    try:
        assert await records.record(ended(1)) is False
    finally:
        running.send(signal.SIGCONT)
    await records.close()
    assert (await stored(store), records.dropped) == (["0001"], 0)
    await store.remove_app("app")
    await access.close()
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


async def test_a_full_disk_loses_records_counts_them_and_goes_on(tmp_path: Path, queue: Queue) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a file system of a few MiB")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], check=True)
    try:
        store = await open_datastore(f"sqlite3://{tmp_path}/fn.db")
        access = LocalAccess(store, queue, SystemClock())
        records = Recorder(access, retry_s=0)
        storing = [records.add(ended(number, b"x" * 200_000)) for number in range(20)]
        answers = [await one for one in storing if one is not None]
        later = [records.add(ended(20 + number, b"x" * 200_000)) for number in range(20)]
        answers += [await one for one in later if one is not None]
        assert await stored(store) == [f"{number:04}" for number, kept in enumerate(answers) if kept]
        assert records.dropped == answers.count(False) > 0
        small = records.add(ended(99, b""))
        assert small is not None
        assert (await small, await store.get_log("app", "0099")) == (True, b"")
        await records.close()
        await access.close()
        await store.close()
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
