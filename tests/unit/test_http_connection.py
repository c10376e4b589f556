"""The life of a connection: what a client gets, in which order, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.support.http_connection import FakeClient, FakeDepartures, shared_of
from tests.support.virtual_time import VirtualClock, run

from hearth.agent.call import ClientGone
from hearth.aio.clock import SystemClock
from hearth.server.http import heads
from hearth.server.http.descriptors import Descriptors
from hearth.server.http.exchange import HIGH_WATER_BYTES, HttpExchange
from hearth.server.http.shared import KEEP_ALIVE_S, Shared
from hearth.telemetry.series import Series

DATE = b"date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def get(path: str = "/r/a/f", *fields: str, method: str = "GET", version: str = "1.1") -> str:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: h", *fields, "", ""])


def post(body: str, *fields: str, length: int | None = None) -> str:
    size = len(body) if length is None else length
    return get("/r/a/f", f"Content-Length: {size}", *fields, method="POST") + body


class Calls:
    """Answers calls when it is told to, with the path and the body."""

    def __init__(self) -> None:
        self.requests: list[HttpExchange] = []
        self.ended: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.reads = True

    async def __call__(self, exchange: HttpExchange) -> None:
        self.requests.append(exchange)
        exchange.watcher = asyncio.current_task()
        try:
            body = b""
            while self.reads and (piece := await exchange.read()):
                body += piece
            await self.may_answer.wait()
            answer = exchange.head.path.encode() + b" " + body
            exchange.begin(200, [(b"content-length", b"%d" % len(answer))])
            await exchange.end(answer)
            self.ended.append("answered")
        except ClientGone:
            self.ended.append("gone")
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        finally:
            exchange.watcher = None


def bodies(received: bytes) -> list[bytes]:
    """The bodies of answers that say how long they are."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        size = int(fields[b"content-length"])
        found.append(rest[:size])
        received = rest[size:]
    return found


async def idle(shared: Shared) -> None:
    """Check that nothing runs for any client, and none is connected."""
    async with asyncio.timeout(5):
        await shared.drained()


# -- answers ----------------------------------------------------------------------------------------------------------


def test_a_small_answer_is_one_write_of_exactly_these_bytes() -> None:
    async def scenario() -> None:
        async with shared_of(calls=Calls(), clock=VirtualClock()) as shared:
            client = FakeClient(shared)
            client.send(get())
            await client.settled()
            assert client.writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n" + DATE + b"\r\n/r/a/f "]
            assert not client.is_closed

    run(scenario())


async def answered(send: Any, request: str = get()) -> FakeClient:
    """The client whose request was answered by ``send(exchange)``."""

    async def calls(exchange: HttpExchange) -> None:
        await send(exchange)

    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(request)
        for _ in range(20):
            await asyncio.sleep(0)
        was_closed = client.is_closed
    client.is_closed = was_closed
    return client


async def test_a_large_body_is_not_copied() -> None:
    body = b"x" * (1 << 20)

    async def send(exchange: HttpExchange) -> None:
        exchange.begin(200, [(b"content-length", b"%d" % len(body))])
        await exchange.end(body)

    client = await answered(send)
    assert [len(piece) for piece in client.writes if piece] == [len(client.received) - len(body), len(body)]


async def in_pieces(exchange: HttpExchange) -> None:
    exchange.begin(200, [])
    await exchange.write(b"one")
    await exchange.write(b"")
    await exchange.write(b"four")
    await exchange.end()


@pytest.mark.parametrize(
    ("request_text", "body", "closes"),
    [
        (get(), b"3\r\none\r\n4\r\nfour\r\n0\r\n\r\n", False),
        (get(version="1.0"), b"onefour", True),
        (get(method="HEAD"), b"", False),
    ],
)
async def test_an_answer_in_pieces_ends_where_its_client_sees_it(request_text: str, body: bytes, closes: bool) -> None:
    client = await answered(in_pieces, request_text)
    head, _, rest = client.received.partition(b"\r\n\r\n")
    assert (rest, client.is_closed) == (body, closes)
    assert (b"transfer-encoding: chunked" in head) is (request_text == get())
    assert (b"connection: close" in head) is closes


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_none(status: int) -> None:
    async def send(exchange: HttpExchange) -> None:
        exchange.begin(status, [])
        await exchange.end(b"ignored")

    client = await answered(send)
    head, _, rest = client.received.partition(b"\r\n\r\n")
    assert rest == b""
    assert b"transfer-encoding" not in head
    assert not client.is_closed


@pytest.mark.parametrize(
    "field",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x", b"a\x00b"),
        (b"x", b"a\x7fb"),
        (b"x y", b"a"),
        (b"x:y", b"a"),
        (b"", b"a"),
        (b"x" * 100 + b"\n", b"a"),
    ],
)
async def test_no_header_field_can_add_another_one(field: tuple[bytes, bytes]) -> None:
    async def send(exchange: HttpExchange) -> None:
        exchange.begin(200, [field, (b"content-length", b"0")])
        await exchange.end()

    client = await answered(send)
    assert client.received.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in client.received


async def test_the_server_alone_frames_answers_and_keeps_connections() -> None:
    async def send(exchange: HttpExchange) -> None:
        fields = [(b"Transfer-Encoding", b"chunked"), (b"Connection", b"keep-alive"), (b"Content-Length", b"2")]
        exchange.begin(200, fields)
        await exchange.end(b"ok")

    client = await answered(send)
    assert b"transfer-encoding" not in client.received
    assert b"connection" not in client.received
    assert client.received.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("sent", [b"short", b"much too long for it"])
async def test_an_answer_of_another_length_than_announced_is_cut_off(sent: bytes) -> None:
    async def send(exchange: HttpExchange) -> None:
        exchange.begin(200, [(b"content-length", b"10")])
        await exchange.write(b"")
        await exchange.end(sent)

    client = await answered(send)
    assert client.is_closed
    assert len(client.received.partition(b"\r\n\r\n")[2]) < 10


async def test_what_a_handler_raises_is_answered() -> None:
    async def send(exchange: HttpExchange) -> None:
        exchange.begin(201, [(b"x-held", b"y")])
        raise ValueError("secret")

    client = await answered(send)
    assert client.received.startswith(b"HTTP/1.1 500 ")
    assert b"x-held" not in client.received
    assert json.loads(client.received.partition(b"\r\n\r\n")[2]) == {"error": {"message": "internal server error"}}
    assert not client.is_closed


async def test_an_answer_that_was_begun_and_fails_is_cut_off() -> None:
    async def send(exchange: HttpExchange) -> None:
        exchange.begin(200, [])
        await exchange.write(b"some")
        raise ValueError("secret")

    client = await answered(send)
    assert client.is_closed
    assert client.received.endswith(b"4\r\nsome\r\n")


async def test_a_closing_answer_closes() -> None:
    async def send(exchange: HttpExchange) -> None:
        exchange.begin(408, [(b"Connection", b"close"), (b"content-length", b"0")])
        await exchange.end()

    client = await answered(send)
    assert client.received.count(b"connection: close\r\n") == 1
    assert client.is_closed


# -- requests in a row ------------------------------------------------------------------------------------------------


async def test_requests_sent_ahead_are_answered_one_after_the_other() -> None:
    calls = Calls()
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send("".join(get(f"/r/a/{n}") for n in range(3)))
        assert await client.settled() == b""
        assert [request.head.path for request in calls.requests] == ["/r/a/0"]
        assert not client.is_read, "what waits is enough"
        calls.may_answer.set()
        assert bodies(await client.settled()) == [b"/r/a/0 ", b"/r/a/1 ", b"/r/a/2 "]
        assert client.is_read


@given(st.lists(st.sampled_from(["", "x", "y" * 300]), min_size=1, max_size=5), st.lists(st.integers(1, 900)))
@settings(deadline=None)
def test_wherever_requests_are_cut_each_is_answered(sent: list[str], points: list[int]) -> None:
    async def scenario() -> None:
        async with shared_of(calls=Calls(), clock=VirtualClock()) as shared:
            client = FakeClient(shared)
            text = "".join(post(body) for body in sent)
            ends = sorted({min(point, len(text)) for point in points} | {len(text)})
            for start, end in zip([0, *ends], ends, strict=False):
                client.send(text[start:end])
                await asyncio.sleep(0)
            assert bodies(await client.settled()) == [f"/r/a/f {body}".encode() for body in sent]

    run(scenario())


async def test_nothing_that_follows_a_last_request_is_read() -> None:
    calls = Calls()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(get("/r/a/1", "Connection: close") + get("/r/a/2"))
        assert bodies(await client.settled()) == [b"/r/a/1 "]
        assert client.is_closed
        assert len(calls.requests) == 1


async def test_the_body_of_a_last_request_is_read() -> None:
    async with shared_of(calls=Calls()) as shared:
        client = FakeClient(shared)
        text = post("hello", "Connection: close")
        client.send(text[:-3])
        client.send(text[-3:])
        assert bodies(await client.settled()) == [b"/r/a/f hello"]


async def test_the_rest_of_a_body_that_nobody_reads_is_no_request() -> None:
    calls = Calls()
    calls.reads = False
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        text = post(get("/r/hidden/f") * 3)
        client.send(text[:100])
        assert len(bodies(await client.settled())) == 1
        client.send(text[100:] + get("/r/a/next"))
        assert bodies(await client.settled()) == [b"/r/a/next "]


# -- refusals ---------------------------------------------------------------------------------------------------------


async def test_garbage_is_refused_after_the_answers_before_it() -> None:
    calls = Calls()
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(get("/r/a/1") + get("/r/a/2") + "garbage\r\n\r\n" + get("/r/a/3"))
        assert await client.settled() == b""
        calls.may_answer.set()
        received = await client.settled()
        assert b"retry-after" not in received, "it would be refused again"
        found = bodies(received)
        assert found[:2] == [b"/r/a/1 ", b"/r/a/2 "]
        assert json.loads(found[2]) == {"error": {"message": "Invalid HTTP request received."}}
        assert len(found) == 3
        assert client.is_closed


async def test_a_body_that_cannot_be_read_ends_its_call() -> None:
    calls = Calls()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(get("/r/a/f", "Transfer-Encoding: chunked", method="POST") + "5\r\nhello\r\n")
        await client.settled()
        client.send("zz\r\n")
        received = await client.settled()
        assert received.startswith(b"HTTP/1.1 400 ")
        assert received.count(b"HTTP/1.1 ") == 1
        assert calls.ended in (["cancelled"], ["gone"])
        assert client.is_closed


async def test_an_answer_whose_request_breaks_is_cut_off() -> None:
    async def calls(exchange: HttpExchange) -> None:
        exchange.begin(200, [])
        await exchange.write(b"begun")
        with contextlib.suppress(ClientGone):
            while await exchange.read():
                pass
            await exchange.end()

    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(get("/r/a/f", "Transfer-Encoding: chunked", method="POST") + "5\r\nhello\r\n")
        await client.settled()
        client.send("zz\r\n")
        assert await client.settled() == b""
        assert client.is_closed


async def test_too_many_requests_ahead_are_refused() -> None:
    async with shared_of(calls=Calls()) as shared:
        client = FakeClient(shared)
        client.send(get() * 300)
        received = b""
        while not client.is_closed:
            received += await client.settled()
        found = bodies(received)
        assert json.loads(found[-1]) == {"error": {"message": "More than 200 requests sent ahead"}}
        assert len(found) == 202


async def test_the_heads_of_all_connections_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "MAX_HEADS_BYTES", 100_000)
    calls = Calls()
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        large = get("/r/a/f", "X: " + "y" * 40_000)
        clients = [FakeClient(shared) for _ in range(3)]
        for client in clients:
            client.send(large[:-1])
        assert [client.is_closed for client in clients] == [False, False, True]
        assert clients[2].received.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 15\r\n" in clients[2].received
        await clients[2].settled()
        clients[0].send(large[-1:])  # it has ended, and still counts until it is answered
        late = FakeClient(shared)
        late.send(large[:-1])
        assert late.is_closed
        small = FakeClient(shared)
        small.send(get("/r/a/small"))
        calls.may_answer.set()
        assert bodies(await small.settled()) == [b"/r/a/small "]
        assert shared.heads.held < 50_000, "what was answered does not count"
        clients[1].leave()
        assert shared.heads.held == 0


async def test_large_heads_count_until_they_are_answered_and_small_ones_never() -> None:
    calls = Calls()
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        small, large = FakeClient(shared), FakeClient(shared)
        small.send(get("/r/a/f", "X: " + "y" * 1_000))
        assert shared.heads.held == 0
        large.send(get("/r/a/f", "X: " + "y" * 40_000))
        assert 40_000 <= shared.heads.held < 41_000
        calls.may_answer.set()
        await large.settled()
        assert shared.heads.held == 0


async def test_a_small_head_may_arrive_although_large_ones_have_reached_their_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads, "MAX_HEADS_BYTES", 50_000)
    async with shared_of(calls=Calls()) as shared:
        large, small = FakeClient(shared), FakeClient(shared)
        large.send(get("/r/a/f", "X: " + "y" * 49_900)[:-1])
        small.send(get("/r/a/small", "X: " + "y" * 1_000)[:-1])
        assert not small.is_closed
        small.send("\n")
        assert bodies(await small.settled()) == [b"/r/a/small "]


# -- limits of time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "answer"),
    [("", b""), ("\r\n\r\n", b""), ("G", b"HTTP/1.1 408 "), (get()[:-1], b"HTTP/1.1 408 ")],
)
@pytest.mark.parametrize("before", [0, 1])
def test_a_head_has_limited_time(sent: str, answer: bytes, before: int) -> None:
    async def scenario() -> None:
        async with shared_of(calls=Calls(), clock=VirtualClock(), head_timeout_s=30) as shared:
            client = FakeClient(shared)
            client.send(get() * before)
            assert len(bodies(await client.settled())) == before
            if sent:
                client.send(sent)
            limit_s = 30 if sent or not before else KEEP_ALIVE_S
            await asyncio.sleep(limit_s - 1)
            assert not client.is_closed
            await asyncio.sleep(2)
            assert client.is_closed
            assert client.received[: len(answer)] == answer
            assert bool(client.received) is bool(answer)

    run(scenario())


def test_blank_lines_win_no_time() -> None:
    async def scenario() -> None:
        async with shared_of(calls=Calls(), clock=VirtualClock(), head_timeout_s=30) as shared:
            client = FakeClient(shared)
            for _ in range(31):
                client.send("\r\n")
                await asyncio.sleep(1)
            assert client.is_closed

    run(scenario())


def test_bodies_answers_and_what_is_sent_ahead_have_unlimited_time() -> None:
    async def scenario() -> None:
        calls = Calls()
        async with shared_of(calls=calls, clock=VirtualClock(), head_timeout_s=30) as shared:
            client = FakeClient(shared)
            text = post("hello")
            client.send(text[:-1])
            await asyncio.sleep(500)
            calls.may_answer.clear()
            client.send(text[-1:] + get("/r/a/next")[:-1])
            await asyncio.sleep(500)
            calls.may_answer.set()
            client.send("\n")
            assert bodies(await client.settled()) == [b"/r/a/f hello", b"/r/a/next "]

    run(scenario())


def test_a_head_that_was_late_behind_a_long_call_has_its_time_again_after_the_answer() -> None:
    async def scenario() -> None:
        calls = Calls()
        calls.may_answer.clear()
        async with shared_of(calls=calls, clock=VirtualClock(), head_timeout_s=30) as shared:
            client = FakeClient(shared)
            client.send(get() + get("/r/a/next")[:-1])
            await asyncio.sleep(500)
            calls.may_answer.set()
            assert bodies(await client.settled()) == [b"/r/a/f "]
            assert not client.is_closed
            await asyncio.sleep(31)
            assert client.received.startswith(b"HTTP/1.1 408 ")
            assert client.is_closed

    run(scenario())


def test_a_connection_is_kept_between_requests_for_its_time() -> None:
    async def scenario() -> None:
        async with shared_of(calls=Calls(), clock=VirtualClock()) as shared:
            client = FakeClient(shared)
            for _ in range(5):
                client.send(get())
                assert len(bodies(await client.settled())) == 1
                await asyncio.sleep(KEEP_ALIVE_S - 1)
            assert not client.is_closed
            await asyncio.sleep(2)
            assert client.is_closed
            assert not shared.connections

    run(scenario())


@pytest.mark.parametrize("lasts_s", [KEEP_ALIVE_S - 1, KEEP_ALIVE_S + 1, 500])
def test_a_connection_is_kept_from_its_last_answer_on(lasts_s: float) -> None:
    async def scenario() -> None:
        calls = Calls()
        async with shared_of(calls=calls, clock=VirtualClock()) as shared:
            client = FakeClient(shared)
            client.send(get())
            await client.settled()
            calls.may_answer.clear()
            client.send(get())
            await asyncio.sleep(lasts_s)
            calls.may_answer.set()
            assert len(bodies(await client.settled())) == 1
            await asyncio.sleep(KEEP_ALIVE_S - 1)
            assert not client.is_closed
            await asyncio.sleep(2)
            assert client.is_closed

    run(scenario())


def test_a_head_that_arrives_slowly_is_no_idle_connection() -> None:
    async def scenario() -> None:
        async with shared_of(calls=Calls(), clock=VirtualClock(), head_timeout_s=30) as shared:
            client = FakeClient(shared)
            client.send(get())
            await client.settled()
            await asyncio.sleep(KEEP_ALIVE_S - 10)
            client.send(get()[:-1])
            await asyncio.sleep(20)
            client.send("\n")
            assert len(bodies(await client.settled())) == 1

    run(scenario())


def test_a_body_may_go_on_for_long_after_its_answer() -> None:
    async def scenario() -> None:
        calls = Calls()
        calls.reads = False
        async with shared_of(calls=calls, clock=VirtualClock()) as shared:
            client = FakeClient(shared)
            client.send(post("x" * 10, length=40))
            assert len(bodies(await client.settled())) == 1
            for _ in range(3):
                await asyncio.sleep(KEEP_ALIVE_S - 10)
                assert not client.is_closed
                client.send("x" * 10)
            client.send(get())
            assert len(bodies(await client.settled())) == 1
            await asyncio.sleep(KEEP_ALIVE_S + 1)
            assert client.is_closed

    run(scenario())


def test_a_connection_without_a_descriptor_is_turned_away() -> None:
    async def scenario() -> None:
        async with shared_of(calls=Calls(), clock=VirtualClock(), first_reserved=10) as shared:
            asking, silent, served = FakeClient(shared, 10), FakeClient(shared, 11), FakeClient(shared, 9)
            asking.send(get() * 2)
            assert asking.received.startswith(b"HTTP/1.1 503 ")
            assert asking.received.count(b"HTTP/1.1 ") == 1
            assert asking.is_closed
            await asyncio.sleep(2)
            assert silent.is_closed
            assert silent.received == b""
            served.send(get())
            assert bodies(await served.settled()) == [b"/r/a/f "]

    run(scenario())


def test_refused_connections_are_counted_and_the_shortage_is_logged_once() -> None:
    refused = Series()
    descriptors = Descriptors(10, 20, refused)
    with capture_logs() as logs:
        assert [descriptors.admit(number) for number in (9, 10, 11, 9, 9, 12)] == [
            True,
            False,
            False,
            True,
            True,
            False,
        ]
    assert refused.value == 3
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("error", "out of file descriptors, connections are refused"),
        ("info", "connections are accepted again"),
        ("error", "out of file descriptors, connections are refused"),
    ]


async def test_a_connection_with_one_of_the_last_descriptors_is_answered_and_closed_at_once() -> None:
    async with shared_of(calls=Calls(), first_reserved=10, most_open=20) as shared:
        waits, last = FakeClient(shared, 14), FakeClient(shared, 15)
        assert (waits.received, waits.is_closed) == (b"", False)
        assert last.received.startswith(b"HTTP/1.1 503 ")
        assert last.is_closed


# -- bodies -----------------------------------------------------------------------------------------------------------


async def test_a_client_that_waits_is_asked_for_its_body_once_somebody_reads_it() -> None:
    calls = Calls()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(post("", "Expect: 100-continue", length=5))
        assert client.received == b"", "nobody has read yet"
        assert await client.settled() == CONTINUE
        client.send("he")
        assert await client.settled() == b""
        client.send("llo")
        assert bodies(await client.settled()) == [b"/r/a/f hello"]
        assert not client.is_closed


async def test_a_client_that_does_not_wait_is_not_asked() -> None:
    async with shared_of(calls=Calls()) as shared:
        client = FakeClient(shared)
        client.send(post("hello", "Expect: 100-continue"))
        assert bodies(await client.settled()) == [b"/r/a/f hello"]
        assert not client.is_closed


async def test_a_client_whose_body_nobody_wants_sends_it_nowhere() -> None:
    calls = Calls()
    calls.reads = False
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(post("", "Expect: 100-continue", length=5))
        received = await client.settled()
        assert bodies(received) == [b"/r/a/f "]
        assert b"connection: close" in received, "whether the body comes now, nobody knows"
        assert client.is_closed


async def test_a_body_that_is_not_read_stops_its_client() -> None:
    calls = Calls()
    calls.reads = False
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(post("", length=10 * HIGH_WATER_BYTES))
        for _ in range(10):
            client.send(b"x" * HIGH_WATER_BYTES)
        assert not client.is_read
        await client.settled()
        [request] = calls.requests
        taken = 0
        while not request.ended:
            taken += len(await request.read())
            await client.settled()
        assert taken == 10 * HIGH_WATER_BYTES
        assert client.is_read


async def test_a_client_is_read_again_once_one_request_is_left() -> None:
    calls = Calls()
    calls.reads = False
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(get("/r/a/1") + get("/r/a/2"))
        await client.settled()
        assert not client.is_read
        first = calls.requests[0]
        first.begin(200, [(b"content-length", b"0")])
        await first.end(b"")
        await client.settled()
        assert client.is_read


async def test_a_full_body_stops_its_client_also_once_the_answer_before_it_is_sent() -> None:
    calls = Calls()
    calls.reads = False
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(get("/r/a/1") + post("x" * 2 * HIGH_WATER_BYTES, length=3 * HIGH_WATER_BYTES))
        await client.settled()
        first = calls.requests[0]
        first.begin(200, [(b"content-length", b"0")])
        await first.end(b"")
        await client.settled()
        assert len(calls.requests) == 2
        assert not client.is_read


async def test_a_client_that_has_begun_its_body_is_not_waiting() -> None:
    calls = Calls()
    calls.reads = False
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(post("he", "Expect: 100-continue", length=5))
        assert bodies(await client.settled()) == [b"/r/a/f "]
        client.send("llo" + get("/r/a/next"))
        assert bodies(await client.settled()) == [b"/r/a/next "]


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_small_pieces_are_joined(size: int) -> None:
    body = bytes(range(256)) * 40
    async with shared_of(calls=Calls()) as shared:
        client = FakeClient(shared)
        client.send(get("/r/a/f", "Transfer-Encoding: chunked", method="POST"))
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.send("0\r\n\r\n")
        assert bodies(await client.settled()) == [b"/r/a/f " + body]


# -- clients that leave, or are slow ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [get(), post("he", length=5), post("hello")])
async def test_a_client_that_leaves_cancels_its_call(text: str) -> None:
    calls = Calls()
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(text)
        await client.settled()
        client.leave()
        await client.settled()
        assert calls.ended in (["cancelled"], ["gone"])
        assert not shared.connections
        await idle(shared)


async def test_what_waits_behind_a_call_is_not_run_for_a_client_that_left() -> None:
    calls = Calls()
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(get() * 3)
        await client.settled()
        client.leave()
        calls.may_answer.set()
        await client.settled()
        assert len(calls.requests) == 1


@pytest.mark.parametrize("text", [get() * 2, post("x" * 2 * HIGH_WATER_BYTES, length=3 * HIGH_WATER_BYTES)])
async def test_a_client_that_is_not_read_is_watched(text: str) -> None:
    calls = Calls()
    calls.reads = False
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        departures = cast(FakeDepartures, shared.departures)
        client = FakeClient(shared, 7)
        client.send(text)
        await client.settled()
        departures.watched[7]()
        await client.settled()
        assert calls.ended == ["cancelled"]
        assert not departures.watched


async def test_an_answer_waits_for_a_slow_client() -> None:
    calls = Calls()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.connection.pause_writing()
        client.send(get())
        assert await client.settled() == b""
        client.connection.resume_writing()
        assert bodies(await client.settled()) == [b"/r/a/f "]
        client.connection.pause_writing()
        client.send(get())
        await client.settled()
        client.leave()
        await client.settled()
        await idle(shared)


async def test_an_application_that_waits_for_a_slow_client_ends_when_that_leaves() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        await send({"type": "http.response.body", "body": b"more", "more_body": True})

    async with shared_of(app) as shared:
        client = FakeClient(shared)
        client.connection.pause_writing()
        client.send(get("/metrics"))
        await client.settled()
        client.leave()
        await client.settled()
        await idle(shared)


# -- the end of the server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "answers"),
    [("", 0), (get()[:-1], 0), (get(), 1), (get() * 3, 1), (post("hello")[:-1], 1), (get() + get()[:-1], 1)],
    ids=["idle", "a head begins", "a call runs", "calls wait", "a body arrives", "a head begins behind a call"],
)
async def test_a_connection_ends_with_the_answer_that_is_being_made(sent: str, answers: int) -> None:
    calls = Calls()
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(sent)
        await client.settled()
        client.connection.shutdown()
        client.connection.shutdown()
        assert client.is_closed is (answers == 0)
        if sent == post("hello")[:-1]:
            client.send("o")
        calls.may_answer.set()
        received = await client.settled()
        assert len(bodies(received)) == answers
        assert received.count(b"connection: close\r\n") == answers
        assert client.is_closed
        await idle(shared)


async def test_a_request_that_comes_while_the_last_one_is_answered_is_not_read() -> None:
    calls = Calls()
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(get())
        await client.settled()
        client.connection.shutdown()
        client.send(get("/r/a/late"))
        calls.may_answer.set()
        assert bodies(await client.settled()) == [b"/r/a/f "]
        assert len(calls.requests) == 1


async def test_draining_waits_for_the_last_answer() -> None:
    calls = Calls()
    calls.may_answer.clear()
    async with shared_of(calls=calls) as shared:
        client = FakeClient(shared)
        client.send(get())
        await client.settled()
        client.connection.shutdown()
        drained = asyncio.get_running_loop().create_task(shared.drained())
        await client.settled()
        assert not drained.done()
        calls.may_answer.set()
        await drained
        await idle(shared)


# -- ASGI -------------------------------------------------------------------------------------------------------------


async def test_other_paths_are_for_the_application() -> None:
    scopes: list[Any] = []
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        received.append(await receive())
        await send({"type": "http.response.start", "status": 201, "headers": [(b"X-Case", b"y")]})
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        await send({"type": "http.response.body", "body": b"k"})
        received.append(await receive())

    async with shared_of(app, Calls()) as shared:
        client = FakeClient(shared)
        client.send(post("hello", "X-Other: 1").replace("/r/a/f", "/v1/a%20b?c=d"))
        answer = await client.settled()
        [scope] = scopes
        assert (scope["type"], scope["method"], scope["path"]) == ("http", "POST", "/v1/a b")
        assert (scope["raw_path"], scope["query_string"], scope["root_path"]) == (b"/v1/a%20b", b"c=d", "")
        assert (scope["http_version"], scope["scheme"]) == ("1.1", "http")
        assert (scope["client"], scope["server"]) == (("192.0.2.1", 5), ("192.0.2.2", 80))
        assert scope["headers"] == [(b"host", b"h"), (b"content-length", b"5"), (b"x-other", b"1")]
        assert received == [
            {"type": "http.request", "body": b"hello", "more_body": False},
            {"type": "http.disconnect"},
        ]
        assert answer.startswith(b"HTTP/1.1 201 Created\r\nx-case: y\r\n")
        assert answer.endswith(b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n")


async def test_an_application_can_change_the_headers_of_its_own_request_only() -> None:
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(len(scope["headers"]))
        scope["headers"].append((b"x-more", b"1"))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with shared_of(app) as shared:
        client = FakeClient(shared)
        for _ in range(3):
            client.send(get("/version"))
            await client.settled()
    assert seen == [1, 1, 1]


async def test_without_a_handler_of_calls_the_application_takes_them() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async with shared_of(app) as shared:
        client = FakeClient(shared)
        client.send(get())
        assert bodies(await client.settled()) == [b"/r/a/f"]


async def test_an_application_is_told_that_its_client_has_left() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            told.append(message["type"])
        told.append(message["type"])

    async with shared_of(app) as shared:
        client = FakeClient(shared)
        client.send(get("/version"))
        await client.settled()
        assert told == ["http.request"]
        client.leave()
        await client.settled()
        assert told == ["http.request", "http.disconnect"]


async def test_an_application_that_waits_for_its_client_hears_of_the_end_of_the_answer() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        told.append((await waiting)["type"])

    async with shared_of(app) as shared:
        client = FakeClient(shared)
        client.send(get("/version"))
        await client.settled()
        assert told == ["http.disconnect"]
        assert not client.is_closed


@pytest.mark.parametrize("starts", [False, True])
async def test_an_application_that_does_not_answer_is_an_error(starts: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if starts:
            await send({"type": "http.response.start", "status": 200})

    async with shared_of(app) as shared:
        client = FakeClient(shared)
        client.send(get("/version"))
        assert (await client.settled()).startswith(b"HTTP/1.1 500 ")


def test_the_date_of_an_answer_is_that_of_its_second() -> None:
    async def scenario() -> None:
        async with shared_of(calls=Calls(), clock=VirtualClock()) as shared:
            client = FakeClient(shared)
            for second in (0, 0, 1, 3, 3):
                await asyncio.sleep(second + 0.2 - asyncio.get_running_loop().time() % 60)
                client.send(get())
                assert b"date: Thu, 01 Jan 2026 00:00:0%d GMT\r\n" % second in await client.settled()
                await asyncio.sleep(0.7)

    run(scenario())


async def test_every_answer_has_the_date() -> None:
    async with shared_of(calls=Calls(), clock=SystemClock()) as shared:
        client = FakeClient(shared)
        client.send(get())
        assert b"\r\ndate: " in await client.settled()
