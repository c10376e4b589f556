"""The call that is built from a request, and what becomes of an async one whose queue refuses it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs
from tests.support.agent import TOTAL, Bench, Records, bench
from tests.support.door import OPEN_GATES
from tests.support.http_connection import FakeClient, shared_of

from hearth.access.cache import CachedDefinitions
from hearth.agent.agent import Agent
from hearth.agent.listeners import CallListener
from hearth.aio.clock import SystemClock
from hearth.authorize.attempts import WrongTokens
from hearth.authorize.authenticator import Authenticator
from hearth.authorize.tokens import Tokens
from hearth.contracts.base import Head
from hearth.models.app import App
from hearth.models.call import Call
from hearth.models.errors import ApiError, InternalError, InvalidResponse
from hearth.models.ids import encode, random_id
from hearth.models.principal import ADMIN
from hearth.models.route import Route
from hearth.server.api_v1.functions import Functions
from hearth.server.asgi_calls import AsgiExchange
from hearth.server.call_gates import CallGates
from hearth.server.invoke import Answer, InvokeFront
from hearth.server.targets import Starts, route_fields
from hearth.testing.script import Pipe, Script
from hearth.testing.scripted_driver import FakeDriver


class QueueIsSick(ApiError):
    """An API error of class 500."""

    status = 503
    message = "queue is sick"


class Accepting(Records):
    """Keeps the async calls that it is given, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.app = App(name="myapp", config={"APP_VAR": "FOO"})
        self.accepted: list[Call] = []
        self.failure: Exception | None = None

    async def enqueue(self, call: Call) -> None:
        if self.failure is not None:
            raise self.failure
        self.accepted.append(call)


ROUTE = Route(
    app_name="myapp",
    path="/hello",
    image="x",
    type="async",
    format="json",
    timeout=1,
    idle_timeout=20,
    memory=256,
    config={"ROUTE_VAR": "BAR"},
    headers={"X-Function": ["Test"]},
)


@contextlib.asynccontextmanager
async def client_of(access: Accepting, made: Bench) -> AsyncIterator[httpx.AsyncClient]:
    definitions = CachedDefinitions(access, SystemClock())
    functions = Functions(made.agent.pool, access)
    front = InvokeFront(made.agent, functions, OPEN_GATES, definitions, access, SystemClock(), lambda: encode(7))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://h:8080") as client:
        yield client
    await definitions.close()


async def test_a_call_is_what_was_asked() -> None:
    access = Accepting()
    access.routes["/hello"] = ROUTE
    before = dt.datetime.now(dt.UTC)
    headers = [("FN_PATH", "thewrongroute"), ("MYREALHEADER", "FOOLORD"), ("MYREALHEADER", "FOOPEASANT")]
    with capture_logs() as logged:
        async with bench() as made, client_of(access, made) as client:
            answer = await client.post("/r/myapp/hello?a=%20b", content=b"\x80body", headers=headers)
    assert [entry["call_id"] for entry in logged if entry["event"] == "call accepted and queued"] == [encode(7)]
    assert (answer.status_code, answer.content) == (202, b'{"call_id":"%b"}' % encode(7).encode())
    assert answer.headers["x-function"] == "Test"
    [call] = access.accepted
    assert call.config == {
        "FN_FORMAT": "json",
        "FN_APP_NAME": "myapp",
        "FN_PATH": "/hello",
        "FN_MEMORY": "256",
        "FN_TYPE": "async",
        "APP_VAR": "FOO",
        "ROUTE_VAR": "BAR",
    }
    assert call.headers["Fn_path"] == ["thewrongroute"]
    assert call.headers["Myrealheader"] == ["FOOLORD", "FOOPEASANT"]
    assert call.headers["Content-Length"] == ["5"]
    assert "Host" not in call.headers
    assert (call.method, call.url) == ("POST", "http://h:8080/r/myapp/hello?a=%20b")
    assert (call.id, call.app_name, call.path, call.image) == (encode(7), "myapp", "/hello", "x")
    assert (call.type, call.format, call.status) == ("async", "json", "queued")
    assert (call.timeout, call.idle_timeout, call.memory, call.cpu_milli) == (1, 20, 256, 0)
    assert (call.payload, call.priority) == (b"\x80body", 0)
    assert before <= call.created_at <= dt.datetime.now(dt.UTC)


async def test_a_call_is_of_the_route_as_it_is_now_however_its_path_is_spelled() -> None:
    access = Accepting()
    definitions = CachedDefinitions(access, SystemClock())
    async with bench() as made:
        front = InvokeFront(
            made.agent,
            Functions(made.agent.pool, access),
            OPEN_GATES,
            definitions,
            access,
            SystemClock(),
            lambda: encode(7),
        )
        async with shared_of(calls=front.handler) as shared:
            client = FakeClient(shared)
            for image in ("one", "one", "two"):
                if access.routes.get("/hello") is None or access.routes["/hello"].image != image:
                    access.routes["/hello"] = msgspec.structs.replace(ROUTE, image=image, headers={"X-Image": [image]})
                    definitions.forget("myapp", "/hello")
                for path in ("/hello", "//hello/", "/x/../hello"):
                    client.send(f"POST /r/myapp{path} HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")
                    received = await client.settled()
                    assert received.startswith(b"HTTP/1.1 202 ")
                    assert b"x-image: %b\r\n" % image.encode() in received
                    assert access.accepted[-1].image == image
            client.send("PROPFIND /r/myapp/hello HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.settled()).startswith(b"HTTP/1.1 404 "), "whatever is known of the path"
        await definitions.close()


@pytest.mark.parametrize(
    ("failure", "status", "text"),
    [(QueueIsSick(), 503, "queue is sick"), (InternalError("secret"), 500, "internal server error")],
)
async def test_a_call_that_cannot_be_kept_is_not_accepted(failure: Exception, status: int, text: str) -> None:
    access = Accepting()
    access.routes["/hello"] = ROUTE
    access.failure = failure
    with capture_logs() as logged:
        async with bench() as made, client_of(access, made) as client:
            answer = await client.post("/r/myapp/hello", content=b"body")
    assert "call accepted and queued" not in [entry["event"] for entry in logged]
    assert (answer.status_code, answer.json()) == (status, {"error": {"message": text}})
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["fn_call_id"] == encode(7)
    assert answer.headers["x-function"] == "Test"


async def test_an_error_answer_has_no_header_of_the_function_and_those_of_the_route() -> None:
    sent: list[Any] = []

    async def receive() -> Any: ...

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
    answer = Answer(AsgiExchange(scope, receive, send), is_bodiless=False, starts=Starts())
    answer.call_id, answer.of_route = encode(7), route_fields({"X-Route": ["r"]})
    answer.head(Head(201, [("X-Function", "f"), ("Content-Type", "text/plain"), ("Content-Length", "5")]))
    await answer.fail(InvalidResponse("json", "cut off"))
    headers = {name.lower(): value for name, value in sent[0]["headers"]}
    assert (sent[0]["status"], headers[b"x-route"], headers[b"fn_call_id"]) == (502, b"r", encode(7).encode())
    assert headers[b"content-type"] == b"application/json; charset=utf-8"
    assert headers[b"content-length"] == b"%d" % len(sent[1]["body"])
    assert b"x-function" not in headers


def answering(*answers: bytes) -> Script:
    """A function of the format ``http`` that gives these answers, one after the other, to calls without a body."""

    async def main(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        for given in itertools.cycle(answers):
            received = b""
            while not received.endswith(b"\r\n\r\n"):
                received += await stdin.read()
            await stdout.write(given)
        return 0

    return Script(main=main)


@contextlib.asynccontextmanager
async def http_client_of(
    script: Script, *, gates: CallGates = OPEN_GATES, listeners: Sequence[CallListener] = (), **fields: Any
) -> AsyncIterator[FakeClient]:
    """A client of the server itself, of which each call reaches this function."""
    access = Accepting()
    access.routes["/hello"] = msgspec.structs.replace(ROUTE, type="sync", format="http", timeout=60, **fields)
    definitions = CachedDefinitions(access, SystemClock())
    ids, clock = itertools.count(7), SystemClock()
    driver = FakeDriver(clock, {"x": script})
    async with Agent(driver, access, clock, total=TOTAL, next_id=random_id, listeners=listeners) as agent:
        functions = Functions(agent.pool, access)
        front = InvokeFront(agent, functions, gates, definitions, access, clock, lambda: encode(next(ids)))
        async with shared_of(calls=front.handler) as shared:
            client = FakeClient(shared)
            yield client
            client.leave()
        await definitions.close()
    await driver.close()


async def answer_to(
    client: FakeClient, method: str = "GET", field: str = ""
) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Call the function; return the status line, the header fields and the body of the answer."""
    client.send(f"{method} /r/myapp/hello HTTP/1.1\r\nHost: h\r\n{field}\r\n")
    received = b""
    while not received:
        await asyncio.sleep(0)
        received = await client.settled()
    head, _, body = received.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    found = dict(field.split(b": ", 1) for field in fields)
    assert len(found) == len(fields)
    return line, found, body


async def test_answers_that_begin_alike_differ_in_what_is_of_their_calls_only() -> None:
    two = [b"HTTP/1.1 200 OK\r\nX-F: f\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text) for text in (b"a", b"bcd")]
    async with http_client_of(answering(*two)) as client:
        answers = [await answer_to(client) for _ in range(4)]
    assert [body for _, _, body in answers] == [b"a", b"bcd", b"a", b"bcd"]
    assert [fields[b"content-length"] for _, fields, _ in answers] == [b"1", b"3", b"1", b"3"]
    assert [fields[b"fn_call_id"] for _, fields, _ in answers] == [encode(number).encode() for number in range(7, 11)]
    for line, fields, _ in answers:
        assert line == b"HTTP/1.1 200 OK"
        assert (fields[b"x-f"], fields[b"x-function"]) == (b"f", b"Test")
        assert fields[b"content-type"] == b"application/json"
        assert fields.keys() >= {b"date", b"xxx-fxlb-wait"}
        assert b"connection" not in fields


async def test_an_answer_like_the_one_before_can_end_its_connection() -> None:
    given = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    async with http_client_of(answering(given)) as client:
        await answer_to(client)
        _, fields, body = await answer_to(client, field="Connection: close\r\n")
    assert (fields[b"connection"], body, client.is_closed) == (b"close", b"x", True)


async def test_an_answer_like_the_one_before_waits_for_a_slow_client() -> None:
    given = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    async with http_client_of(answering(given)) as client:
        _, before, _ = await answer_to(client)
        client.connection.pause_writing()
        client.send("GET /r/myapp/hello HTTP/1.1\r\nHost: h\r\n\r\n")
        for _ in range(5):
            assert await client.settled() == b""
        client.connection.resume_writing()
        received = b""
        while not received:
            received = await client.settled()
        _, after, body = await answer_to(client)
    assert received.endswith(b"\r\n\r\nx")
    assert received.count(b"content-length: 1\r\n") == 1
    assert (after.keys(), body) == (before.keys(), b"x")


async def test_an_answer_without_a_body_is_none_like_those_before() -> None:
    given = [b"HTTP/1.1 204 No Content\r\nX-F: f\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-F: f\r\nContent-Length: 1\r\n\r\nx"]
    async with http_client_of(answering(*given)) as client:
        for _ in range(2):
            line, fields, body = await answer_to(client)
            assert (line, fields[b"x-f"], body) == (b"HTTP/1.1 204 No Content", b"f", b"")
            assert b"content-length" not in fields
            _, fields, body = await answer_to(client)
            assert (fields[b"content-length"], body) == (b"1", b"x")


def hearing(seen: list[bytes]) -> Script:
    """A function of the format ``http`` that keeps the heads of the calls that it gets."""

    async def main(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
        while True:
            received = b""
            while not received.endswith(b"\r\n\r\n"):
                received += await stdin.read()
            seen.append(received)
            await stdout.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")

    return Script(main=main)


async def test_calls_with_the_same_head_reach_the_function_each_with_its_own_id() -> None:
    seen: list[bytes] = []
    async with http_client_of(hearing(seen)) as client:
        for field in ("X-A: 1\r\n", "X-A: 1\r\n", "X-A: 2\r\n", "X-A: 1\r\n"):
            await answer_to(client, field=field)
    ids = [encode(number).encode() for number in range(7, 11)]
    assert [b"\r\nFn_call_id: %b\r\n" % call_id in text for call_id, text in zip(ids, seen, strict=True)] == [True] * 4
    assert [b"\r\nX-A: 1\r\n" in text for text in seen] == [True, True, False, True]


async def test_each_of_some_calls_with_the_same_head_shows_its_proof_to_the_gate() -> None:
    seen: list[bytes] = []
    clock = SystemClock()
    gates = CallGates(Authenticator(Tokens([(ADMIN, "secret")]), WrongTokens(clock)), clock)
    async with http_client_of(hearing(seen), gates=gates, auth="token") as client:
        lines = [(await answer_to(client, field="Authorization: Bearer secret\r\n"))[0] for _ in range(3)]
    assert lines == [b"HTTP/1.1 200 OK"] * 3
    assert [b"secret" in text for text in seen] == [False] * 3


async def test_a_header_that_a_listener_changes_is_that_of_its_call_only() -> None:
    class Marking(CallListener):
        async def before_call(self, call: Call) -> None:
            call.headers["X-A"].append(call.id)

    seen: list[bytes] = []
    async with http_client_of(hearing(seen), listeners=[Marking()]) as client:
        for _ in range(2):
            await answer_to(client, field="X-A: 1\r\n")
    assert [text.count(b"X-A: ") for text in seen] == [2, 2]
