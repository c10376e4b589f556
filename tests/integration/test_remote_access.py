"""A runner's view of an API node that answers as it should, or does not: over a real connection, scripted answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs
from tests.support.clock import FakeClock
from tests.support.scrape import Watch
from tests.support.spans import Sent, exporting_to, ids

from hearth.access.base import EndedCall, StoredWorld
from hearth.access.cache import CachedDefinitions
from hearth.access.remote.client import LIMIT_S, ApiClient, RemoteRefusal, parse_api_url
from hearth.access.remote.spool import Spool
from hearth.access.remote.world import RemoteAcceptedCalls, open_remote
from hearth.agent.recorder import Recorder
from hearth.aio.clock import SystemClock
from hearth.models.app import App
from hearth.models.call import SUCCESS, Call
from hearth.models.errors import (
    ApiError,
    ApiNodeAway,
    AppsNotFound,
    InternalError,
    RoutesNotFound,
    StartUpError,
    StoreRefused,
    StoreUnavailable,
)
from hearth.models.function import HTTP
from hearth.models.route import Route
from hearth.telemetry.node import Telemetry

CLOCK = SystemClock()
APP = {"app": {"name": "app", "config": {"A": "b"}}}
ROUTE = {
    "app_name": "app",
    "path": "/p",
    "image": "x",
    "memory": 64,
    "cpus": "200m",
    "headers": {"X": ["y"]},
    "type": "sync",
    "format": "http",
    "timeout": 3,
    "idle_timeout": 4,
}


class Script:
    """An API node that answers as told; ``requests`` has what it was asked, ``granted`` what it said yes to."""

    def __init__(self) -> None:
        self.granted: list[tuple[str, bytes]] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: Callable[[str], Awaitable[tuple[int, Any]] | tuple[int, Any] | None] = lambda _: (200, {})
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:-2])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append((method, path, headers, body))
                told = self.answer(path)
                if isinstance(told, Awaitable):
                    told = await told
                if told is None:
                    break
                status, value = told
                if status == 200:
                    self.granted.append((path, body))
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(data), data))
        writer.close()


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    told = Script()
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        await told.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    told.url = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield told
    server.close()
    for task in connections:
        task.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


@contextlib.asynccontextmanager
async def remote(
    script: Script,
    folder: Path,
    *,
    token: str = "",
    spool_bytes: int = 1 << 20,
    limit_s: float = LIMIT_S,
    telemetry: Telemetry | None = None,
) -> Any:
    base = parse_api_url(script.url)
    async with open_remote(
        base,
        CLOCK,
        token=token,
        connect_s=1,
        spool=folder / "spool",
        spool_bytes=spool_bytes,
        telemetry=telemetry or Telemetry(),
        limit_s=limit_s,
    ) as access:
        yield access


@pytest.fixture
async def access(script: Script, tmp_path: Path) -> AsyncIterator[StoredWorld]:
    async with remote(script, tmp_path) as opened:
        yield opened
        script.answer = done


def spool_of(access: StoredWorld) -> Spool:
    assert isinstance(access.accepted, RemoteAcceptedCalls)
    return access.accepted._outbox._spool


def done(path: str) -> tuple[int, Any]:
    """All is well."""
    return 200, {"msg": "ok", "held": [True], "found": [""]}


def refuse(status: int, message: str) -> tuple[int, Any]:
    return status, {"error": {"message": message}}


def ended(call_id: str, log: bytes = b"") -> EndedCall:
    return EndedCall(Call(id=call_id, app_name="app", path="/p", status=SUCCESS), log)


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("host", "http://host/v1/"),
        ("host:8080", "http://host:8080/v1/"),
        ("https://host/some/path", "https://host/v1/"),
        ("http://[::1]:80", "http://[::1]:80/v1/"),
    ],
)
def test_an_address_of_an_api_node(text: str, base: str) -> None:
    assert parse_api_url(text) == base


@pytest.mark.parametrize("text", ["", "http://", "http:///path", ":80", "ftp://host", "host:port"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(StartUpError, match="^" + re.escape(f"FN_RUNNER_API_URL={text}: ")):
        parse_api_url(text)


@pytest.mark.parametrize("scheme", ["", "http://", "ftp://"])
@pytest.mark.parametrize(
    "rest", ["u:s3cret@", "s3cret@", "u:s3cret@:80", "u:s3/cret@:80", "u:s3@cret@", "u:s3cret@h:port"]
)
def test_what_is_no_address_is_shown_without_its_credentials(scheme: str, rest: str) -> None:
    with pytest.raises(StartUpError) as raised:
        parse_api_url(scheme + rest)
    told = str(raised.value)
    assert told.startswith(f"FN_RUNNER_API_URL={scheme}***@")
    assert "s3" not in told
    assert "cret" not in told


async def test_the_trace_of_a_call_goes_on_at_the_api_node(script: Script, tmp_path: Path) -> None:
    sent = Sent()
    script.answer = lambda _: (200, APP)
    client = [(b"x-b3-traceid", b"463ac35c9f6413ad48485a3953bb6124"), (b"x-b3-spanid", b"a2fb4a1d1a96d312")]
    telemetry = exporting_to(sent)
    async with remote(script, tmp_path, telemetry=telemetry) as access:
        with telemetry.tracing.serving("/r/app/p", client):
            await access.definitions.get_app("app")
        await access.definitions.get_app("app")
    headers = script.requests[-2][2]
    asking = next(span for span in sent.spans if span.name == "hybrid_client_http_do")
    assert headers["x-b3-traceid"] == "463ac35c9f6413ad48485a3953bb6124"
    assert int(headers["x-b3-spanid"], 16) == ids(asking)[1]
    assert script.requests[-1][2]["x-b3-traceid"] != headers["x-b3-traceid"], "the request is over"


async def test_where_nothing_is_exported_the_api_node_is_told_of_no_trace(access: StoredWorld, script: Script) -> None:
    script.answer = lambda _: (200, APP)
    await access.definitions.get_app("app")
    assert "x-b3-traceid" not in script.requests[-1][2]


async def test_an_app_and_a_route(access: StoredWorld, script: Script) -> None:
    script.answer = lambda path: (200, {"route": ROUTE} if "routes" in path else APP)
    app, route = await access.definitions.get_app("app"), await access.definitions.get_route("app", "/p")
    assert (app.name, app.config) == ("app", {"A": "b"})
    fields: dict[str, Any] = {
        "image": "x",
        "memory": 64,
        "cpu_milli": 200,
        "headers": {"X": ["y"]},
        "timeout": 3,
        "idle_timeout": 4,
    }
    assert route == Route(app_name="app", path="/p", format=HTTP, type="sync", **fields)


@pytest.mark.parametrize(
    ("path", "encoded"),
    [("/", "%2F"), ("/a/b", "a/b"), ("/a b", "a%20b"), ("/ä%2F?#", "%C3%A4%252F%3F%23"), ("/a;b+c", "a%3Bb%2Bc")],
)
async def test_paths_arrive_whole(access: StoredWorld, script: Script, path: str, encoded: str) -> None:
    script.answer = lambda _: (200, {"route": {**ROUTE, "path": path}})
    assert (await access.definitions.get_route("app", path)).path == path
    assert script.requests[0][1] == f"/v1/apps/app/routes/{encoded}"


async def test_no_app_has_the_name_of_a_folder(access: StoredWorld) -> None:
    with pytest.raises(AppsNotFound):
        await access.definitions.get_app("..")


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (refuse(404, "App not found"), AppsNotFound, 404),
        (refuse(404, "Route not found"), RoutesNotFound, 404),
        (refuse(403, "no"), RemoteRefusal, 403),
        ((404, b"<html>nothing here"), RemoteRefusal, 404),
        ((302, b""), ApiNodeAway, 503),
        ((304, b""), ApiNodeAway, 503),
    ],
)
async def test_a_refusal_keeps_its_status_and_words_and_is_not_asked_for_again(
    access: StoredWorld, script: Script, answer: Any, kind: type[ApiError], code: int
) -> None:
    script.answer = lambda _: answer
    with pytest.raises(ApiError) as raised:
        await access.definitions.get_app("app")
    assert (type(raised.value), raised.value.code) == (kind, code)
    if kind is RemoteRefusal:
        assert raised.value.message in str(answer[1])
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        (500, b""),
        refuse(503, "later"),
        (200, b"<html>"),
        (200, {}),
        (200, {"app": None}),
        (200, {"app": {"name": "other"}}),
        None,
    ],
)
async def test_five_tries_then_503(access: StoredWorld, script: Script, answer: Any) -> None:
    script.answer = lambda _: answer
    with pytest.raises(ApiNodeAway) as raised:
        await access.definitions.get_app("app")
    assert (raised.value.code, raised.value.message) == (503, "API node not available")
    # A connection that was kept and broke is tried anew by the client itself: the tries are told by their numbers.
    assert [headers.get("hearth-attempt", "1") for _, _, headers, _ in script.requests][-1] == "5"


@pytest.mark.parametrize("ask", ["get_app", "get_route", "enqueue"])
async def test_an_api_node_that_accepts_and_stays_silent_costs_one_limit_for_all_tries(
    script: Script, tmp_path: Path, ask: str
) -> None:
    silence = asyncio.Event()

    async def hang() -> tuple[int, Any]:
        await silence.wait()
        return done("")

    script.answer = lambda _: hang()
    async with remote(script, tmp_path, limit_s=0.2) as access:
        asked: dict[str, Awaitable[object]] = {
            "get_app": access.definitions.get_app("app"),
            "get_route": access.definitions.get_route("app", "/p"),
            "enqueue": access.accepted.enqueue(Call(id="1", app_name="app", path="/p")),
        }
        for name, other in asked.items():
            if name != ask:
                other.close()  # type: ignore[attr-defined]
        with pytest.raises(ApiNodeAway):
            await asked[ask]
    assert len(script.requests) == 1, "another try would have had a limit of its own"
    silence.set()


def test_a_client_waits_ten_seconds_for_the_api_node_at_most() -> None:
    assert LIMIT_S == 10


async def test_no_call_is_cancelled_through_an_older_api_node(access: StoredWorld, script: Script) -> None:
    script.answer = lambda path: refuse(404, f"Path not found: {path}")
    assert await access.records.cancelled(["1"]) == set()


async def test_an_older_api_node_gets_the_request_that_it_knows_once(access: StoredWorld, script: Script) -> None:
    def older(path: str) -> tuple[int, Any] | None:
        method, _, _, body = script.requests[-1]
        if method == "POST":
            return refuse(404, "Path not found: /v1/runner/async")
        return None if b'"lost"' in body else (200, {"msg": "enqueued call"})

    script.answer = older
    await access.accepted.enqueue(Call(id="1", app_name="app", path="/p"))
    await access.accepted.enqueue(Call(id="2", app_name="app", path="/p"))
    with pytest.raises(ApiNodeAway):
        await access.accepted.enqueue(Call(id="lost", app_name="app", path="/p"))
    sent = [(method, json.loads(body)["id"]) for method, _, _, body in script.requests]
    assert sent == [("POST", "1"), ("PUT", "1"), ("PUT", "2"), ("PUT", "lost")]


async def test_calls_of_an_api_node_without_leases_are_left_to_its_own_runners(
    access: StoredWorld, script: Script
) -> None:
    script.answer = lambda _: (200, {"calls": [{"id": "1", "app_name": "app", "path": "/p"}]})
    with capture_logs() as logs:
        polling = asyncio.ensure_future(access.accepted.dequeue(5))
        while not logs:
            await asyncio.sleep(0.01)
    polling.cancel()
    assert "gives no leases" in logs[0]["error"]
    assert len(script.requests) == 1


async def test_a_try_that_works_ends_the_tries(access: StoredWorld, script: Script) -> None:
    answers = iter([(500, b""), (500, b""), (200, APP)])
    script.answer = lambda _: next(answers)
    assert (await access.definitions.get_app("app")).name == "app"


async def test_an_outage_is_told_when_it_begins_and_when_it_ends(access: StoredWorld, script: Script) -> None:
    script.answer = lambda _: (500, {})
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(ApiNodeAway):
                await access.definitions.get_app("app")
        script.answer = lambda _: (404, {"error": {"message": "App not found"}})
        for _ in range(2):
            with pytest.raises(AppsNotFound):
                await access.definitions.get_app("app")
    told = [line["event"] for line in logs if line["log_level"] != "debug"]
    assert told == 4 * ["error from API server, retrying"] + ["error from API server", "API server answers again"]


async def test_pauses_between_tries_double_and_differ_each_time(script: Script) -> None:
    pauses: list[float] = []

    class Hasty(SystemClock):
        def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
            pauses.append(when - self.monotonic())
            return super().call_at(self.monotonic(), callback, *args)

    script.answer = lambda _: (500, b"")
    async with ApiClient(parse_api_url(script.url), Hasty(), Telemetry().tracing) as node:
        for _ in range(2):
            with pytest.raises(ApiNodeAway):
                await node.ask("GET", "apps/app", lambda data: data)
    first, second = pauses[:4], pauses[4:]
    for number, pause_s in enumerate(first):
        assert 0.9 * 0.025 * 2**number <= pause_s <= 2 * 0.025 * 2**number
    assert [round(a, 5) for a in first] != [round(b, 5) for b in second]


async def test_the_secret_is_shown(script: Script, tmp_path: Path) -> None:
    script.answer = lambda _: (200, APP)
    async with remote(script, tmp_path, token="s3cret") as access:
        await access.definitions.get_app("app")
    assert script.requests[0][2]["authorization"] == "Bearer s3cret"


async def test_an_enqueue_that_is_sent_again_says_so(access: StoredWorld, script: Script) -> None:
    answers = iter([(500, b""), (200, b"<html>"), (200, {"msg": "enqueued call"})])
    script.answer = lambda _: next(answers)
    await access.accepted.enqueue(Call(id="1", app_name="app", path="/p", payload=b"\xff"))
    assert [headers.get("hearth-attempt") for _, _, headers, _ in script.requests] == [None, "2", "3"]
    assert {json.loads(body)["payload_encoding"] for _, _, _, body in script.requests} == {"base64"}


async def test_an_enqueue_whose_connection_breaks_is_never_repeated_without_saying_so(
    access: StoredWorld, script: Script
) -> None:
    answers = iter([(200, APP), None, (200, {"msg": "enqueued call"})])
    script.answer = lambda _: next(answers)
    await access.definitions.get_app("app")  # leaves a connection that is used again, and breaks
    await access.accepted.enqueue(Call(id="1", app_name="app", path="/p"))
    assert [headers.get("hearth-attempt") for _, _, headers, _ in script.requests] == [None, None, "2"]


async def test_a_runner_is_ready_once_it_was_let_in(access: StoredWorld, script: Script) -> None:
    script.answer = lambda _: refuse(401, "no")
    with pytest.raises(RemoteRefusal):
        await access.records.check()
    script.answer = lambda _: None
    with pytest.raises(ApiNodeAway):
        await access.records.check()
    script.answer = lambda _: (200, {"held": []})
    await access.records.check()
    script.answer = lambda _: None
    await access.records.check()


async def test_leases_count_from_when_they_can_have_begun(access: StoredWorld, script: Script) -> None:
    handed = {"id": "1", "app_name": "app", "path": "/p", "lease": "l", "deliveries": 3, "lease_s": 60.0}
    script.answer = lambda _: (200, {"calls": [handed], "waited_s": 7.0, "visibility_s": 60.0})
    before = CLOCK.monotonic()
    (reserved,) = await access.accepted.dequeue(5)
    assert before + 67 <= reserved.until <= CLOCK.monotonic() + 67
    assert (reserved.lease, reserved.deliveries, access.accepted.visibility_s) == ("l", 3, 60.0)


async def test_a_runner_leaves_apps_out_where_the_api_node_says_so(access: StoredWorld, script: Script) -> None:
    handed = {"id": "1", "app_name": "app", "path": "/p", "lease": "l"}
    for answer, can in (({}, False), ({"leaves_out": True}, True), ({}, False)):
        script.answer = lambda _, answer=answer: (200, {"calls": [handed], **answer})  # type: ignore[misc]
        await access.accepted.dequeue(5)
        assert access.accepted.leaves_out is can
    await access.accepted.dequeue(5, frozenset({"b", "a&limit=1"}))
    query = parse_qs(urlsplit(script.requests[-1][1]).query)
    assert (query["limit"], json.loads(query["without"][0])) == (["5"], ["a&limit=1", "b"])


async def test_a_poll_that_is_given_up_leaves(access: StoredWorld, script: Script) -> None:
    gone, asked = asyncio.Event(), asyncio.Event()

    async def hang() -> tuple[int, Any]:
        asked.set()
        await gone.wait()
        return done("")

    script.answer = lambda _: hang()
    poll = asyncio.ensure_future(access.accepted.dequeue(1))
    await asked.wait()
    poll.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await poll
    gone.set()


# -- ends of calls while the API node is away -------------------------------------------------------------------------


def told(script: Script) -> list[str]:
    """What arrived: ids of ended calls, and leases that are settled, in order."""
    names: list[str] = []
    for path, body in script.granted:
        if path == "/v1/runner/finish":
            names += [one["call"]["id"] for one in json.loads(body)["ended"]]
        elif path == "/v1/runner/settle":
            names += json.loads(body)["leases"]
    return names


async def test_ends_are_kept_and_told_later_in_order(script: Script, tmp_path: Path) -> None:
    script.answer = lambda _: (503, b"")
    async with remote(script, tmp_path) as access:
        await access.records.finish_many([ended("1", b"\xff"), ended("2")])
        assert await access.accepted.acknowledge(["lease of 1"]) == [True]
        await access.records.finish_many([ended("3")])
        script.answer = done
        while spool_of(access).items:
            await asyncio.sleep(0.01)
    got = told(script)
    assert [name for name in got if name in "123"] == ["1", "2", "3"]
    assert got.index("lease of 1") > got.index("1"), "a call's message goes after its end is stored"


async def test_what_is_kept_survives_the_runner(script: Script, tmp_path: Path) -> None:
    script.answer = lambda _: (503, b"")
    async with remote(script, tmp_path) as access:
        await access.records.finish_many([ended("1", b"a log")])
    script.answer = done
    for _ in range(2):
        async with remote(script, tmp_path):
            pass
    assert told(script) == ["1"], "told once"


async def test_a_full_spool_refuses_new_work_and_loses_nothing(script: Script, tmp_path: Path) -> None:
    script.answer = lambda _: (200, {"held": []})
    async with remote(script, tmp_path, spool_bytes=1000) as access:
        await access.records.check()
        script.answer = lambda _: (503, b"")
        assert access.records.has_room
        await access.records.finish_many([ended("1", b"x" * 2000)])
        assert not access.records.has_room
        with pytest.raises(InternalError, match="the spool is full"):
            await access.records.check()
        await access.records.finish_many([ended("2")])  # it ran already
        waiting = asyncio.ensure_future(access.accepted.dequeue(1))
        script.answer = done
        while not access.records.has_room:
            await asyncio.sleep(0.01)
        waiting.cancel()
    assert told(script) == ["1", "2"]
    assert not [path for _, path, _, _ in script.requests if "async" in path and not access.records.has_room]


@pytest.mark.parametrize("kept", [0, 1])
async def test_work_is_taken_again_when_the_disk_of_the_spool_is_well_again(
    script: Script, tmp_path: Path, kept: int
) -> None:
    script.answer = lambda _: (503, b"")
    async with remote(script, tmp_path) as access:
        await access.records.finish_many([ended(f"{number}") for number in range(kept)])
        spool = spool_of(access)
        spool._db.execute("PRAGMA max_page_count = 4")
        with pytest.raises(StoreUnavailable, match="full"):
            await access.records.finish_many([ended("lost", b"x" * 50_000)])
        with pytest.raises(StoreUnavailable, match="full"):
            await spool.recover()
        assert not access.records.has_room
        spool._db.execute("PRAGMA max_page_count = 1000000")
        async with asyncio.timeout(30):
            while not access.records.has_room:
                await asyncio.sleep(0.01)
        script.answer = done
    assert told(script) == ["0"][:kept]


async def test_a_record_that_the_api_node_cannot_store_does_not_stop_the_others(script: Script, tmp_path: Path) -> None:
    def picky(path: str) -> tuple[int, Any]:
        return refuse(422, "no") if b'"bad"' in script.requests[-1][3] else done(path)

    script.answer = picky
    async with remote(script, tmp_path) as access:
        with pytest.raises(StoreRefused):
            await access.records.finish_many([ended("bad")])
        script.answer = lambda _: (401, b"")
        await access.records.finish_many([ended("1"), ended("bad"), ended("2")])
        assert spool_of(access).items == 3, "a wrong secret costs no record"
        script.answer = picky
        while spool_of(access).items:
            await asyncio.sleep(0.01)
    with sqlite3.connect(tmp_path / "spool") as left:
        assert left.execute("SELECT count(*) FROM items").fetchone() == (0,)
    left.close()


async def test_a_record_that_is_refused_at_once_counts_as_refused_and_not_as_lost(
    script: Script, tmp_path: Path
) -> None:
    telemetry = Telemetry()
    watch = Watch(telemetry.metrics)
    script.answer = lambda path: refuse(422, "no") if b'"bad"' in script.requests[-1][3] else done(path)
    async with remote(script, tmp_path, telemetry=telemetry) as access:
        recorder = Recorder(access.records, telemetry.metrics)
        answers = await asyncio.gather(*[recorder.record(ended(name)) for name in ("0", "1", "bad", "2")])
        await recorder.close()
    assert answers == [True, True, False, True]
    assert (watch("hearth_runner_records_refused"), watch("hearth_records_lost")) == (1, 0)


# -- routes while the API node is away --------------------------------------------------------------------------------


class Source:
    """Definitions that can be made to fail."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.loads = 0

    async def get_app(self, name: str) -> Any:
        self.loads += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        return App(name=name, id=f"app {self.loads}")

    async def get_route(self, app_name: str, path: str) -> Any:
        return Route(app_name=app_name, path=path)


async def test_a_known_route_serves_while_the_api_node_is_away_for_so_long() -> None:
    clock, source = FakeClock(), Source()
    definitions = CachedDefinitions(source, clock, stale_s=100)
    assert (await definitions.get("a", "/p")).app.id == "app 1"
    source.error = ApiNodeAway()
    clock.advance(6)
    assert (await definitions.get("a", "/p")).app.id == "app 1"
    with pytest.raises(ApiNodeAway):
        await definitions.get("a", "/unknown")
    source.hold = asyncio.Event()  # now it hangs: nobody waits for what failed a moment ago
    for _ in range(3):
        assert (await definitions.get("a", "/p")).app.id == "app 1"
    source.error = None
    source.hold.set()
    while definitions.get_nowait("a", "/p") is None:
        await asyncio.sleep(0)
    assert (await definitions.get("a", "/p")).app.id != "app 1"
    source.error = ApiNodeAway()
    clock.advance(106)
    with pytest.raises(ApiNodeAway):
        await definitions.get("a", "/p")
    await definitions.close()


async def test_a_definite_404_always_wins() -> None:
    clock, source = FakeClock(), Source()
    definitions = CachedDefinitions(source, clock, stale_s=100)
    await definitions.get("a", "/p")
    clock.advance(6)
    source.error = AppsNotFound()
    with pytest.raises(AppsNotFound):
        await definitions.get("a", "/p")
    source.error = ApiNodeAway()
    with pytest.raises(ApiNodeAway):
        await definitions.get("a", "/p")
    await definitions.close()


async def test_a_change_is_seen_after_five_seconds() -> None:
    clock, source = FakeClock(), Source()
    definitions = CachedDefinitions(source, clock, stale_s=100)
    await definitions.get("a", "/p")
    clock.advance(5.1)
    assert (await definitions.get("a", "/p")).app.id == "app 2"
    await definitions.close()
