"""One call over a connection to a function: what its answer becomes, and what may serve on afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.agent import Body, Sink
from tests.unit.protocol_events import a_call

from hearth.aio.clock import SystemClock
from hearth.contracts.base import ContainerGone, Head
from hearth.contracts.http_stream import exchange
from hearth.contracts.http_stream.answer import Limits
from hearth.contracts.http_stream.contract import HttpStreamContract
from hearth.drivers.base import Exit
from hearth.drivers.sockets import NAME, UnixSocket
from hearth.drivers.streams import StreamBuffer
from hearth.host.inotify import FolderWatch
from hearth.models.errors import (
    AnswerHeadTooLarge,
    AnswerTooLarge,
    CallTimeout,
    FunctionBroken,
    FunctionGone,
    FunctionRaised,
)

#: A function: what it does on each connection, with the number of the connection.
Function = Callable[["Theirs"], Awaitable[None]]
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nFn-Http-H-X-A: 1\r\n\r\nhello"


class Theirs:
    """The function's side of one connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number, self.reader, self.writer = number, reader, writer

    async def request(self) -> bytes:
        """Read one request with a body of known length; its head."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
        await self.reader.readexactly(length)
        return head

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


class World:
    """A container that serves, and calls of it."""

    def __init__(self, channel: UnixSocket, contract: HttpStreamContract) -> None:
        self.contract = contract
        self.sink = Sink()
        self.connections = 0
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.container = SimpleNamespace(
            channel=channel, exited=None, wait=lambda: asyncio.shield(self.ended), on_exit=lambda _: None
        )
        self.exchange: Any = None

    async def call(self, *, body: Body | None = None, fresh: bool = False, watched: bool = False, **given: Any) -> Head:
        """Make a call; the head of the client's answer."""
        self.sink = Sink()
        body = body or Body(b"hi")
        made = a_call(**{"content_length": body.length, **given})
        call: Any = SimpleNamespace(
            body=body, sink=self.sink, kept_body=[], started_at=None, input=lambda: made, log_fields=dict
        )
        container = cast(Any, self.container)
        self.exchange = self.contract.exchange(call, container, fresh=fresh, on_probation=watched)
        await self.exchange.run()
        assert len(self.sink.heads) == self.sink.completed == 1
        return self.sink.heads[0]


@contextlib.asynccontextmanager
async def serving(folder: Path, function: Function, limits: Limits | None = None) -> AsyncIterator[World]:
    """Run a function on a socket; leaving it checks that nothing of ours stays open."""
    before = open_sockets()
    watch = FolderWatch()
    (folder / "c").mkdir()
    channel = UnixSocket(folder / "c", watch, SystemClock(), ready_s=5)
    world = World(channel, HttpStreamContract(limits or Limits()))

    tasks = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await function(Theirs(world.connections, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        world.connections += 1
        tasks.append(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_unix_server(accept, folder / "c" / NAME)
    async with server:
        await channel.ready(cast(Any, world.container))
        yield world
        world.exchange.is_clean()
        channel.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks)
    watch.close()
    for _ in range(20):
        await asyncio.sleep(0)
    assert open_sockets() == before


def open_sockets() -> int:
    links = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    return len([link for link in links if "socket:" in link or "inotify" in link])


def answering(*answers: bytes) -> Function:
    """A function that answers requests, on one connection or on many, with these in turn; the last one for ever."""
    left = list(answers)

    async def function(theirs: Theirs) -> None:
        while True:
            await theirs.request()
            await theirs.send(left.pop(0) if len(left) > 1 else left[0])

    return function


async def test_calls_share_a_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, answering(HELLO)) as world:
        for _ in range(3):
            assert await world.call() == Head(200, [("Content-Length", "5"), ("X-A", "1")])
            assert (world.sink.body, world.exchange.status, world.exchange.is_clean()) == (b"hello", 200, True)
        assert world.connections == 1


async def test_a_container_on_probation_gets_a_connection_for_each_call(tmp_path: Path) -> None:
    async with serving(tmp_path, answering(HELLO)) as world:
        for _ in range(3):
            await world.call(watched=True)
            assert world.exchange.is_clean()
        assert world.connections == 3


def reply(status: int, *fields: str, body: bytes = b"body") -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "error", "kept"),
    [
        (reply(502), FunctionRaised, True),
        (reply(504), CallTimeout, True),
        (reply(502, body=b"x" * 100_000), FunctionRaised, True),
        (reply(201), FunctionBroken, False),
        (reply(204, body=b""), FunctionBroken, False),
        (reply(400), FunctionBroken, False),
        (reply(500), FunctionBroken, False),
        (reply(503), FunctionBroken, False),
        (reply(200, "Fn-Http-Status: 101"), FunctionBroken, False),
        (reply(200, "Fn-Http-Status: 1000"), FunctionBroken, False),
        (b"garbage\r\n\r\n", FunctionBroken, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", FunctionBroken, False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", FunctionBroken, False),
    ],
)
async def test_the_status_says_what_the_client_gets_and_whether_the_container_serves_on(
    tmp_path: Path, answer: bytes, error: type[Exception], kept: bool
) -> None:
    async with serving(tmp_path, answering(answer, HELLO)) as world:
        with pytest.raises(error):
            await world.call()
        assert (world.sink.heads, world.sink.body) == ([], b"")
        assert world.exchange.is_clean() is kept
        assert world.connections == 1
        await world.call()  # whatever became of the container, nothing of that answer reaches another call
        assert world.sink.body == b"hello"
        assert world.connections == (1 if kept else 2)


@pytest.mark.parametrize(
    ("value", "status"), [("404", 404), ("0", 200), ("", 200), ("x", 200), ("-1", 200), ("+404", 200), ("999", 999)]
)
async def test_the_function_sets_the_status_of_its_client(tmp_path: Path, value: str, status: int) -> None:
    async with serving(tmp_path, answering(reply(200, f"fn-http-status: {value}"))) as world:
        assert (await world.call()).status == status
        assert world.exchange.status == status


async def test_only_marked_headers_reach_the_client(tmp_path: Path) -> None:
    fields = (
        "fn-fdk-version: x/1",
        "Content-Type: text/plain",
        "Fn-Http-H-x-a: 1",
        "Fn-Http-H-X-A: 2",
        "Fn-Http-H-: nameless",
        "Fn-Http-H-Content-Length: 7",
        "Fn-Http-H-Transfer-Encoding: chunked",
        "Fn-Http-H-Connection: close",
        "X-Own: 1",
        "Keep-Alive: 75",
    )
    async with serving(tmp_path, answering(reply(200, *fields))) as world:
        head = await world.call()
        assert head.headers == [("Content-Length", "4"), ("Content-Type", "text/plain"), ("X-A", "1"), ("X-A", "2")]
        assert world.exchange.is_clean()


async def test_a_plain_call_passes_headers_as_they_are(tmp_path: Path) -> None:
    heads = []

    async def function(theirs: Theirs) -> None:
        heads.append(await theirs.request())
        await theirs.send(reply(200, "Fn-Fdk-Version: x/1", "Fn-Http-Status: 404", "Fn-Http-H-A: 1", "X-Own: 1"))

    headers = {
        "X-A": ["1", "2"],
        "Fn-Call-Id": ["forged"],
        "Fn-Deadline": ["never"],
        "Connection": ["X-B"],
        "X-B": ["x"],
    }
    async with serving(tmp_path, function) as world:
        head = await world.call(is_plain=True, headers={**headers, "Content-Length": ["9"], "Host": ["h"]})
    assert (head.status, dict(head.headers)) == (
        200,
        {"Content-Length": "4", "Fn-Fdk-Version": "x/1", "Fn-Http-Status": "404", "Fn-Http-H-A": "1", "X-Own": "1"},
    )
    assert heads[0].decode().split("\r\n") == [
        "POST /call HTTP/1.1",
        "Host: localhost",
        "Fn-Call-Id: 01C59M8V1MG3G00GZJ00000001",
        "Fn-Deadline: 2018-01-31T12:00:30.000Z",
        "Content-Length: 2",
        "X-A: 1",
        "X-A: 2",
        "",
        "",
    ]


async def test_a_call_of_a_client_is_marked_as_one(tmp_path: Path) -> None:
    heads = []

    async def function(theirs: Theirs) -> None:
        heads.append(await theirs.request())
        await theirs.send(HELLO)

    headers = {
        "X-A": ["1", "a\rFn-Intent: forged"],
        "Content-Type": ["text/plain"],
        "Fn-Intent": ["x"],
        "Te": ["trailers"],
        "Host": ["h"],
        "Bad Name": ["x"],
    }
    async with serving(tmp_path, function) as world:
        await world.call(method="PUT", headers=headers)
    assert heads[0].decode().split("\r\n") == [
        "POST /call HTTP/1.1",
        "Host: localhost",
        "Fn-Call-Id: 01C59M8V1MG3G00GZJ00000001",
        "Fn-Deadline: 2018-01-31T12:00:30.000Z",
        "Content-Length: 2",
        "Fn-Intent: httprequest",
        "Fn-Http-Method: PUT",
        "Fn-Http-Request-Url: http://h:8080/r/app1/hi?n=2",
        "Fn-Http-H-X-A: 1",
        "Fn-Http-H-X-A: a Fn-Intent: forged",
        "Content-Type: text/plain",
        "Fn-Http-H-Fn-Intent: x",
        "",
        "",
    ]


async def test_a_body_of_unknown_length_is_chunked(tmp_path: Path) -> None:
    seen = []

    async def function(theirs: Theirs) -> None:
        seen.append(await theirs.reader.readuntil(b"0\r\n\r\n"))
        await theirs.send(HELLO)

    async with serving(tmp_path, function) as world:
        await world.call(body=Body(b"ab", b"cde"), content_length=None)
    assert b"Transfer-Encoding: chunked\r\n" in seen[0]
    assert seen[0].partition(b"\r\n\r\n")[2] == b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"


@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
@pytest.mark.parametrize("size", [0, 1, 5000, 3_000_000])
async def test_a_body_ends_by_length_by_chunks_or_with_the_connection(tmp_path: Path, framing: str, size: int) -> None:
    body = b"x" * size

    async def function(theirs: Theirs) -> None:
        await theirs.request()
        if framing == "length":
            await theirs.send(reply(200, body=body))
            await theirs.reader.read(1)
        elif framing == "chunks":
            pieces = [body[start : start + 70_000] for start in range(0, size, 70_000)]
            chunks = b"".join([b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces])
            await theirs.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
            await theirs.reader.read(1)
        else:
            await theirs.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)

    async with serving(tmp_path, function) as world:
        await world.call()
        assert world.sink.body == body
        assert world.exchange.is_clean()


@pytest.mark.parametrize(
    "says", ["HTTP/1.1 200 OK\r\nConnection: close\r\n", "HTTP/1.0 200 OK\r\n"], ids=["said", "by version"]
)
async def test_a_connection_that_the_function_closes_is_not_used_again(tmp_path: Path, says: str) -> None:
    async def function(theirs: Theirs) -> None:
        await theirs.request()
        await theirs.send(f"{says}Content-Length: 5\r\n\r\nhello".encode())
        await theirs.reader.read(1)  # ours is closed first

    async with serving(tmp_path, function) as world:
        for number in range(3):
            await world.call()
            assert world.exchange.is_clean()
            assert world.connections == number + 1


async def test_a_connection_that_was_closed_between_calls_is_replaced(tmp_path: Path) -> None:
    async def function(theirs: Theirs) -> None:
        await theirs.request()
        await theirs.send(HELLO)

    async with serving(tmp_path, function) as world:
        for number in range(3):
            await world.call()
            assert (world.sink.body, world.exchange.is_clean()) == (b"hello", True)
            for _ in range(10):
                await asyncio.sleep(0)
            assert world.connections == number + 1


async def test_a_call_without_a_body_moves_on_if_its_request_was_not_read(tmp_path: Path) -> None:
    """The function closes the connection just as the request comes."""

    async def function(theirs: Theirs) -> None:
        if theirs.number == 1:
            await theirs.request()
            theirs.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a stream's transport
            await theirs.send(HELLO)
            await closing.wait()
            return
        await theirs.request()
        await theirs.send(HELLO)
        await theirs.reader.read(1)

    closing = asyncio.Event()
    async with serving(tmp_path, function) as world:
        await world.call()
        assert world.exchange.is_clean()
        running = asyncio.ensure_future(world.call(body=Body()))
        for _ in range(10):
            await asyncio.sleep(0)
        closing.set()
        await running
        assert (world.sink.body, world.connections, world.exchange.is_clean()) == (b"hello", 2, True)


@pytest.mark.parametrize(
    "part", [b"", HELLO[:10], HELLO[:-2], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"]
)
async def test_a_function_that_closes_the_connection_before_the_end_fails_its_call(
    tmp_path: Path, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "EXIT_GRACE_S", 0.01)  # it lives on

    async def function(theirs: Theirs) -> None:
        await theirs.request()
        await theirs.send(part)

    async with serving(tmp_path, function) as world:
        with pytest.raises(FunctionGone):
            await world.call()
        assert not world.exchange.is_clean()


async def test_the_record_says_how_a_function_ended_that_closed_the_connection(tmp_path: Path) -> None:
    async def function(theirs: Theirs) -> None:
        await theirs.request()
        world.container.exited = Exit(137)

    async with serving(tmp_path, function) as world:
        with pytest.raises(FunctionGone) as failed:
            await world.call()
        assert failed.value.detail == "container exit code 137"


async def test_a_container_that_takes_no_connection_is_gone_unless_it_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "EXIT_GRACE_S", 0.01)  # it lives on
    async with serving(tmp_path, answering(HELLO)) as world:
        await world.call(watched=True)
        assert world.exchange.is_clean()
        os.unlink(world.container.channel.folder / NAME)
        with pytest.raises(ContainerGone):
            await world.call()
        assert not world.exchange.is_clean()
        with pytest.raises(FunctionGone):
            await world.call(fresh=True)
        assert not world.exchange.is_clean()


@pytest.mark.parametrize("read", [None, 0, 1])
@pytest.mark.parametrize("body", [b"hi", b"x" * 100_000])
async def test_a_container_that_ends_before_it_takes_a_call_is_gone(
    tmp_path: Path, body: bytes, read: int | None
) -> None:
    """The system takes connections, and bytes on them, for a function that does nothing any more."""
    async with serving(tmp_path, answering(HELLO)) as world:
        await world.call(watched=True)
        assert world.exchange.is_clean()
        path = world.container.channel.folder / NAME
        path.unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            running = asyncio.ensure_future(world.call(body=Body(body)))
            await asyncio.sleep(0)
            if read is not None:
                with listener.accept()[0] as connection:
                    assert connection.recv(read or 1, 0 if read else socket.MSG_PEEK) == b"P"
        with pytest.raises(ContainerGone):
            await running
        assert not world.exchange.is_clean()


async def test_two_answers_at_once_end_the_container_and_reach_one_call(tmp_path: Path) -> None:
    async with serving(tmp_path, answering(HELLO + HELLO.replace(b"hello", b"wrong"))) as world:
        await world.call()
        assert world.sink.body == b"hello"
        assert not world.exchange.is_clean()
        assert world.exchange.surplus


async def test_an_answer_between_calls_ends_the_container_after_the_next_one(tmp_path: Path) -> None:
    async def function(theirs: Theirs) -> None:
        await theirs.request()
        await theirs.send(HELLO)
        if theirs.number == 1:
            await again.wait()
            await theirs.send(HELLO.replace(b"hello", b"wrong"))
        await theirs.reader.read(1)

    again = asyncio.Event()
    async with serving(tmp_path, function) as world:
        await world.call()
        assert world.exchange.is_clean()
        again.set()
        for _ in range(10):
            await asyncio.sleep(0)
        await world.call()
        assert world.sink.body == b"hello"
        assert world.exchange.surplus
        assert not world.exchange.is_clean()


@pytest.mark.parametrize(("body", "error"), [(b"", ContainerGone), (b"hi", FunctionGone)])
async def test_an_answer_to_a_request_that_is_unread_is_that_of_the_call_before(
    tmp_path: Path, body: bytes, error: type[Exception]
) -> None:
    async def function(theirs: Theirs) -> None:
        await theirs.request()
        theirs.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a stream's transport
        await theirs.send(HELLO)
        await again.wait()
        await theirs.send(HELLO.replace(b"hello", b"wrong"))
        await asyncio.get_running_loop().create_future()

    again = asyncio.Event()
    async with serving(tmp_path, function) as world:
        await world.call()
        assert world.exchange.is_clean()
        running = asyncio.ensure_future(world.call(body=Body(body) if body else Body()))
        for _ in range(10):
            await asyncio.sleep(0)
        again.set()
        with pytest.raises(error):
            await running
        assert (world.sink.heads, world.exchange.surplus, world.exchange.is_clean()) == ([], True, False)


async def test_an_answer_to_a_body_that_is_not_read_keeps_the_container_and_not_the_connection(tmp_path: Path) -> None:
    async def function(theirs: Theirs) -> None:
        await theirs.reader.readuntil(b"\r\n\r\n")
        theirs.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a stream's transport
        await theirs.send(HELLO)
        await asyncio.get_running_loop().create_future()

    async with serving(tmp_path, function) as world:
        for number in range(2):
            await world.call(body=Body(b"x" * 1_000_000))
            assert (world.sink.body, world.exchange.is_clean()) == (b"hello", True)
            assert world.connections == number + 2


async def test_a_request_that_may_be_read_in_parts_gets_a_connection_of_its_own(tmp_path: Path) -> None:
    async with serving(tmp_path, answering(HELLO)) as world:
        await world.call()
        assert world.exchange.is_clean()
        for body in (Body(b"x" * 4096), Body(b"x" * 4096), Body(b"x", b"x")):
            before = world.connections
            await world.call(body=body)
            assert world.exchange.is_clean()
            assert world.connections == before + 1
        await world.call(body=Body(b"x" * 1000))
        assert world.connections == before + 1


LIMITS = Limits(head_bytes=200, body_bytes=10)


async def test_a_head_above_its_limit_ends_the_container(tmp_path: Path) -> None:
    async with serving(tmp_path, answering(reply(200, f"X: {'x' * 200}")), LIMITS) as world:
        with pytest.raises(AnswerHeadTooLarge):
            await world.call()
        assert not world.exchange.is_clean()


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, body=b"x" * 11),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 11,
    ],
)
async def test_a_body_above_its_limit_ends_the_connection_only(tmp_path: Path, answer: bytes) -> None:
    async with serving(tmp_path, answering(answer, reply(200, body=b"x" * 10)), LIMITS) as world:
        with pytest.raises(AnswerTooLarge):
            await world.call()
        assert world.exchange.is_clean()
        await world.call()
        assert (world.sink.body, world.connections) == (b"x" * 10, 2)


async def test_a_body_that_is_announced_above_its_limit_is_refused_before_any_of_it(tmp_path: Path) -> None:
    async def function(theirs: Theirs) -> None:
        await theirs.request()
        await theirs.send(reply(200, body=b"x" * 11)[:-5])
        await theirs.reader.read(1)

    async with serving(tmp_path, function, LIMITS) as world:
        with pytest.raises(AnswerTooLarge):
            await world.call()
        assert world.sink.heads == []


async def test_a_call_that_is_cancelled_leaves_no_clean_container(tmp_path: Path) -> None:
    async def function(theirs: Theirs) -> None:
        await theirs.request()
        asked.set()
        assert await theirs.reader.read() == b""
        closed.set()

    asked, closed = asyncio.Event(), asyncio.Event()
    async with serving(tmp_path, function) as world:
        running = asyncio.ensure_future(world.call())
        await asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not world.exchange.is_clean()
        await closed.wait()


async def test_a_call_that_gives_up_takes_nothing_that_comes_in_the_same_turn() -> None:
    """The answer to a client that has left is no second answer: the function is not to be suspected of one."""

    async def write(_data: bytes) -> None:
        written.set()

    written = asyncio.Event()
    reader = StreamBuffer(lambda: None, lambda: None)
    writer = SimpleNamespace(write=write, unread=lambda: 0)
    connection = SimpleNamespace(reader=reader, writer=writer, was_reset=False, close=lambda: b"")
    channel = SimpleNamespace(take=lambda: connection, had_surplus=False, is_shared=False)
    world = World(cast(Any, channel), HttpStreamContract())
    running = asyncio.ensure_future(world.call())
    await written.wait()
    await asyncio.sleep(0)
    running.cancel()
    reader.feed(HELLO)
    await asyncio.wait([running])
    assert (world.sink.heads, world.exchange.surplus, world.exchange.is_clean()) == ([], False, False)


async def test_the_log_of_an_async_call_has_the_clients_answer(tmp_path: Path) -> None:
    form = HttpStreamContract().log_form(Head(404, [("X-A", "1")]), b"body")
    assert form == b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nContent-Length: 4\r\n\r\nbody"
