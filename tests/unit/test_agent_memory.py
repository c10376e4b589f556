"""What is left of calls in memory once they have ended, however they end: nothing, without the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest
from tests.support.agent import OBEDIENT, Bench, Body, Sink, bench
from tests.support.door import OPEN_GATES
from tests.support.http_connection import FakeClient, shared_of
from tests.support.virtual_time import run

from hearth.access.cache import CachedDefinitions
from hearth.agent.call import ActiveCall, ClientGone
from hearth.contracts.stdio.codec import Decoder, Encoder
from hearth.contracts.stdio.exchange import StdioExchange
from hearth.drivers.base import Exit, StartFailed
from hearth.models.errors import HearthError
from hearth.models.ids import encode
from hearth.server.asgi_calls import AsgiExchange
from hearth.server.http.connection import HttpConnection
from hearth.server.http.exchange import HttpExchange
from hearth.server.http.parsing import RequestParser
from hearth.server.invoke import Answer, InvokeFront
from hearth.testing.script import Pipe, Script, Step

TIMES = 5
WATCHED: Final = (
    *(ActiveCall, StdioExchange, Body, Sink, Encoder, Decoder, Answer),
    *(AsgiExchange, HttpConnection, HttpExchange, RequestParser),
)
LARGE: Final = b"x" * 300_000


@pytest.fixture(autouse=True, scope="module")
def no_collector() -> Iterator[None]:
    """Collect nothing, and look only at what these tests create."""
    gc.disable()
    gc.freeze()
    yield
    gc.enable()


def left() -> Counter[str]:
    """The objects of calls that are alive."""
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, WATCHED))


async def submit(on: Bench, call: ActiveCall) -> None:
    with contextlib.suppress(HearthError):
        await on.agent.submit(call)


class LeavingBody(Body):
    """A client that leaves after its first piece."""

    async def read(self) -> bytes:
        piece = await super().read()
        if not piece or self.ended:
            raise ClientGone
        return piece


async def success(on: Bench, **route: Any) -> None:
    await submit(on, on.call(on.function(**route), echo="x"))


async def invalid_answer(on: Bench, **route: Any) -> None:
    await submit(on, on.call(on.function(**route), raw="]"))


async def function_exits(on: Bench, **route: Any) -> None:
    await submit(on, on.call(on.function(**route), exit=3))


async def timeout(on: Bench, **route: Any) -> None:
    await submit(on, on.call(on.function(timeout=1, **route), sleep=5))


async def large_body(on: Bench, **route: Any) -> None:
    await submit(on, on.call(on.function(**route), body=Body(LARGE, LARGE)))


async def large_body_times_out(on: Bench, **route: Any) -> None:
    body = json.dumps({"sleep": 5, "pad": "x" * 300_000}).encode()
    await submit(on, on.call(on.function(timeout=1, **route), body=Body(body)))


async def client_leaves_in_its_body(on: Bench, **route: Any) -> None:
    await submit(on, on.call(on.function(**route), body=LeavingBody(LARGE, LARGE, length=900_000, open_end=True)))


async def client_leaves_before_its_body(on: Bench, **route: Any) -> None:
    await submit(on, on.call(on.function(**route), body=LeavingBody(b"", length=900_000, open_end=True)))


async def client_never_ends_its_body(on: Bench, **route: Any) -> None:
    body = Body(LARGE, length=900_000, open_end=True)
    await submit(on, on.call(on.function(timeout=1, **route), body=body))


async def client_is_gone_while_it_runs(on: Bench, **route: Any) -> None:
    call = asyncio.ensure_future(submit(on, on.call(on.function(**route), sleep=5)))
    await asyncio.sleep(0.1)
    call.cancel()
    await asyncio.wait([call])


async def no_container_in_time(on: Bench, **route: Any) -> None:
    holder = asyncio.ensure_future(success_later(on))
    await asyncio.sleep(0.1)
    await submit(on, on.call(on.function(timeout=1, memory=1000, **route), echo="x"))
    await holder


async def success_later(on: Bench) -> None:
    await submit(on, on.call(on.function(path="/holder", memory=900), sleep=2))


async def image_missing(on: Bench, **route: Any) -> None:
    function = on.function(image="none", **route)
    await asyncio.gather(*[submit(on, on.call(function, echo="x")) for _ in range(3)])
    await asyncio.sleep(2)


async def start_fails(on: Bench, **route: Any) -> None:
    await submit(on, on.call(on.function(image="broken", **route), echo="x"))


async def container_dead_before_the_call(on: Bench, **route: Any) -> None:
    function = on.function(**route)
    await submit(on, on.call(function, echo="x"))
    for container in [one for one in on.driver.containers.values() if one.exited is None]:
        container.say(b"surplus")
    await submit(on, on.call(function, echo="x"))


async def container_killed_while_it_runs(on: Bench, **route: Any) -> None:
    call = asyncio.ensure_future(submit(on, on.call(on.function(**route), sleep=5)))
    await asyncio.sleep(0.1)
    for container in list(on.driver.containers.values()):
        container.end(Exit(137, oom=True))
    await call


async def function_dies_with_a_large_body_half_written(on: Bench, **route: Any) -> None:
    call = asyncio.ensure_future(submit(on, on.call(on.function(image="deaf", **route), body=Body(LARGE, LARGE))))
    await asyncio.sleep(0.1)
    for container in list(on.driver.containers.values()):
        container.end(Exit(1))
    await call


async def ignorant(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    """Speaks HTTP; does what the last line of what it has read says."""
    while data := await stdin.read():
        if data.startswith(b"POST"):
            length = int(data.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            received = len(data.partition(b"\r\n\r\n")[2])
        while received < length:
            received += len(await stdin.read())
        text = data.partition(b"\r\n\r\n")[2]
        orders = json.loads(text) if text.startswith(b"{") and text.endswith(b"}") else {}
        await asyncio.sleep(orders.get("sleep", 0))
        if "exit" in orders:
            return int(orders["exit"])
        await stdout.write(orders.get("raw", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").encode())
    return 0


async def once(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    """Reads all, then does what it is told."""
    text = b""
    while data := await stdin.read():
        text += data
    orders = json.loads(text) if text.startswith(b"{") and text.endswith(b"}") else {}
    await asyncio.sleep(orders.get("sleep", 0))
    await stdout.write(b"ok")
    return int(orders.get("exit", 0))


ENDINGS: Final[list[Callable[..., Awaitable[None]]]] = [
    success,
    invalid_answer,
    function_exits,
    timeout,
    large_body,
    large_body_times_out,
    client_leaves_in_its_body,
    client_leaves_before_its_body,
    client_never_ends_its_body,
    client_is_gone_while_it_runs,
    no_container_in_time,
    image_missing,
    start_fails,
    container_dead_before_the_call,
    container_killed_while_it_runs,
    function_dies_with_a_large_body_half_written,
]


async def hold(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    """Takes no input."""
    await asyncio.sleep(1000)
    return 0


@pytest.mark.parametrize("format_name", ["default", "json", "http"])
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
def test_nothing_of_a_call_is_left_once_it_has_ended(ending: Callable[..., Awaitable[None]], format_name: str) -> None:
    async def scenario() -> None:
        speaks = {"json": OBEDIENT, "http": ignorant, "default": once}[format_name]
        images = {
            "obey": Script(main=speaks),
            "deaf": Script(main=hold),
            "broken": Script(start=Step(error=StartFailed("no"))),
        }
        async with bench(images=images) as on:
            before = left()
            for _ in range(TIMES):
                await ending(on, format=format_name)
            await asyncio.sleep(5)
            assert left() == before

    run(scenario())


def requests(leaves: bool, orders: dict[str, Any]) -> Callable[[], Awaitable[dict[str, Any]]]:
    """What a client sends: a large body in two pieces, or most of it."""
    pieces = deque([json.dumps({**orders, "pad": "x" * 300_000}).encode(), b"\n" * 100_000])

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        if pieces:
            return {"type": "http.request", "body": pieces.popleft(), "more_body": leaves or bool(pieces)}
        if leaves:
            return {"type": "http.disconnect"}
        return await asyncio.get_running_loop().create_future()

    return receive


@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
@pytest.mark.parametrize("orders", [{}, {"raw": "]"}, {"exit": 1}, {"sleep": 5}], ids=str)
def test_nothing_of_a_request_is_left_once_it_was_answered(orders: dict[str, Any], leaves: bool) -> None:
    async def scenario() -> None:
        async with bench() as on:
            on.function(timeout=1)
            definitions = CachedDefinitions(on.records, on.clock)
            front = InvokeFront(
                on.agent, on.functions, OPEN_GATES, definitions, on.records, on.clock, lambda: encode(7)
            )
            headers = [(b"host", b"h"), (b"transfer-encoding", b"chunked")]
            scope = {"type": "http", "method": "POST", "path": "/r/a/f", "raw_path": b"/r/a/f", "scheme": "http"}

            async def send(message: Any) -> None: ...

            before = left()
            for _ in range(TIMES):
                await front({**scope, "query_string": b"", "headers": headers}, requests(leaves, orders), send)
            await asyncio.sleep(5)
            assert left() == before
            await definitions.close()

    run(scenario())


@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
@pytest.mark.parametrize("orders", [{}, {"raw": "]"}, {"exit": 1}, {"sleep": 5}], ids=str)
@pytest.mark.parametrize("over_asgi", [False, True], ids=["direct", "asgi"])
def test_nothing_of_a_request_is_left_once_its_connection_was_answered(
    orders: dict[str, Any], leaves: bool, over_asgi: bool
) -> None:
    async def scenario() -> None:
        async with bench() as on:
            on.function(timeout=1)
            definitions = CachedDefinitions(on.records, on.clock)
            front = InvokeFront(
                on.agent, on.functions, OPEN_GATES, definitions, on.records, on.clock, lambda: encode(7)
            )
            handlers = {"app": front} if over_asgi else {"calls": front.serve}
            async with shared_of(**handlers, clock=on.clock) as shared:
                before = left()
                for _ in range(TIMES):
                    await one_request(FakeClient(shared), orders, leaves=leaves)
                await asyncio.sleep(5)
                assert left() == before
            await definitions.close()

    run(scenario())


async def one_request(client: FakeClient, orders: dict[str, Any], *, leaves: bool) -> None:
    """Send a large body in two pieces, or most of it; wait for the answer."""
    body = json.dumps({**orders, "pad": "x" * 300_000}).encode()
    client.send(b"POST /r/a/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"%x\r\n%b\r\n" % (len(body), body))
    await asyncio.sleep(0.01)
    if not leaves:
        client.send(b"5\r\n\n\n\n\n\n\r\n0\r\n\r\n")
        await asyncio.sleep(2)
        assert client.received.startswith(b"HTTP/1.1 ")
    client.leave()
    del client.connection
    await asyncio.sleep(2)
