"""What every log store keeps its word on."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from tests.support import servers
from tests.support.databases import DIALECTS, folder, made
from tests.support.scrape import Watch
from tests.support.servers import Server

from hearth.models.errors import CallLogNotFound, StartUpError, StoreUnavailable
from hearth.models.ids import encode, first_of
from hearth.models.log_reader import PIECE_BYTES, read_all
from hearth.sql import old_logs
from hearth.stores.logs import s3
from hearth.stores.logs.base import Log, LogsLost, LogStore
from hearth.stores.logs.open import open_logstore
from hearth.stores.logs.s3 import parse
from hearth.telemetry.node import Telemetry

MIB = 1024 * 1024


def s3_url(server: Server, bucket: str = "logs") -> str:
    return f"s3://key:se%2Fcr%2Bet@127.0.0.1:{server.port}/us-east-1/{bucket}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    with folder() as place, servers.s3(place) as server:
        yield server


@pytest.fixture(params=[*DIALECTS, "s3", *(["named s3"] if os.environ.get("MINIO_URL") else [])])
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LogStore]:
    if request.param == "named s3":  # its bucket has to be new, or empty
        opened = await open_logstore(os.environ["MINIO_URL"], wait_s=5)
        yield opened
        await opened.close()
        return
    if request.param == "sqlite":
        opened = await open_logstore(f"sqlite3://{tmp_path_factory.mktemp('logs')}/logs.db", wait_s=5)
        yield opened
        await opened.close()
        return
    server: Server = request.getfixturevalue(f"{request.param}_server")
    if request.param == "s3":
        opened = await open_logstore(s3_url(server), wait_s=5)
        yield opened
        await opened.close()
        return
    async with made(request.param, server) as url:
        opened = await open_logstore(url, wait_s=5)
        yield opened
        await opened.close()


@pytest.mark.parametrize(
    "text",
    [b"test", b"", "grüß dich\n".encode(), bytes(range(256)), b"x" * MIB + b"\n--- cut ---\n", b"\xff" * 5 * MIB],
    ids=["short", "empty", "utf-8", "every byte", "a MiB and its marker", "large"],
)
async def test_a_log_comes_back_byte_for_byte(store: LogStore, text: bytes) -> None:
    await store.put_logs([Log("app", "1", text), Log("app", "2", b"another")])
    assert await read_all(await store.get_log("app", "1")) == text
    assert await read_all(await store.get_log("app", "2")) == b"another"


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES, 2 * PIECE_BYTES + 1])
async def test_a_log_is_read_in_pieces_and_may_be_given_up(store: LogStore, size: int) -> None:
    text = bytes(range(251)) * (size // 251 + 1)
    await store.put_logs([Log("app", "long", text[:size])])
    pieces = [piece async for piece in await store.get_log("app", "long")]
    assert b"".join(pieces) == text[:size]
    assert max(map(len, pieces)) <= PIECE_BYTES
    reader = await store.get_log("app", "long")
    await anext(reader)
    await reader.aclose()
    assert await read_all(await store.get_log("app", "long")) == text[:size]


async def test_the_second_log_of_a_call_replaces_the_first(store: LogStore) -> None:
    await store.put_logs([Log("app", "twice", b"first")])
    await store.put_logs([Log("app", "twice", b"second")])
    assert await read_all(await store.get_log("app", "twice")) == b"second"


async def test_a_log_is_found_by_its_own_app_only(store: LogStore) -> None:
    await store.put_logs([Log("app", "mine", b"secret")])
    for app, call in (("other", "mine"), ("app", "nobody")):
        with pytest.raises(CallLogNotFound):
            await read_all(await store.get_log(app, call))


async def test_the_bytes_of_an_app_are_those_of_its_logs(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PAGE", 2)
    monkeypatch.setattr(old_logs, "STEP", 2)
    logs = [Log("measured", encode(n), b"\xff" * 1000) for n in range(5)]
    await store.put_logs([*logs, Log("measured too", encode(5), b"x" * 500)])
    assert await store.stored_bytes("measured", 10_000) == 5000
    assert 2000 <= await store.stored_bytes("measured", 1500) < 5000
    assert await store.stored_bytes("measured too", 10_000) == 500
    assert await store.stored_bytes("nobody", 10_000) == 0
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert sum([removed async for removed in store.remove_logs(soon)]) == 6
    assert await store.stored_bytes("measured", 10_000) == 0


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://k:s@host", "must provide bucket name and region in path of s3 api url"),
        ("s3://k:s@host/region", "must provide bucket name and region in path of s3 api url"),
        ("s3://k:s@host//bucket", "must provide non-empty region in path of s3 api url"),
        ("s3://k:s@host/region/", "must provide non-empty bucket name in path of s3 api url"),
        ("ftp://host/x", "db type not supported ftp"),
        ("nothing", "bad log store URL"),
    ],
)
async def test_an_address_of_no_use_is_told_from_the_start(url: str, text: str) -> None:
    with pytest.raises(StartUpError, match=text):
        await open_logstore(url, wait_s=0)


def test_an_address_is_read_as_fn_reads_it() -> None:
    place = parse("s3://a%2Fb:p%40ss@host:9000/eu-west-1/a/b?ssl=true")
    assert (place.endpoint, place.region, place.bucket) == ("https://host:9000", "eu-west-1", "a/b")
    assert (place.access_key, place.secret_key) == ("a/b", "p@ss")
    assert parse("s3://k:s@host/r/b?ssl=1").endpoint == "http://host"
    assert "p@ss" not in repr(place)


async def test_the_key_of_a_log_is_fns(s3_server: Server) -> None:
    store = await open_logstore(s3_url(s3_server), wait_s=5)
    await store.put_logs([Log("app?", "keyed", b"text")])
    await store.close()
    where = {"endpoint_url": f"http://127.0.0.1:{s3_server.port}", "region_name": "us-east-1"}
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "se/cr+et"}
    config = AioConfig(s3={"addressing_style": "path"})
    async with get_session().create_client("s3", config=config, **where, **keys) as client:
        found = await client.get_object(Bucket="logs", Key="YXBwPw/keyed")
        async with found["Body"] as body:
            assert await body.read() == b"text"


async def test_a_wrong_secret_stops_the_start_without_showing_it(s3_server: Server) -> None:
    with pytest.raises(StartUpError, match="creat") as refused:
        await open_logstore(s3_url(s3_server).replace("se%2Fcr%2Bet", "wr0ng"), wait_s=0)
    assert "wr0ng" not in str(refused.value)


async def test_an_outage_is_told_and_ends_with_the_outage() -> None:
    with folder() as place, servers.s3(place) as server:
        store = await open_logstore(s3_url(server), wait_s=0)
        await store.put_logs([Log("app", "1", b"before")])
        server.stop()
        with pytest.raises(LogsLost, match="failed to write log, ") as lost:
            await store.put_logs([Log("app", "2", b"x"), Log("app", "3", b"x")])
        assert lost.value.lost == 2
        with pytest.raises(StoreUnavailable, match="failed to read log, "):
            await read_all(await store.get_log("app", "1"))
        server.start()
        await store.put_logs([Log("app", "2", b"after")])
        assert [await read_all(await store.get_log("app", call)) for call in ("1", "2")] == [b"before", b"after"]
        await store.close()


async def test_a_start_waits_for_a_store_that_is_late() -> None:
    with folder() as place, servers.s3(place) as server:
        server.stop()
        opening = asyncio.ensure_future(open_logstore(s3_url(server), wait_s=60))
        done, _ = await asyncio.wait([opening], timeout=0.6)
        assert not done
        await asyncio.to_thread(server.start)
        await (await opening).close()


async def test_a_start_gives_up_with_what_the_network_said() -> None:
    address = f"s3://k:geheim@127.0.0.1:{servers.free_port()}/us-east-1/logs"
    with pytest.raises(StartUpError, match=r"unexpected error creating bucket logs: .*onnect") as gave_up:
        await open_logstore(address, wait_s=0)
    assert "geheim" not in str(gave_up.value)


async def test_a_bucket_that_cannot_be_is_not_waited_for(s3_server: Server) -> None:
    with pytest.raises(StartUpError, match="error creating bucket a b: "):
        await open_logstore(s3_url(s3_server, "a%20b").replace("%20", " "), wait_s=600)


async def test_a_store_that_hangs_is_waited_for_once_then_only_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "LIMIT_S", 0.3)
    monkeypatch.setattr(s3, "LIMIT_OF_FAILING_S", 0.1)
    logs = [Log("app", str(number), b"x") for number in range(50)]  # more than are uploaded at once
    with folder() as place, servers.s3(place) as server:
        store = await open_logstore(s3_url(server), wait_s=0)
        await store.put_logs(logs[:1])
        server.send(signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(LogsLost, match=r"failed to write log, .") as lost:
                await store.put_logs(logs)
            assert lost.value.lost == len(logs)
        server.send(signal.SIGCONT)
        monkeypatch.setattr(s3, "LIMIT_OF_FAILING_S", 10)
        await store.put_logs(logs)
        await store.close()


async def test_a_batch_without_logs_says_nothing_of_the_store(
    s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "LIMIT_OF_FAILING_S", 0)
    store = await open_logstore(s3_url(s3_server), wait_s=0)
    await store.put_logs([])
    await store.put_logs([Log("app", "1", b"x")])
    await store.close()


async def test_transfers_are_measured_in_bytes_and_time(s3_server: Server) -> None:
    telemetry = Telemetry()
    store = await open_logstore(s3_url(s3_server), wait_s=0, telemetry=telemetry)
    await store.put_logs([Log("app", "sized", b"x" * 5000)])
    await read_all(await store.get_log("app", "sized"))
    watch = Watch(telemetry.metrics)
    assert (watch("fn_s3_log_upload_size_sum"), watch("fn_s3_log_download_size_sum")) == (5000, 5000)
    for span in ("s3_insert_log", "s3_get_log"):
        assert watch(f"fn_span_{span}_duration_seconds_count") == 1, span
    assert b'fn_s3_log_upload_size_bucket{fn_appname="",fn_path="",le="17179869184"}' in b"".join(
        telemetry.metrics.exposition()
    )
    await store.close()


async def test_old_logs_are_counted_then_removed(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PAGE", 2)
    now = dt.datetime.now(dt.UTC)
    ids = [first_of(round((now - n * dt.timedelta(days=1)).timestamp() * 1000)) for n in range(5)]
    await store.put_logs([Log("app", name, b"text") for name in (*ids, "no id of a call")])

    async def count(before: dt.datetime, *, dry_run: bool) -> int:
        return sum([removed async for removed in store.remove_logs(before, dry_run=dry_run)])

    long_ago, soon = now - dt.timedelta(days=60), now + dt.timedelta(hours=1)
    assert [await count(long_ago, dry_run=True), await count(soon, dry_run=True)] == [0, 5]
    assert await count(long_ago, dry_run=False) == 0
    for name in ids:
        assert await read_all(await store.get_log("app", name)) == b"text"
    assert await count(soon, dry_run=False) == 5
    for name in ids:
        with pytest.raises(CallLogNotFound):
            await store.get_log("app", name)
    assert await read_all(await store.get_log("app", "no id of a call")) == b"text"
    assert await count(soon, dry_run=False) == 0


async def test_logs_within_a_size_are_told_by_a_time(store: LogStore) -> None:
    now = dt.datetime.now(dt.UTC)
    ids = [first_of(round((now - n * dt.timedelta(days=1)).timestamp() * 1000)) for n in range(5)]
    await store.put_logs([Log("app", name, b"x" * 1000) for name in ids])
    assert await store.time_beyond(6000) is None
    before = await store.time_beyond(0)
    assert before is not None
    assert [removed async for removed in store.remove_logs(before) if removed] == [5]
    assert await store.time_beyond(0) is None


async def test_a_bucket_that_may_not_be_listed_is_a_failure_of_the_store(
    s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_logstore(s3_url(s3_server), wait_s=5)
    monkeypatch.setattr(store, "bucket", "nobodys")
    with pytest.raises(StoreUnavailable, match="failed to list logs"):
        await store.time_beyond(0)
    await store.close()
